"""The page of `tfnvp explore`, laid out with Gradio: what is where, and what answers to what."""

import functools
import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from tfnvp._environment import extra
from tfnvp.data import ImageFileError
from tfnvp.explore import figures
from tfnvp.explore.images import NEIGHBOURS, SIZES, Corners, Images, Scored
from tfnvp.explore.layers import Step

if TYPE_CHECKING:
    import gradio as gr

ANY = "any: p(x)"
# Small images are to be seen as they are, pixel by pixel, and below their labels.
CSS = """
.pixels img { image-rendering: pixelated; padding-top: 28px; box-sizing: border-box; }
.gradio-container { max-width: 1100px !important; margin: auto; }
footer { display: none !important; }
"""
# Answers are computed where they are asked for: they take less time than a place in a queue.
_DIRECT = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_PICTURE = {"format": "png", "buttons": [], "interactive": False, "elem_classes": "pixels"}


def gradio() -> ModuleType:
    """Imports Gradio, which takes seconds and is asked for by nothing else.

    Raises:
        ImportError: if it is not installed; the message names the extra.
    """
    # Gradio reads these when it is imported. Nothing on the page is anybody else's business.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio
    except ImportError as missing:
        raise ImportError(f"the page needs {extra('explore')}") from missing
    return gradio


