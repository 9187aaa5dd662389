"""The command `explore`: a page to play with a model, in a browser on this machine."""

import functools
import json
import os
import socket
import tempfile
import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from tfnvp.cli import loading, rows, terminal
from tfnvp.cli.loading import Flow
from tfnvp.cli.options import Dataset, Inputs, Model
from tfnvp.data import DatasetNotFoundError
from tfnvp.explore import layers
from tfnvp.explore.images import Images, Known
from tfnvp.models import presets
from tfnvp.training import recipes

if TYPE_CHECKING:
    import uvicorn

_HOST = "127.0.0.1"
# So many are compared with; to score more would take long at the start.
_KNOWN = 1000


def explore(
    model: Model,
    inputs: Inputs = None,
    dataset: Dataset = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="of the page")] = 7860,
    browser: Annotated[
        bool, typer.Option(help="open the page in the browser, or only print its address")
    ] = True,
) -> None:
    """Opens a page to play with a model, on this machine alone; Ctrl-C ends it.

    Images are compared with files, with the training images of --dataset, or of the set that the
    model was trained on, and where there is none of these with samples of the model itself. For
    models of two dimensions the page goes through the flow layer by layer.

    Example: tfnvp explore digits
    """
    _check_free(port)
    flow = loading.load(model)
    loading.check_can(flow, "explore", images=False)
    # Gradio keeps there what it shows, and what is dropped.
    with tempfile.TemporaryDirectory() as shown:
        os.environ["GRADIO_TEMP_DIR"] = shown
        from tfnvp.explore import page, server

        name = model if model in presets.trained() else Path(model).stem
        with terminal.status("getting ready"):
            source, known = _known(flow, model, inputs, dataset)
            if loading.is_of_images(flow):
                explored = Images(flow, None if known is None else Known(known, source))
                blocks = page.of_images(explored, name)
            else:
                blocks = _of_vectors(flow, known, name)
        _serve(server.of_application(server.application(blocks), _HOST, port), browser)


def _of_vectors(flow: Flow, known: np.ndarray | None, name: str):  # noqa: ANN202
    from tfnvp.explore import page

    if known is None:
        known = np.zeros([0, 2])
    labels = [None] if flow.condition.label_dropout or not flow.num_classes else []
    labels += range(flow.num_classes or 0)
    return page.of_vectors(functools.partial(layers.steps, flow, known), labels, name)


def _known(
    flow: Flow, model: str, inputs: list[Path] | None, dataset: str | None
) -> tuple[str, np.ndarray | None]:
    """Gives the images or vectors to compare with, and says which they are."""
    kind = "images" if loading.is_of_images(flow) else "rows"
    if inputs or dataset:
        names, x = rows.read(flow, inputs, dataset, *(("train", _KNOWN) if dataset else ()))
        if dataset:
            return f"{len(x):,} training {kind} of {dataset}", x
        return f"the {len(names):,} {kind} given", x
    recipe = _recipe(model)
    if recipe is not None:
        try:
            batch = next(iter(recipes.get(recipe).load("train", _KNOWN, shuffle=False)))
        except (DatasetNotFoundError, ImportError):  # The extra `data` may be missing too.
            return "", None
        x = np.asarray(batch[0] if isinstance(batch, tuple) else batch)
        if x.shape[1:] == tuple(flow.event_shape):
            return f"{len(x):,} training {kind} of {recipe}", x
    return "", None


def _recipe(model: str) -> str | None:
    """The recipe by which a model was trained, if that is known and its data has a name."""
    if model in presets.trained():
        return presets.card(model)["recipe"]
    card = Path(model).with_name("card.json")
    try:
        recipe = json.loads(card.read_text())["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return recipe if recipe in recipes.names() and recipe not in ("folder", "table") else None


def _check_free(port: int) -> None:
    try:
        socket.create_server((_HOST, port)).close()
    except OSError as error:
        reason = os.strerror(error.errno)
        raise ValueError(f"--port {port} cannot be had ({reason}): give another") from None


def _serve(server: "uvicorn.Server", browser: bool) -> None:
    address = f"http://{_HOST}:{server.config.port}"
    print(f"{address}, on this machine alone; Ctrl-C ends it", flush=True)
    if browser:
        threading.Timer(1, webbrowser.open, [address]).start()
    server.run()
