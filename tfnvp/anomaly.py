"""How unusual pictures are: scores that raw likelihood is not, p-values of them, and maps.

docs/anomalies.md tells which score to use when, and where likelihood fails.
"""

import io
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from tfnvp.bijectors import inverse_and_log_det
from tfnvp.checks import plain_errors
from tfnvp.models import ImageRealNVP
from tfnvp.types import TensorLike

#: The scores of a `Detector`, each the larger, the more unusual a picture is.
SCORES = ("bits_per_dim", "typicality", "bits_over_png", "score_norm", "joint")

# Gradients of so many images at a time take the memory of a training step at most.
_ROWS = 50


class Detector:
    """Scores pictures by how unusual they are, beside pictures held out from a model's training.

    The scores are, the larger the more unusual,

    - `bits_per_dim`: -log2 p(x) / D + log2(levels). It is low, too, for pictures that are simpler
      than those of the training.
    - `typicality`: |bits/dim - their mean over the held-out images|, two-sided. Source: Nalisnick
      et al. (arXiv 1906.02994), for single images.
    - `bits_over_png`: bits/dim less those of the picture's PNG file, a code that knows nothing of
      the training. Source: "input complexity", Serra et al. (arXiv 1909.11480).
    - `score_norm`: the Euclidean norm of the gradient of log p(x) by the intensities x in [0, 1],
      nats. Source: "approximate mass", Grathwohl et al. (arXiv 1912.03263).
    - `joint`: the squared Mahalanobis distance of three figures from those of the held-out images:
      bits/dim, the log of `score_norm`, and the log of the latents' distance from the base
      distribution's mean. It sees where a figure is too low, or does not go with the others.
      Source: after "density of states estimation", Morningstar et al. (arXiv 2006.09273).

    All are of the weights at the time: make another detector once the model is trained further.
    Images are scored in batches, so that their number takes no memory but their own.

    Args:
        model: an `ImageRealNVP`.
        held_out: images of the training's kind that it has not seen, such as its validation images:
            uint8 [N, H, W, C] in 0..levels-1, ten or more. The more, the smaller p-values can get.
        labels: of a conditional model, one for each of them or one for all; None for p(x).

    Raises:
        ValueError: if the model is none of images, the images are not as described, or labels are
            as `ImageRealNVP.log_prob` refuses them.

    Example:
        >>> import numpy as np
        >>> model = tfnvp.ImageRealNVP((8, 8, 1), 1, filters=2, residual_blocks=1, levels=17)
        >>> held_out = np.concatenate(list(tfnvp.data.load("digits", "validation", 100)))
        >>> detector = tfnvp.anomaly.Detector(model, held_out)
        >>> white = np.full([1, 8, 8, 1], 16, "uint8")
        >>> sorted(detector.p_values(white))
        ['bits_over_png', 'bits_per_dim', 'joint', 'score_norm', 'typicality']
    """

    def __init__(
        self, model: ImageRealNVP, held_out: ArrayLike, labels: TensorLike | None = None
    ) -> None:
        if not isinstance(model, ImageRealNVP):
            raise ValueError(f"model must be an ImageRealNVP, got a {type(model).__name__}")
        held_out = _checked(held_out, "held_out")
        if (count := len(held_out)) < 10:
            raise ValueError(f"held_out must be ten images or more, got {count}")
        self.model = model
        self._labelled = labels is not None
        specs = [tf.TensorSpec([None, *model.image_shape], tf.uint8)]
        specs += [model.condition.label_spec(None)] * self._labelled
        self._density = tf.function(self._of_batch, input_signature=specs, autograph=False)
        figures = self._figures(held_out, labels)
        if not np.all(np.isfinite(figures)):
            wrong = np.flatnonzero(~np.isfinite(figures).all(axis=1))[0]
            raise ValueError(f"held_out must have finite densities, and image {wrong} has none")
        self._mean = figures.mean(axis=0)
        # A figure that does not vary, or varies with another, adds nothing to the distance.
        self._precision = np.linalg.pinv(np.cov(figures, rowvar=False), hermitian=True)
        scores = self._scores(held_out, figures)
        # Another picture is compared with all held-out ones, and each of these with the others: to
        # their mean it has farther than to that of all, and their spread is without its own.
        scores["typicality"] *= count / (count - 1)
        share = scores["joint"] / (count - 1)
        apart = (count / (count - 1)) ** 2 * (count - 2) * share
        scores["joint"] = apart / (1 - count / (count - 1) * share)
        self._held_out = {name: np.sort(values) for name, values in scores.items()}

    def scores(self, images: ArrayLike, labels: TensorLike | None = None) -> dict[str, np.ndarray]:
        """Scores images.

        Args:
            images: uint8 [N, H, W, C], in 0..levels-1.
            labels: one for each image or one for all; where the held-out images had some.

        Returns:
            A dictionary from the name of each score to float64 [N].

        Raises:
            ValueError: as the constructor, and for labels where the held-out images had none, or
                the other way round.
        """
        images = _checked(images, "images")
        if (labels is not None) != self._labelled:
            had = "" if self._labelled else "no "
            raise ValueError(f"labels must be as those of held_out, which had {had}labels")
        return self._scores(images, self._figures(images, labels))

    def _scores(self, images: np.ndarray, figures: np.ndarray) -> dict[str, np.ndarray]:
        """Computes the scores of images with their figures."""
        bits, offsets = figures[:, 0], figures - self._mean
        with np.errstate(invalid="ignore"):
            joint = np.sum(offsets @ self._precision * offsets, axis=1)
        scores = {
            "bits_per_dim": bits,
            "typicality": np.abs(offsets[:, 0]),
            "bits_over_png": bits - png_bits_per_dim(images),
            "score_norm": np.exp(figures[:, 1]),
            "joint": joint,
        }
        # A density that overflowed is of a picture beyond all others.
        return {name: np.where(np.isnan(x), np.inf, x) for name, x in scores.items()}

    def _figures(self, images: np.ndarray, labels: TensorLike | None) -> np.ndarray:
        """Computes [N, 3]: bits/dim, the log of the score's norm, that of the latents' distance."""
        found = []
        for batch in _batches(self.model, images, labels):
            with plain_errors():
                log_prob, norm, distance = map(np.float64, self._density(*batch))
            bits = self.model.bits(log_prob)
            found.append(np.stack([bits, np.log(norm), np.log(distance)], axis=1))
        return np.concatenate(found)

    def _of_batch(
        self, images: tf.Tensor, labels: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Computes log p, the norm of its gradient, and the latents' distance from their mean."""
        x = self.model.continuous(images)
        flow = self.model.distribution_for(labels=labels)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            z, log_det = inverse_and_log_det(flow.bijector, x)
            log_prob = flow.distribution.log_prob(z) + log_det
        gradient = tape.gradient(log_prob, x)
        norm, distance = (
            tf.sqrt(tf.reduce_sum(tf.square(value), axis=[1, 2, 3]))
            for value in (gradient, z - flow.distribution.mean())
        )
        return log_prob, norm, distance

    def p_values(
        self, images: ArrayLike, labels: TensorLike | None = None
    ) -> dict[str, np.ndarray]:
        """Computes for each score the share of pictures that are as unusual, see `calibrated`.

        Args:
            images: as in `scores`, and so are labels.

        Returns:
            A dictionary from the name of each score to float64 [N], above 0 and up to 1.
        """
        return self.calibrated(self.scores(images, labels))

    def calibrated(self, scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Makes p-values of `scores`.

        With n images held out, of which k score as high or higher, it is (1 + k) / (1 + n). If a
        picture is one more of the held-out images' kind, its p-value by one score falls below any a
        with a probability of at most a; the least of several does so more often.
        """
        p_values = {}
        for name, values in scores.items():
            known = self._held_out[name]
            lower = np.searchsorted(known, values, side="left")
            p_values[name] = (1 + len(known) - lower) / (1 + len(known))
        return p_values


def latent_map(
    model: ImageRealNVP, images: TensorLike, labels: TensorLike | None = None
) -> np.ndarray:
    """Shows where pictures are unlikely: the log-density of their latents, position by position.

    Latents have the image's shape, and a latent stands at the pixel that it was made of last; what
    it depends on lies around that. The map is the sum over channels of the standard normal's
    log-density about the base distribution's mean. It leaves out the log-determinant of the flow,
    which has no place in the picture: log p is the sum of a map and of that, so a picture may be
    unlikely though no position of its map is. Where all is usual, a position has about
    -1.42 C nats, C channels, give or take 0.71 sqrt(C).

    Args:
        model: an `ImageRealNVP`.
        images: [B, H, W, C], uint8 in 0..levels-1 or float, as `model.encode` takes them.
        labels: as in `model.encode`.

    Returns:
        float32 [B, H, W], nats.

    Raises:
        ValueError: for images or labels that `model.encode` refuses, or no images.

    Example:
        >>> model = tfnvp.ImageRealNVP((8, 8, 1), 1, filters=2, residual_blocks=1, levels=17)
        >>> images = next(iter(tfnvp.data.load("digits", "test", 4)))
        >>> tfnvp.anomaly.latent_map(model, images).shape
        (4, 8, 8)
    """
    maps = []
    for rows, *labels_of_rows in _batches(model, images, labels):
        y = labels_of_rows[0] if labels_of_rows else None
        z = np.asarray(model.encode(rows, y) - model.distribution_for(labels=y).distribution.mean())
        maps.append(-0.5 * np.sum(z**2 + np.log(2 * np.pi, dtype=z.dtype), axis=-1))
    return np.concatenate(maps).astype("float32")


def png_bits_per_dim(images: ArrayLike) -> np.ndarray:
    """Measures how long the PNG file of each image is: its bits for each value of a pixel.

    Pillow writes it, as small as it can, of 8 bits: grey of one channel, RGB of three, and of
    another number of channels grey with one channel below the other. Every file has 57 bytes that
    are not of its pixels, which is much of a small image, but the same for all.

    Args:
        images: uint8 [N, H, W, C].

    Returns:
        float64 [N].

    Example:
        >>> import numpy as np
        >>> tfnvp.anomaly.png_bits_per_dim(np.zeros([1, 32, 32, 3], "uint8")).round(2)
        array([0.21])
    """
    from PIL import Image

    sizes = []
    for image in _checked(images, "images"):
        height, width, channels = image.shape
        if channels != 3:
            image = np.moveaxis(image, -1, 0).reshape(channels * height, width)
        file = io.BytesIO()
        Image.fromarray(image).save(file, "png", optimize=True)
        sizes.append(8 * file.tell() / (height * width * channels))
    return np.array(sizes)


def _checked(images: ArrayLike, name: str) -> np.ndarray:
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise ValueError(
            f"{name} must be uint8 images [N, H, W, C] with N > 0, got {images.dtype} "
            f"{list(images.shape)}"
        )
    return images


def _batches(
    model: ImageRealNVP, images: TensorLike, labels: TensorLike | None
) -> Iterator[tuple[tf.Tensor, ...]]:
    """Cuts images into batches of a few rows, each with its labels, if there are any."""
    images = model.check_data(images)
    if not len(images):
        raise ValueError("images must be one or more, got none")
    labels = model.condition.labels_of_rows(labels, len(images))
    for i in range(0, len(images), _ROWS):
        rows = slice(i, i + _ROWS)
        yield (images[rows],) if labels is None else (images[rows], labels[rows])
