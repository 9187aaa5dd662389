"""Images and figures for people to look at."""

import math
import os
import tempfile
from pathlib import Path

import numpy as np


def image_grid(images, columns=None, least_size=32):
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
        >>> image_grid(np.zeros((4, 32, 32, 3))).shape
        (67, 67, 3)
    """
    images = np.asarray(images, "float32")
    if images.ndim != 4 or not len(images) or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"images must have the shape [N, H, W, 1 or 3] with N > 0, got {images.shape}"
        )
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    zoom = max(1, math.ceil(least_size / min(images.shape[1:3])))
    pixels = np.floor(np.clip(images, 0, 1) * 255 + 0.5).astype("uint8")
    pixels = pixels.repeat(zoom, axis=1).repeat(zoom, axis=2)
    height, width = pixels.shape[1:3]
    grid = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), 128, "uint8")
    for i, image in enumerate(pixels):
        top, left = (i // columns) * (height + 1) + 1, (i % columns) * (width + 1) + 1
        grid[top : top + height, left : left + width] = image
    return grid


def save_png(image, path):
    """Writes an image, whole or not at all.

    Args:
        image: uint8 array [H, W, 3].
        path: of the PNG file; its directory must exist.
    """
    from PIL import Image

    path = Path(path)
    handle, written = tempfile.mkstemp(suffix=".png", dir=path.parent)
    os.close(handle)
    try:
        Image.fromarray(image).save(written)
        os.chmod(written, 0o644)
        os.replace(written, path)
    except BaseException:
        os.unlink(written)
        raise


def training_curves(history, axes=None):
    """Draws bits/dim of training and validation over the epochs.

    Args:
        history: a dictionary with lists under "bits_per_dim" and "val_bits_per_dim", such as the
            `history` of what `fit` returns.
        axes: matplotlib's, to draw into; None for a new figure.

    Returns:
        The matplotlib figure.

    Example:
        >>> curves = {"bits_per_dim": [5.0, 4.2, 4.0], "val_bits_per_dim": [4.6, 4.1, 4.0]}
        >>> training_curves(curves).axes[0].get_xlabel()
        'epoch'
    """
    axes = axes or _new_axes()
    for name, label in (("bits_per_dim", "training"), ("val_bits_per_dim", "validation")):
        epochs = range(1, len(history[name]) + 1)
        axes.plot(epochs, [float(value) for value in history[name]], label=label)
    axes.set(xlabel="epoch", ylabel="bits/dim")
    axes.legend()
    return axes.figure


def bits_histogram(bits, axes=None):
    """Draws the histograms of bits/dim of several sets of images, in common bins.

    Args:
        bits: a dictionary from a label to bits/dim [N], for example of training and test images.
        axes: matplotlib's, to draw into; None for a new figure.

    Returns:
        The matplotlib figure; each label has the mean beside it.

    Example:
        >>> figure = bits_histogram({"train": [1.9, 2.0, 2.1], "test": [2.0, 2.3]})
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['train: 2.00', 'test: 2.15']
    """
    axes = axes or _new_axes()
    bins = np.histogram_bin_edges(np.concatenate([np.ravel(x) for x in bits.values()]), 30)
    for label, values in bits.items():
        label = f"{label}: {np.mean(values):.2f}"
        axes.hist(
            np.ravel(values), bins, density=True, histtype="stepfilled", alpha=0.5, label=label
        )
    axes.set(xlabel="bits/dim", ylabel="density")
    axes.legend()
    return axes.figure


def latent_scales(scales, axes=None):
    """Draws the histogram of each scale's latents beside the standard normal density.

    Args:
        scales: a list of arrays, as `ImageRealNVP.latents_by_scale` gives it.
        axes: matplotlib's, to draw into; None for a new figure.

    Returns:
        The matplotlib figure.

    Example:
        >>> import numpy as np
        >>> z = np.random.default_rng(0).normal(size=(2, 1000))
        >>> len(latent_scales([z[0], z[1]]).axes[0].get_legend().get_texts())
        3
    """
    axes = axes or _new_axes()
    grid = np.linspace(-5, 5, 201)
    for i, z in enumerate(scales):
        z = np.ravel(z)
        label = f"scale {i + 1}: mean {z.mean():.2f}, deviation {z.std():.2f}"
        axes.hist(z, np.linspace(-5, 5, 61), density=True, histtype="step", label=label)
    axes.plot(grid, np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi), "k--", label="standard normal")
    axes.set(xlabel="latent", ylabel="density")
    axes.legend()
    return axes.figure


def labelled_images(images, labels, columns=None, axes=None):
    """Draws images in a grid, each under a label.

    Args:
        images: [N, H, W, 1 or 3], float in [0, 1].
        labels: N strings.
        columns: images a row; None makes the grid square.
        axes: matplotlib's, to draw into; None for a new figure.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: if there are not as many labels as images.

    Example:
        >>> import numpy as np
        >>> figure = labelled_images(np.zeros((2, 8, 8, 1)), ["one", "two"])
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['one', 'two']
    """
    images = np.clip(np.asarray(images, "float32"), 0, 1)
    if len(labels) != len(images):
        raise ValueError(
            f"labels must be {len(images)}, one for each image, got {len(labels)} labels"
        )
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    axes = axes or _new_axes((1.1 * columns + 0.2, 1.35 * rows + 0.2))
    tall = 1.25 * images.shape[1] / images.shape[2]
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        left, top = i % columns, i // columns * tall
        # A row starts with the label's fifth.
        extent = (left + 0.03, left + 0.97, top + tall, top + 0.2 * tall)
        axes.imshow(image.repeat(3 // image.shape[-1], -1), extent=extent, interpolation="nearest")
        axes.text(left + 0.5, top + 0.18 * tall, label, ha="center", va="bottom", fontsize=8)
    axes.set(xlim=(0, columns), ylim=(rows * tall, 0), aspect="equal")
    axes.axis("off")
    return axes.figure


def density_2d(model, data, samples=300, seed=0, axes=None):
    """Draws the paper's figure of a two-dimensional density, in data space and in latent space.

    Left is x: the density as a heat map, data, samples, and the lines of a grid of latents mapped
    through the flow. Right is z: the data's latents, draws of the prior, and the same grid, where
    it is straight. Source: Real NVP (arXiv 1605.08803), figure 1.

    Args:
        model: a model of vectors [2], such as `VectorRealNVP`.
        data: [N, 2].
        samples: how many to draw, of data and of the model.
        seed: of the samples.
        axes: a pair of matplotlib's, to draw into; None for a new figure.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: if the data is not [N, 2].

    Example:
        >>> import sklearn.datasets, tfnvp
        >>> x = sklearn.datasets.make_moons(200, noise=0.05, random_state=0)[0]
        >>> [panel.get_title() for panel in density_2d(tfnvp.VectorRealNVP(2), x).axes]
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
    dots = {"s": 3, "linewidths": 0}
    x_axes.scatter(*data.T, color="black", label="data", zorder=3, **dots)
    x_axes.scatter(*drawn.T, color="tab:orange", label="samples", zorder=3, **dots)
    z_axes.scatter(*np.asarray(model.encode(data)).T, color="black", label="data", zorder=3, **dots)
    z_axes.scatter(
        *np.asarray(model.encode(drawn)).T, color="tab:orange", label="prior", zorder=3, **dots
    )
    x_axes.set(title="data space", xlabel="x1", ylabel="x2", aspect="equal")
    x_axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    z_axes.set(title="latent space", xlabel="z1", ylabel="z2", aspect="equal")
    z_axes.set(xlim=(-4, 4), ylim=(-4, 4))
    for panel in (x_axes, z_axes):
        panel.legend(loc="upper right", markerscale=3)
    return x_axes.figure


def pixels(figure):
    """A matplotlib figure as an image, uint8 [H, W, 3].

    Example:
        >>> curves = {"bits_per_dim": [5.0, 4.2], "val_bits_per_dim": [4.6, 4.1]}
        >>> pixels(training_curves(curves)).shape
        (440, 660, 3)
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _new_axes(size=(6, 4), panels=1):
    from matplotlib.figure import Figure

    return Figure(figsize=size, dpi=110, layout="constrained").subplots(1, panels)


def save_gif(frames, path, seconds=0.5):
    """Writes an animation without end of PNG files; the last is shown four times as long.

    Args:
        frames: paths of PNG files of one size, in order.
        path: of the GIF file.
        seconds: that each frame is shown.
    """
    from PIL import Image

    images = [Image.open(frame).convert("RGB") for frame in frames]
    durations = [1000 * seconds] * (len(images) - 1) + [4000 * seconds]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0)
