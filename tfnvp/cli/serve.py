"""The command `serve`: a small server of one model, for development."""

import tempfile
import warnings
from pathlib import Path
from typing import Annotated

import typer

from tfnvp.cli import loading
from tfnvp.cli.options import Model
from tfnvp.serving import export_saved_model


def serve(
    model: Model,
    name: Annotated[
        str | None, typer.Option(help="of the model", show_default="MODEL's own")
    ] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 for all who can reach it")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="of the server")] = 8501,
) -> None:
    """Serves a model by TF Serving's REST paths, for development; Ctrl-C ends it.

    Nothing is batched, nobody is kept out, and there is no gRPC: TF Serving is for production.

    Example: tfnvp serve digits
    """
    from tfnvp.serving import server

    path = Path(model)
    with tempfile.TemporaryDirectory() as exported:
        if path.is_dir():
            name = name or (path.parent.name if path.name.isdigit() else path.name)
        else:
            flow = loading.load(model)
            name = name or path.stem
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                path = export_saved_model(flow, Path(exported, "model"))
        application = server.application(server.ServedModel(path, name))
        print(
            f"serving {name} at http://{host}:{port}/v1/models/{name}, for development: "
            "TF Serving is for production, see docs/serving.md",
            flush=True,
        )
        server.run(application, host, port)
