"""Ways through latent space: between images, around them, scale by scale.

Latents are what `model.encode` gives and `model.decode` takes, of any shape: [H, W, C] or [D].
Images larger than those of training are `model.sample(n, image_shape=...)`, and images closer to
the mean `model.sample(n, temperature=...)`.
"""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfnvp.bijectors.factor_out import join
from tfnvp.checks import check_positive_int
from tfnvp.models import ImageRealNVP
from tfnvp.seeds import stateless_seed
from tfnvp.types import TensorLike


def interpolate(
    z1: TensorLike,
    z2: TensorLike,
    z3: TensorLike,
    z4: TensorLike,
    steps: int = 8,
    full_circle: bool = False,
) -> tf.Tensor:
    """The paper's manifold through four latents, on which each keeps its distance from the origin.

        z = cos(p) (cos(q) z1 + sin(q) z2) + sin(p) (cos(q) z3 + sin(q) z4),

    with p for the rows and q for the columns, both from 0 to pi/2, so that the corners are z1, z2
    (top) and z3, z4 (bottom). Source: Real NVP (arXiv 1605.08803), section 4.2, equation 19.

    Args:
        steps: how many rows, and how many columns.
        full_circle: whether both angles go through the whole circle as in the paper's figure,
            short of 2 pi: 0, pi/4, ..., 7 pi/4 for the 8 steps of the paper.

    Returns:
        [steps, steps, *shape], the shape that of each latent, z1 at [0, 0].

    Raises:
        ValueError: for latents of different shapes, or steps not 2 or more.

    Example:
        >>> import tensorflow as tf
        >>> model = tfnvp.ImageRealNVP.from_preset("digits")
        >>> z = model.encode(next(iter(tfnvp.data.load("digits", "test", 4))))
        >>> grid = tfnvp.latent.interpolate(*z, steps=3)
        >>> model.decode(tf.reshape(grid, [9, 8, 8, 1])).shape
        TensorShape([9, 8, 8, 1])
    """
    _check_steps(steps)
    z1, z2, z3, z4 = _check_shapes(z1=z1, z2=z2, z3=z3, z4=z4)
    end = 2 * math.pi * (steps - 1) / steps if full_circle else math.pi / 2
    angle = tf.linspace(tf.zeros([], z1.dtype), end, steps)
    p = tf.reshape(angle, [steps, 1] + [1] * z1.shape.rank)
    q = tf.reshape(angle, [1, steps] + [1] * z1.shape.rank)
    return at_angles(z1, z2, z3, z4, p, q)


def at_angles(
    z1: TensorLike, z2: TensorLike, z3: TensorLike, z4: TensorLike, p: TensorLike, q: TensorLike
) -> tf.Tensor:
    """Gives the point at two angles of the manifold that `interpolate` lays a grid on.

    Args:
        p, q: radians, of one shape with the latents or such that it broadcasts to theirs.

    Returns:
        A latent of the shape that these have together.

    Example:
        >>> tfnvp.latent.at_angles([1.0], [2.0], [3.0], [4.0], p=0.0, q=0.0).numpy()
        array([1.], dtype=float32)
    """
    z1, z2, z3, z4 = map(tf.convert_to_tensor, (z1, z2, z3, z4))
    p, q = (tf.cast(angle, z1.dtype) for angle in (p, q))
    top = tf.cos(q) * z1 + tf.sin(q) * z2
    bottom = tf.cos(q) * z3 + tf.sin(q) * z4
    return tf.cos(p) * top + tf.sin(p) * bottom