def theme() -> "gr.themes.Base":
    """Makes the page's theme, whose fonts are on every machine: none comes from another host."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return gradio().themes.Base(primary_hue="blue", **fonts)


def of_images(explored: Images, name: str) -> "gr.Blocks":
    """Lays out the page of a model of images.

    Args:
        explored: the model.
        name: its name, for the title.
    """
    gr = gradio()
    with gr.Blocks(analytics_enabled=False, title=f"tfnvp explore {name}") as page:
        gr.Markdown(f"# {name}\n\n{_description(explored)}")
        with gr.Tab("Between four images"):
            _between(page, explored)
        with gr.Tab("A picture"):
            _picture(page, explored)
    return page


def _description(explored: Images) -> str:
    height, width, channels = explored.flow.image_shape
    size = f"{height} x {width} {'grey' if channels == 1 else 'colour'} images"
    return f"{size}, {explored.flow.levels} levels. Compared with {explored.known.source}."


def _between(page: "gr.Blocks", explored: Images) -> None:
    gr = gradio()
    scales = explored.flow.num_scales
    labels = {ANY if label is None else str(label): label for label in explored.labels}
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            right = gr.Slider(0, 360, 45, step=1, label="right, degrees", elem_id="right")
            down = gr.Slider(0, 360, 45, step=1, label="down, degrees", elem_id="down")
            gr.Markdown("At 0 and 90 degrees are the four images, beyond 90 their far side.")
            temperature = gr.Slider(
                0, 1.5, 1, step=0.05, label="temperature", elem_id="temperature"
            )
            label = gr.Dropdown(
                list(labels),
                value=next(iter(labels)),
                label="class",
                visible=len(labels) > 1,
                elem_id="class",
            )
            drawn = gr.Slider(
                0, scales, 0, step=1, label="finer scales drawn anew", elem_id="drawn"
            )
            size = gr.Radio(
                [(f"{size} x", size) for size in SIZES],
                value=1,
                label="height and width, of the training's",
                elem_id="size",
            )
            known = gr.Radio(
                [("known images", True), ("samples", False)],
                value=True,
                label="the four images (of other sizes there are samples alone)",
                elem_id="known",
            )
            with gr.Row():
                others = gr.Button("Four others", size="sm", elem_id="others")
                anew = gr.Button("Draw finer scales anew", size="sm", elem_id="anew")
        with gr.Column(scale=3, min_width=360):
            image = gr.Image(label="between", elem_id="between", height=380, **_PICTURE)
            with gr.Row():
                corners = [
                    gr.Image(label=text, height=170, min_width=80, elem_id=f"corner{i}", **_PICTURE)
                    for i, text in enumerate(("0, 0", "right", "down", "right and down"))
                ]
    seed, draw = gr.State(0), gr.State(0)

    def asked(seed: int, label: str, size: int, known: bool) -> Corners:
        return Corners(seed, known and size == 1, labels[label], size)

    def between(
        seed: int,
        draw: int,
        label: str,
        size: int,
        known: bool,
        down: float,
        right: float,
        temperature: float,
        drawn: int,
    ) -> np.ndarray:
        angles = math.radians(down), math.radians(right)
        four = asked(seed, label, size, known)
        return figures.magnified(
            explored.between(four, *angles, temperature, kept=scales - drawn, draw=draw)
        )

    def four(seed: int, _: int, label: str, size: int, known: bool, *__: float) -> list:
        images = explored.corner_images(asked(seed, label, size, known))
        return [figures.magnified(x, 128) for x in images]

    inputs = [seed, draw, label, size, known, down, right, temperature, drawn]
    for slider in (right, down, temperature, drawn):
        # A moving slider outruns its answers: the last position alone is asked for again.
        slider.input(between, inputs, image, trigger_mode="always_last", **_DIRECT)
    new = {"fn": _new_seed, "inputs": None, **_DIRECT}
    anew.click(outputs=draw, **new).then(between, inputs, image, **_DIRECT)
    moved = [choice.input(between, inputs, image, **_DIRECT) for choice in (label, size, known)]
    moved.append(others.click(outputs=seed, **new).then(between, inputs, image, **_DIRECT))
    moved.append(page.load(between, inputs, image, **_DIRECT))
    for event in moved:
        event.then(four, inputs, corners, **_DIRECT)


def _new_seed() -> int:
    return random.randrange(2**31)


def _picture(page: "gr.Blocks", explored: Images) -> None:
    gr = gradio()
    histogram = figures.Histogram(explored.bits, explored.known.source)
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            file = gr.File(
                label="drop a picture: PNG or JPEG",
                file_types=[".png", ".jpg", ".jpeg"],
                height=150,
                elem_id="file",
            )
            take = gr.Button("Take a known one", size="sm", elem_id="take")
            words = gr.Markdown(elem_id="words")
        with gr.Column(scale=3, min_width=420):
            with gr.Row():
                small = {"height": 220, "min_width": 120}
                seen = gr.Image(label="as the model sees it", elem_id="seen", **small, **_PICTURE)
                back = gr.Image(label="reconstruction", elem_id="back", **small, **_PICTURE)
            marked = gr.Image(
                show_label=False, elem_id="histogram", **_PICTURE | {"elem_classes": []}
            )
            gr.Markdown("The nearest of the known images, and their distances")
            with gr.Row():
                count = min(len(explored.known.images), NEIGHBOURS)
                nearest = [
                    gr.Image(height=140, min_width=60, elem_id=f"near{i}", **_PICTURE)
                    for i in range(count)
                ]
    outputs = [words, seen, back, marked, *nearest]

    def shown(image: np.ndarray) -> list:
        scored = explored.score(image)
        near = zip(scored.neighbours, scored.distances, strict=True)
        return [
            _words(scored, explored),
            figures.magnified(scored.image, 160),
            figures.magnified(scored.reconstruction, 160),
            histogram.marked(scored.bits),
            *(
                gr.Image(figures.magnified(x, 96), label=f"{distance:.3f}", show_label=True)
                for x, distance in near
            ),
        ]

    def dropped(path: str) -> list:
        try:
            return shown(explored.read(path))
        except ImageFileError as error:
            # The pictures of the last file would pass for those of this one.
            words = f"**{Path(path).name} cannot be read:** {error.reason}"
            return [words, None, None, None, *[gr.Image(None, show_label=False) for _ in nearest]]

    def taken() -> list:
        return shown(explored.known.images[random.randrange(len(explored.known.images))])

    file.upload(dropped, file, outputs, **_DIRECT)
    take.click(taken, None, outputs, **_DIRECT)
    page.load(functools.partial(shown, explored.known.images[0]), None, outputs, **_DIRECT)


def _words(scored: Scored, explored: Images) -> str:
    """Says the figures of a picture."""
    lines = [
        f"**{scored.bits:.3f} bits/dim**, more than {scored.share:.0%} of {explored.known.source}",
        f"reconstruction: largest error {scored.error:.1e}",
    ]
    if scored.classes is not None:
        best = np.argsort(-scored.classes)[:3]
        lines.append("class " + ", ".join(f"{y} ({scored.classes[y]:.0%})" for y in best))
    return "\n\n".join(lines)


def of_vectors(steps: Callable[[int | None], list[Step]], labels: list, name: str) -> "gr.Blocks":
    """Lays out the page of a model of two dimensions.

    Args:
        steps: gives the steps of the flow of a class, or None.
        labels: the classes, and None where the model has p(x).
        name: the model's, for the title.
    """
    gr = gradio()
    known = {ANY if label is None else str(label): label for label in labels}

    @functools.cache
    def frames(label: str) -> list[tuple[str, np.ndarray]]:
        return [(step.name, figures.layer(step)) for step in steps(known[label])]

    first = next(iter(known))
    last = len(frames(first)) - 1
    with gr.Blocks(analytics_enabled=False, title=f"tfnvp explore {name}") as page:
        gr.Markdown(
            f"# {name}\n\nThe density (blue), the grid of latents (grey) and data (orange), from "
            "latents on the left of the slider to data on its right, layer by layer."
        )
        layer = gr.Slider(0, last, last, step=1, label="layers", elem_id="layer")
        label = gr.Dropdown(
            list(known), value=first, label="class", visible=len(known) > 1, elem_id="class"
        )
        words = gr.Markdown(elem_id="words")
        picture = gr.Image(
            show_label=False, elem_id="density", height=680, **_PICTURE | {"elem_classes": []}
        )

        def shown(layer: int, label: str) -> tuple[str, np.ndarray]:
            step, image = frames(label)[layer]
            return f"After {layer} of {last} layers: **{step}**", image

        for control in (layer, label):
            control.input(
                shown, [layer, label], [words, picture], trigger_mode="always_last", **_DIRECT
            )
        page.load(shown, [layer, label], [words, picture], **_DIRECT)
    return page
