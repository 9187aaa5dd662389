"""Watching a flow train: pictures of the same latents, epoch by epoch."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfnvp import latent, plotting
from tfnvp.models import ImageRealNVP, VectorRealNVP
from tfnvp.models.fresh_moments import FreshMoments
from tfnvp.models.moments_drift import WarnOfDrift
from tfnvp.types import TensorLike

__all__ = [
    "FreshMoments",
    "WarnOfDrift",
    "Watch",
    "bits_per_dim",
    "density",
    "interpolation",
    "samples",
]

Picture = Callable[[keras.Model], np.ndarray]


class Watch(keras.callbacks.Callback):
    """Draws pictures of the model as it trains: PNG files, TensorBoard, and in the end a GIF.

    A picture's latents are fixed, so that one sees the same z become an image over the epochs. The
    files are `directory/NAME/epoch_0001.png` and so on, and `directory/NAME.gif` of all of them,
    those of an earlier part of the same training included.

    Args:
        pictures: a dictionary from a name to a function of the model that gives an image, uint8
            [H, W, 3], of the same size each time: `samples`, `interpolation`, `bits_per_dim` and
            `density` of this module make such functions.
        directory: where the files go; it is made if it is not there.
        log_dir: where TensorBoard's events go; None for none.
        every: epochs from one drawing to the next.

    Example:
        >>> import pathlib, tempfile, sklearn.datasets
        >>> x = sklearn.datasets.make_moons(256, noise=0.05, random_state=0)[0]
        >>> model = tfnvp.VectorRealNVP(2, num_couplings=2)
        >>> model.compile(optimizer="adam")
        >>> directory = tempfile.mkdtemp()
        >>> watch = tfnvp.callbacks.Watch({"density": tfnvp.callbacks.density(x)}, directory)
        >>> history = model.fit(x, verbose=0, callbacks=[watch])
        >>> sorted(path.name for path in pathlib.Path(directory).rglob("*.*"))
        ['density.gif', 'epoch_0001.png']
    """

    def __init__(
        self,
        pictures: Mapping[str, Picture],
        directory: str | os.PathLike,
        log_dir: str | os.PathLike | None = None,
        every: int = 1,
    ) -> None:
        super().__init__()
        self.pictures, self.directory = pictures, Path(directory)
        self.log_dir, self.every = log_dir, every

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Draws the pictures."""
        if (epoch + 1) % self.every:
            return
        for name, draw in self.pictures.items():
            picture = draw(self.model)
            (self.directory / name).mkdir(parents=True, exist_ok=True)
            plotting.save_png(picture, self.directory / name / f"epoch_{epoch + 1:04d}.png")
            if self.log_dir is not None:
                with tf.summary.create_file_writer(str(self.log_dir)).as_default():
                    tf.summary.image(name, picture[tf.newaxis], step=epoch + 1)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Joins the drawings of each picture into a GIF."""
        for name in self.pictures:
            if frames := sorted((self.directory / name).glob("epoch_*.png")):
                plotting.save_gif(frames, self.directory / f"{name}.gif")


def samples(count: int = 64, seed: int = 0) -> Picture:
    """A picture for `Watch`: a grid of samples, always of the same latents, of classes in turn."""

    def draw(model: ImageRealNVP) -> np.ndarray:
        labels = np.arange(count) % model.num_classes if model.num_classes else None
        return plotting.image_grid(model.sample(count, labels=labels, seed=seed))

    return draw


def interpolation(steps: int = 8, seed: int = 0) -> Picture:
    """A picture for `Watch`: the paper's manifold through four latents, always the same."""

    def draw(model: ImageRealNVP) -> np.ndarray:
        z = np.random.default_rng(seed).normal(size=(4, *model.image_shape)).astype("float32")
        grid = tf.reshape(latent.interpolate(*z, steps=steps), [-1, *model.image_shape])
        return plotting.image_grid(model.decode(grid), steps)

    return draw


def bits_per_dim(images: Mapping[str, TensorLike]) -> Picture:
    """A picture for `Watch`: histograms of the bits/dim of images [N, H, W, C], by their labels."""

    def draw(model: ImageRealNVP) -> np.ndarray:
        bits = {label: np.asarray(model.bits_per_dim(x)) for label, x in images.items()}
        return plotting.pixels(plotting.bits_histogram(bits))

    return draw


def density(data: TensorLike, count: int = 300, seed: int = 0) -> Picture:
    """A picture for `Watch`: `tfnvp.plotting.density_2d` of a model of vectors and data [N, 2]."""

    def draw(model: VectorRealNVP) -> np.ndarray:
        return plotting.pixels(plotting.density_2d(model, data, count, seed))

    return draw