def slerp(z1: TensorLike, z2: TensorLike, steps: int = 8) -> tf.Tensor:
    """Spherical interpolation: from z1 to z2 at an even pace, on the shell where latents lie.

        z(t) = (sin((1 - t) w) z1 + sin(t w) z2) / sin(w),    w the angle between z1 and z2;

    nearly parallel latents, and zero, are interpolated linearly. Source: Shoemake 1985; for
    latents of generative models White (arXiv 1609.04468).

    Returns:
        [steps, *shape], from z1 to z2, both included.

    Raises:
        ValueError: for latents of different shapes or in opposite directions, between which there
            is no one way, or steps not 2 or more.

    Example:
        >>> tfnvp.latent.slerp([1.0, 0.0], [0.0, 1.0], steps=3).numpy().round(3)
        array([[1.   , 0.   ],
               [0.707, 0.707],
               [0.   , 1.   ]], dtype=float32)
    """
    _check_steps(steps)
    z1, z2 = _check_shapes(z1=z1, z2=z2)
    lengths = tf.norm(z1) * tf.norm(z2)
    cosine = tf.reduce_sum(z1 * z2) / lengths if lengths > 0 else tf.ones([], z1.dtype)
    angle = tf.acos(tf.clip_by_value(cosine, -1, 1))
    if angle > math.pi - 1e-3:
        raise ValueError("z1 and z2 must not be opposite: there is no one way between them")
    t = tf.reshape(tf.linspace(tf.zeros([], z1.dtype), 1, steps), [steps] + [1] * z1.shape.rank)
    if angle < 1e-3:
        return (1 - t) * z1 + t * z2
    return (tf.sin((1 - t) * angle) * z1 + tf.sin(t * angle) * z2) / tf.sin(angle)


def join_scales(scales: Sequence[TensorLike]) -> tf.Tensor:
    """Puts latents [..., H, W, C] together from their parts, of which the finest is the first.

    It is the reverse of `ImageRealNVP.latents_by_scale`.

    Example:
        >>> import numpy as np
        >>> model = tfnvp.ImageRealNVP((8, 8, 1), num_scales=3, filters=4, residual_blocks=1)
        >>> z = np.random.normal(size=(2, 8, 8, 1))
        >>> bool(np.all(tfnvp.latent.join_scales(model.latents_by_scale(z)) == z))
        True
    """
    *rest, z = scales
    for out in reversed(rest):
        z = join(z, out)
    return z


def resample_scales(
    model: ImageRealNVP,
    images: TensorLike,
    keep: int,
    temperature: float = 1.0,
    labels: TensorLike | None = None,
    seed: int | None = None,
) -> tf.Tensor:
    """Keeps the coarsest scales of images' latents and draws the finer ones anew.

    The images keep what the kept latents hold: the paper's conceptual compression. The finest
    scale has half of the latents, the next a quarter and so on. Source: Real NVP
    (arXiv 1605.08803), section 3.6 and appendix D, after Gregor et al. (arXiv 1604.08772).

    Args:
        images: [B, H, W, C], uint8 or float, as `model.encode` takes them.
        keep: how many scales, from 0 (samples) to all (reconstructions).
        temperature: factor on the distance of drawn latents from the base distribution's mean.
        labels: the images' labels, as `model.encode` takes them; samples, where no scale is kept,
            have them too.

    Returns:
        [B, H, W, C], intensities in [0, 1].

    Raises:
        ValueError: if keep is out of range.

    Example:
        >>> model = tfnvp.ImageRealNVP.from_preset("digits")
        >>> images = next(iter(tfnvp.data.load("digits", "test", 4)))
        >>> tfnvp.latent.resample_scales(model, images, keep=1, seed=0).shape
        TensorShape([4, 8, 8, 1])
    """
    if keep not in range(model.num_scales + 1):
        raise ValueError(f"keep must be an integer from 0 to {model.num_scales}, got keep={keep!r}")
    z = model.encode(images, labels)
    seed = stateless_seed(seed)
    noise = tf.random.stateless_normal(tf.shape(z), seed, dtype=z.dtype, alg="philox")
    drawn = model.distribution_for(labels=labels).distribution.mean() + temperature * noise
    first = model.num_scales - keep
    scales = model.latents_by_scale(drawn)[:first] + model.latents_by_scale(z)[first:]
    return tf.clip_by_value(model.decode(join_scales(scales), labels), 0, 1)


