"""Images of a model, for the page: between four, at other sizes, scored beside known ones."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfnvp import data, latent
from tfnvp.models import ImageRealNVP
from tfnvp.seeds import stateless_seed

#: Heights and widths that the page offers, in those of the training.
SIZES = (1, 2)
#: How many of the nearest known images the page shows.
NEIGHBOURS = 6
#: How many samples stand in for known images, where there are none.
SAMPLES = 200
_ROWS = 50


@dataclasses.dataclass(frozen=True)
class Known:
    """Images that a new one is compared with.

    Args:
        images: uint8 [N, H, W, C], in 0..levels-1.
        source: says which they are, such as "1,000 training images of mnist".
    """

    images: np.ndarray
    source: str


@dataclasses.dataclass(frozen=True)
class Corners:
    """Four images, which stand for the four latents that a sphere goes through.

    Args:
        seed: by which they are drawn.
        known: whether they are known images, or samples of the model; of another size than that of
            the training there are samples alone.
        label: their class; None for p(x).
        size: one of `SIZES`.
    """

    seed: int = 0
    known: bool = True
    label: int | None = None
    size: int = 1


@dataclasses.dataclass(frozen=True)
class Scored:
    """The answer about a picture.

    Attributes:
        bits: its bits/dim.
        share: of the known images, those that have fewer.
        image: the picture in the model's shape and levels, float [H, W, C] in [0, 1].
        reconstruction: the same after `encode` and `decode`.
        error: the largest difference of the two.
        neighbours: the nearest known images, float [`NEIGHBOURS`, H, W, C], the nearest first.
        distances: how far they are, the root of the mean squared difference.
        classes: p(y | x) of each class; None without classes.
    """

    bits: float
    share: float
    image: np.ndarray
    reconstruction: np.ndarray
    error: float
    neighbours: np.ndarray
    distances: np.ndarray
    classes: np.ndarray | None


class Images:
    """A model of images, compiled for one image at a time at each of `SIZES`.

    Making it traces and runs all that the page asks for, so that no answer waits for that.

    Args:
        flow: the model, of p(x) or of p(x | y) with classes y.
        known: images to compare with; None takes samples of the model for them.

    Raises:
        ValueError: for a model whose labels are float vectors.
    """

    def __init__(self, flow: ImageRealNVP, known: Known | None = None) -> None:
        if flow.condition.context_size:
            raise ValueError(
                "explore is of models without labels or with classes, this one has float vectors "
                f"of {flow.condition.context_size} as labels"
            )
        self.flow = flow
        # A model that was never trained without labels has p(x) as the mean over its classes.
        self._of_classes = bool(flow.num_classes and not flow.condition.label_dropout)
        self.labels = ([] if self._of_classes else [None]) + list(range(flow.num_classes or 0))
        # These are asked for again and again, with the same arguments.
        self.corners = functools.lru_cache(maxsize=64)(self._corners)
        self.corner_images = functools.lru_cache(maxsize=64)(self._corner_images)
        self._mean = functools.cache(self._mean_of)
        self._decoder = functools.cache(self._traced)
        if known is None:
            labels = np.resize(self.labels, SAMPLES) if self._of_classes else None
            x = np.asarray(flow.sample(SAMPLES, labels, seed=0))
            images = np.minimum(x * flow.levels, flow.levels - 1).astype("uint8")
            known = Known(images, f"{SAMPLES} samples of the model itself")
        self.known = known
        self._middles = self._middle(known.images)
        self.bits = np.concatenate(
            [self._bits(known.images[i : i + _ROWS]) for i in range(0, len(known.images), _ROWS)]
        )
        for label in self.labels[:2]:
            for size in SIZES:
                corners = Corners(label=label, size=size)
                self.between(corners, 0.0, 0.0, kept=0)
                self.corner_images(corners)
        self.score(known.images[0])

    def shape(self, size: int) -> tuple[int, int, int]:
        """Gives the shape of an image of one of `SIZES`."""
        height, width, channels = self.flow.image_shape
        return size * height, size * width, channels

    def between(
        self,
        corners: Corners,
        down: float,
        right: float,
        temperature: float = 1.0,
        kept: int | None = None,
        draw: int = 0,
    ) -> np.ndarray:
        """Gives the image at two angles of the sphere through the latents of four.

        Args:
            corners: the four: the first at the angles (0, 0), the second at (0, pi/2), the third at
                (pi/2, 0) and the fourth at (pi/2, pi/2).
            down, right: radians.
            temperature: factor on the latents' distance from the mean.
            kept: how many scales are kept, the coarsest; the finer ones are drawn. None keeps all.
            draw: seed of what is drawn.

        Returns:
            float [h, w, C] in [0, 1].
        """
        z4 = self.corners(corners)
        z = latent.at_angles(*z4, down, right)
        mean = self._mean(corners.size, corners.label)
        if kept is not None and kept < self.flow.num_scales:
            drawn = mean + _noise(draw, z.shape)
            first = self.flow.num_scales - kept
            scales = self.flow.latents_by_scale(drawn)[:first]
            z = latent.join_scales([*scales, *self.flow.latents_by_scale(z)[first:]])
        z = mean + temperature * (z - mean)
        return self._decode(z[None], corners.label, corners.size)[0]

    def _corners(self, corners: Corners) -> tf.Tensor:
        """Gives four latents."""
        label, size = corners.label, corners.size
        if corners.known and size == 1:
            random = np.random.default_rng(corners.seed)
            rows = random.choice(len(self.known.images), 4, replace=len(self.known.images) < 4)
            return self.flow.encode(self.known.images[rows], label)
        return self._mean(size, label) + _noise(corners.seed, [4, *self.shape(size)])

    def _corner_images(self, corners: Corners) -> np.ndarray:
        """Gives the images of four latents."""
        return self._decode(self.corners(corners), corners.label, corners.size)

    def score(self, image: np.ndarray) -> Scored:
        """Scores an image beside the known ones.

        Args:
            image: uint8 [H, W, C], in 0..levels-1, such as `tfnvp.data.read_images` makes of files.
        """
        x = image[None]
        classes = self.flow.classify(x)[0].numpy() if self.flow.num_classes else None
        label = int(classes.argmax()) if self._of_classes else None
        reconstruction = self._decode(self.flow.encode(x, label), label, 1)[0]
        original = self._middle(x)
        count = min(NEIGHBOURS, len(self._middles))
        rows, distances = latent.nearest(original, self._middles, count)
        bits = float(self._bits(x)[0])
        return Scored(
            bits=bits,
            share=float(np.mean(self.bits < bits)),
            image=original[0],
            reconstruction=reconstruction,
            error=float(np.abs(reconstruction - original[0]).max()),
            neighbours=self._middles[rows[0].numpy()],
            distances=distances[0].numpy(),
            classes=classes,
        )

    def read(self, path: str) -> np.ndarray:
        """Reads a PNG or JPEG file as an image of the model's shape and levels.

        Raises:
            ImageFileError: for a file that cannot be read as a picture.
        """
        return data.read_images([path], self.flow.image_shape, self.flow.levels)[0]

    def _middle(self, images: np.ndarray) -> np.ndarray:
        """Gives the middle of each level, in [0, 1], as `encode` does."""
        return (images.astype("float32") + 0.5) / np.float32(self.flow.levels)

    def _bits(self, images: np.ndarray) -> np.ndarray:
        """Computes bits/dim [N]; of classes without p(x), those of their equal mixture."""
        if not self._of_classes:
            return self.flow.bits_per_dim(images).numpy()
        scores = [self.flow.log_prob(images, label) for label in self.labels]
        log_prob = tf.reduce_logsumexp(scores, axis=0) - math.log(len(scores))
        return self.flow.bits(log_prob).numpy()

    def _decode(self, z: tf.Tensor, label: int | None, size: int) -> np.ndarray:
        """Computes the images [N, h, w, C] of latents, in [0, 1]."""
        labels = self.flow.condition.labels_of_rows(label, len(z))
        decode = self._decoder(size, label is not None)
        x = decode(z) if labels is None else decode(z, labels)
        return np.clip(x, 0, 1)

    def _mean_of(self, size: int, label: int | None) -> tf.Tensor:
        return self.flow.distribution_for(self.shape(size), label).distribution.mean()

    def _traced(self, size: int, labelled: bool) -> tf.types.experimental.ConcreteFunction:
        """Compiles the decoder of a size, with labels or without."""
        specs = [tf.TensorSpec([None, *self.shape(size)], self.flow.variable_dtype)]
        specs += [self.flow.condition.label_spec(None)] * labelled

        def decode(z: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
            return self.flow.forward_in_full_precision(z, labels)

        return tf.function(decode, autograph=False).get_concrete_function(*specs)


def _noise(seed: int, shape: Sequence[int]) -> tf.Tensor:
    return tf.random.stateless_normal(shape, stateless_seed(seed), alg="philox")
