"""Images and figures for people to look at.

The functions that draw give a matplotlib figure. They take matplotlib axes to draw into, and make a
new figure where `axes` is None.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from tfnvp import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tfnvp.models import VectorRealNVP
    from tfnvp.serving import SavedModel


def image_grid(images: ArrayLike, columns: int | None = None, least_size: int = 32) -> np.ndarray:
    """Tiles images into one, row by row.

    Args:
        images: [N, H, W, C] with C 1 or 3, float in [0, 1].
        columns: images a row; None makes the grid square.
        least_size: pixels that an image has at least in the grid; smaller ones are magnified by a
            whole number.

    Returns:
        uint8 array [rows * height, columns * width, 3], one pixel of grey between images.

    Raises:
        ValueError: for no images, or another number of channels.

    Example:
        >>> import numpy as np
        >>> tfnvp.plotting.image_grid(np.zeros((4, 32, 32, 3))).shape
        (67, 67, 3)
    """
    images = np.asarray(images, "float32")
    if images.ndim != 4 or not len(images) or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"images must have the shape [N, H, W, 1 or 3] with N > 0, got {images.shape}"
        )
    rows, columns = _layout(len(images), columns)
    zoom = max(1, math.ceil(least_size / min(images.shape[1:3])))
    pixels = np.floor(np.clip(images, 0, 1) * 255 + 0.5).astype("uint8")
    pixels = pixels.repeat(zoom, axis=1).repeat(zoom, axis=2)
    height, width = pixels.shape[1:3]
    grid = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), 128, "uint8")
    for i, image in enumerate(pixels):
        top, left = (i // columns) * (height + 1) + 1, (i % columns) * (width + 1) + 1
        grid[top : top + height, left : left + width] = image
    return grid


def save_png(image: np.ndarray, path: str | os.PathLike) -> None:
    """Writes an image, uint8 [H, W, 3], as a PNG file, whole or not at all."""
    from PIL import Image

    with atomic_file.writing(path) as written:
        Image.fromarray(image).save(written, format="png")


def training_curves(history: Mapping[str, Sequence[float]], axes: "Axes | None" = None) -> "Figure":
    """Draws bits/dim of training and validation over the epochs.

    Args:
        history: a dictionary with lists under "bits_per_dim" and "val_bits_per_dim", such as the
            `history` of what `fit` returns.

    Example:
        >>> curves = {"bits_per_dim": [5.0, 4.2, 4.0], "val_bits_per_dim": [4.6, 4.1, 4.0]}
        >>> tfnvp.plotting.training_curves(curves).axes[0].get_xlabel()
        'epoch'
    """
    axes = axes or _new_axes()
    for name, label in (("bits_per_dim", "training"), ("val_bits_per_dim", "validation")):
        epochs = range(1, len(history[name]) + 1)
        axes.plot(epochs, [float(value) for value in history[name]], label=label)
    return _finished(axes, "epoch", "bits/dim")


def bits_histogram(bits: Mapping[str, ArrayLike], axes: "Axes | None" = None) -> "Figure":
    """Draws the histograms of bits/dim of several sets of images, in common bins.

    Args:
        bits: a dictionary from a label, which gets the mean beside it, to bits/dim [N].

    Example:
        >>> bits = {"train": [1.9, 2.0, 2.1], "test": [2.0, 2.3]}
        >>> figure = tfnvp.plotting.bits_histogram(bits)
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['train: 2.00', 'test: 2.15']
    """
    axes = axes or _new_axes()
    bins = np.histogram_bin_edges(np.concatenate([np.ravel(x) for x in bits.values()]), 30)
    style = {"density": True, "histtype": "stepfilled", "alpha": 0.5}
    for label, values in bits.items():
        axes.hist(np.ravel(values), bins, label=f"{label}: {np.mean(values):.2f}", **style)
    return _finished(axes, "bits/dim", "density")


def latent_scales(scales: Sequence[ArrayLike], axes: "Axes | None" = None) -> "Figure":
    """Draws the histogram of each scale's latents beside the standard normal density.

    Args:
        scales: a list of arrays, as `ImageRealNVP.latents_by_scale` gives it.

    Example:
        >>> import numpy as np
        >>> z = np.random.default_rng(0).normal(size=(2, 1000))
        >>> figure = tfnvp.plotting.latent_scales([z[0], z[1]])
        >>> len(figure.axes[0].get_legend().get_texts())
        3
    """
    axes = axes or _new_axes()
    grid = np.linspace(-5, 5, 201)
    for i, z in enumerate(scales):
        z = np.ravel(z)
        label = f"scale {i + 1}: mean {z.mean():.2f}, deviation {z.std():.2f}"
        axes.hist(z, np.linspace(-5, 5, 61), density=True, histtype="step", label=label)
    axes.plot(grid, np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi), "k--", label="standard normal")
    return _finished(axes, "latent", "density")


def labelled_images(
    images: ArrayLike, labels: Sequence[str], columns: int | None = None, axes: "Axes | None" = None
) -> "Figure":
    """Draws images in a grid, each under a label.

    Args:
        images: [N, H, W, 1 or 3], float in [0, 1].
        labels: N strings.
        columns: images a row; None makes the grid square.

    Raises:
        ValueError: if there are not as many labels as images.

    Example:
        >>> import numpy as np
        >>> figure = tfnvp.plotting.labelled_images(np.zeros((2, 8, 8, 1)), ["one", "two"])
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['one', 'two']
    """
    images = np.clip(np.asarray(images, "float32"), 0, 1)
    if len(labels) != len(images):
        wanted = f"{len(images)}, one for each image"
        raise ValueError(f"labels must be {wanted}, got {len(labels)} labels")
    rows, columns = _layout(len(images), columns)
    tall = 1.25 * images.shape[1] / images.shape[2]
    wide = max(1, 1.25 / tall)
    axes = axes or _new_axes((1.1 * wide * columns + 0.2, 1.08 * wide * tall * rows + 0.2))
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        left, top = i % columns, i // columns * tall
        # The label takes the upper fifth of its row.
        extent = (left + 0.03, left + 0.97, top + tall, top + 0.2 * tall)
        axes.imshow(image.repeat(3 // image.shape[-1], -1), extent=extent, interpolation="nearest")
        text = axes.text(left + 0.5, top + 0.18 * tall, label, ha="center", va="bottom", fontsize=8)
        text.set_parse_math(False)  # A label may be the name of a file, with a $ in it.
    axes.set(xlim=(0, columns), ylim=(rows * tall, 0), aspect="equal")
    axes.axis("off")
    return axes.figure


def beside_maps(
    images: ArrayLike,
    maps: ArrayLike,
    labels: Sequence[str],
    columns: int | None = None,
    axes: "Axes | None" = None,
) -> "Figure":
    """Draws pictures, each beside the map of where it is unlikely, under a label.

    All maps are on one scale: black where the log-density is what standard normal latents have in
    the mean, or more, and the brighter the less it is, up to six standard deviations less.

    Args:
        images: [N, H, W, 1 or 3], float in [0, 1].
        maps: [N, H, W], nats, of `tfnvp.anomaly.latent_map`.
        labels: N strings.
        columns: pictures a row; None makes the grid square.

    Raises:
        ValueError: if there are not as many labels as images.

    Example:
        >>> import numpy as np
        >>> maps = np.full([2, 8, 8], -1.4)
        >>> figure = tfnvp.plotting.beside_maps(np.zeros([2, 8, 8, 1]), maps, ["one", "two"])
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['one', 'two']
    """
    import matplotlib

    images = np.asarray(images, "float32")
    channels = images.shape[-1]
    mean = -channels / 2 * (math.log(2 * math.pi) + 1)
    unlikely = np.clip((mean - np.asarray(maps)) / (6 * math.sqrt(channels / 2)), 0, 1)
    drawn = matplotlib.colormaps["inferno"](unlikely)[..., :3]
    gap = np.ones_like(drawn[:, :, : math.ceil(drawn.shape[2] / 16)])
    pairs = np.concatenate([images.repeat(3 // channels, -1), gap, drawn], axis=2)
    return labelled_images(pairs, labels, columns, axes)


def density_2d(
    model: "VectorRealNVP | SavedModel",
    data: ArrayLike,
    samples: int = 300,
    seed: int = 0,
    axes: "Sequence[Axes] | None" = None,
) -> "Figure":
    """Draws the paper's figure of a two-dimensional density, in data space and in latent space.

    Left is x: the density as a heat map, data, samples, and the lines of a grid of latents mapped
    through the flow. Right is z: the data's latents, draws of the prior, and the same grid, where
    it is straight. Source: Real NVP (arXiv 1605.08803), figure 1.

    Args:
        model: a model of vectors [2], such as `VectorRealNVP`.
        data: [N, 2].
        samples: how many to draw, of data and of the model.
        axes: a pair of matplotlib axes, or None.

    Raises:
        ValueError: if the data is not [N, 2].

    Example:
        >>> import sklearn.datasets
        >>> x = sklearn.datasets.make_moons(200, noise=0.05, random_state=0)[0]
        >>> figure = tfnvp.plotting.density_2d(tfnvp.VectorRealNVP(2), x)
        >>> [panel.get_title() for panel in figure.axes]
        ['data space', 'latent space']
    """
    data = np.asarray(data, "float32")
    if data.ndim != 2 or data.shape[1] != 2:
        raise ValueError(f"data must have the shape [N, 2], got {data.shape}")
    x_axes, z_axes = axes if axes is not None else _new_axes((12, 5), panels=2)
    data = data[:samples]
    drawn = np.asarray(model.sample(samples, seed=seed))
    margin = 0.15 * np.ptp(data, axis=0)
    low, high = data.min(0) - margin, data.max(0) + margin
    x, y = (np.linspace(a, b, 200) for a, b in zip(low, high, strict=True))
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype("float32")
    density = np.exp(np.asarray(model.log_prob(points))).reshape(200, 200)
    x_axes.pcolormesh(x, y, density, cmap="Blues", shading="nearest", rasterized=True)
    ticks, fine = np.linspace(-2, 2, 9), np.linspace(-2, 2, 400)
    lines = [np.stack([np.full_like(fine, tick), fine], axis=-1) for tick in ticks]
    lines += [line[:, ::-1] for line in lines]
    mapped = np.asarray(model.decode(np.concatenate(lines).astype("float32")))
    for line, curve in zip(lines, np.split(mapped, len(lines)), strict=True):
        x_axes.plot(*curve.T, color="grey", linewidth=0.5)
        z_axes.plot(*line.T, color="grey", linewidth=0.5)
    dots = {"s": 3, "linewidths": 0, "zorder": 3}
    for points, color, of_x, of_z in (
        (data, "black", "data", "data"),
        (drawn, "tab:orange", "samples", "prior"),
    ):
        x_axes.scatter(*points.T, color=color, label=of_x, **dots)
        z_axes.scatter(*np.asarray(model.encode(points)).T, color=color, label=of_z, **dots)
    x_axes.set(title="data space", xlabel="x1", ylabel="x2", aspect="equal")
    x_axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    z_axes.set(title="latent space", xlabel="z1", ylabel="z2", aspect="equal")
    z_axes.set(xlim=(-4, 4), ylim=(-4, 4))
    for panel in (x_axes, z_axes):
        panel.legend(loc="upper right", markerscale=3)
    return x_axes.figure


def explanation(
    contributions: ArrayLike, names: Sequence[str] | None = None, axes: "Axes | None" = None
) -> "Figure":
    """Draws what makes a row unusual, the 20 most unusual columns, the most unusual on top.

    Args:
        contributions: [D], nats: a row of `tfnvp.sklearn.FlowDensity.explain`.
        names: of the columns; None numbers them.
        axes: what to draw on; None makes a figure.

    Example:
        >>> figure = tfnvp.plotting.explanation([0.1, 7.5], names=["age", "height"])
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['age', 'height']
    """
    contributions = np.asarray(contributions, "float64")
    names = [f"column {i}" for i in range(len(contributions))] if names is None else names
    if contributions.ndim != 1 or len(names) != len(contributions):
        raise ValueError(
            f"contributions must be [D], with as many names, got shape {contributions.shape} and "
            f"{len(names)} names"
        )
    order = np.argsort(contributions)[-20:]
    axes = axes or _new_axes((5, 1 + 0.25 * len(order)))
    axes.barh([names[i] for i in order], contributions[order])
    axes.set_xlabel("rise of log p with a usual value, nats")
    return axes.figure


def pixels(figure: "Figure") -> np.ndarray:
    """Renders a matplotlib figure as an image, uint8 [H, W, 3].

    Example:
        >>> figure = tfnvp.plotting.bits_histogram({"test": [1.9, 2.0, 2.3]})
        >>> tfnvp.plotting.pixels(figure).shape
        (440, 660, 3)
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _new_axes(size: tuple[float, float] = (6, 4), panels: int = 1) -> "Axes | np.ndarray":
    from matplotlib.figure import Figure

    return Figure(figsize=size, dpi=110, layout="constrained").subplots(1, panels)


def _finished(axes: "Axes", xlabel: str, ylabel: str) -> "Figure":
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.legend()
    return axes.figure


def _layout(count: int, columns: int | None) -> tuple[int, int]:
    """The rows and columns of a grid."""
    columns = columns or math.ceil(math.sqrt(count))
    return math.ceil(count / columns), columns


def save_gif(
    frames: Iterable[str | os.PathLike], path: str | os.PathLike, seconds: float = 0.5
) -> None:
    """Joins PNG files of one size into an endless GIF, whole or not at all.

    Each frame is shown for `seconds`, and the last 4 times as long.
    """
    from PIL import Image

    images = [Image.open(frame).convert("RGB") for frame in frames]
    durations = [1000 * seconds] * (len(images) - 1) + [4000 * seconds]
    options = {"save_all": True, "append_images": images[1:], "duration": durations, "loop": 0}
    with atomic_file.writing(path) as written:
        images[0].save(written, format="gif", **options)