def attribute_direction(z: TensorLike, attribute: TensorLike) -> tf.Tensor:
    """The mean latent with an attribute less the mean latent without it.

    Added to the latents of an image, it moves the image towards the attribute. Source: Glow
    (arXiv 1807.03039), section 6.

    Args:
        z: latents [N, *shape].
        attribute: booleans [N]: which of the latents have it.

    Returns:
        [*shape].

    Raises:
        ValueError: if all or none have it, or there are not N booleans.

    Example:
        >>> z = [[0.0, 1.0], [0.0, 3.0], [5.0, 2.0]]
        >>> tfnvp.latent.attribute_direction(z, [False, False, True]).numpy().tolist()
        [5.0, 0.0]
    """
    z, attribute = tf.convert_to_tensor(z), np.asarray(attribute)
    if attribute.dtype != bool or attribute.shape != (z.shape[0],):
        got = f"dtype {attribute.dtype} and shape {attribute.shape}"
        raise ValueError(f"attribute must be {z.shape[0]} booleans, one for each latent, got {got}")
    if attribute.all() or not attribute.any():
        raise ValueError("attribute must be true of some latents and false of others")
    return tf.reduce_mean(z[attribute], axis=0) - tf.reduce_mean(z[~attribute], axis=0)


def nearest(images: TensorLike, others: TensorLike, count: int = 1) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the closest others of each image: training images, say, to see that none is copied.

    Args:
        images: [N, *shape], float.
        others: [M, *shape], float, in the same units; uint8 images x are (x + 0.5) / levels.
        count: how many for each image, M at most.

    Returns:
        Indices into others, int32 [N, count], the closest first, and their distances [N, count],
        the root of the mean squared difference.

    Raises:
        ValueError: for shapes that differ, integers, or count out of range.

    Example:
        >>> index, distance = tfnvp.latent.nearest([[0.0, 0.2]], [[1.0, 1.0], [0.0, 0.0]])
        >>> index.numpy().tolist()
        [[1]]
    """
    images, others = tf.convert_to_tensor(images), tf.convert_to_tensor(others)
    if not (images.dtype.is_floating and others.dtype == images.dtype):
        got = f"{images.dtype.name} and {others.dtype.name}"
        raise ValueError(f"images and others must be of one float dtype, got {got}")
    if images.shape[1:] != others.shape[1:]:
        wanted, got = "the same shape but for their number", f"{images.shape} and {others.shape}"
        raise ValueError(f"images and others must have {wanted}, got {got}")
    check_positive_int("count", count)
    if count > others.shape[0]:
        raise ValueError(f"count must be {others.shape[0]} at most, got count={count}")
    size = images.shape[1:].num_elements()
    # We go image by image: expanding the square to a product of matrices would lose digits.
    flat, rows = tf.reshape(others, [-1, size]), tf.reshape(images, [-1, size])
    squares = tf.map_fn(lambda row: tf.reduce_mean((flat - row) ** 2, axis=-1), rows)
    closest, index = tf.math.top_k(-squares, k=count)
    return index, tf.sqrt(-closest)


def _check_steps(steps: int) -> None:
    check_positive_int("steps", steps)
    if steps < 2:
        raise ValueError(f"steps must be 2 or more, to have both ends, got steps={steps}")


def _check_shapes(**latents: TensorLike) -> list[tf.Tensor]:
    """The latents as tensors, all of one shape."""
    tensors = [tf.convert_to_tensor(z) for z in latents.values()]
    if any(z.shape != tensors[0].shape for z in tensors):
        shapes = ", ".join(f"{name} {z.shape}" for name, z in zip(latents, tensors, strict=True))
        raise ValueError(f"{', '.join(latents)} must have one shape, got {shapes}")
    return tensors
