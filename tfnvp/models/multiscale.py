"""The multiscale architecture of the image model, from data to latents."""

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow_probability as tfp

from tfnvp.bijectors import (
    AffineCoupling,
    BatchNormalization,
    FactorOut,
    InvertibleConv1x1,
    SplineCoupling,
    Squeeze,
)
from tfnvp.checks import check_positive_int
from tfnvp.graph.pure_layer import Traces
from tfnvp.layers import InvertibleMatrix, ResidualNetwork, RunningMoments
from tfnvp.masks import ChannelHalves, Checkerboard, Partition

tfb = tfp.bijectors


@dataclasses.dataclass(frozen=True)
class Multiscale:
    """Couplings, squeezes and factor-outs, scale by scale.

    Source: Real NVP (arXiv 1605.08803), sections 3.4 to 3.7 and 4.1.

    Attributes:
        residual_blocks: residual blocks of each conditioner.
        context_shape: the shape of a batch of contexts, or None.
        mixing, momentum, scale_l2, synchronized, remat, spline_bins: as in `ImageRealNVP`.
        policy: the dtype policy of conditioners; the flow is in its variable dtype.
        traces: what the conditioners of the model share.
    """

    residual_blocks: int
    context_shape: tuple[int | None, int] | None
    mixing: bool
    momentum: float
    scale_l2: float
    synchronized: bool
    remat: bool
    spline_bins: int
    policy: keras.dtype_policies.DTypePolicy
    traces: Traces = dataclasses.field(default_factory=Traces)

    def scale(self, channels: int, filters: int, scales: int) -> list[tfb.Bijector]:
        """Lists the bijectors of one scale and all that follow it, in the order data meets them."""
        if scales == 1:
            return self.couplings(Checkerboard, 4, channels, filters)
        rest = self.scale(2 * channels, 2 * filters, scales - 1)
        return [
            *self.couplings(Checkerboard, 3, channels, filters),
            Squeeze(),
            *self.couplings(ChannelHalves, 3, 4 * channels, 2 * filters),
            tfb.Invert(Squeeze()),
            FactorOut(tfb.Chain(rest, name="scale")),
        ]

    def couplings(
        self, partition: type[Partition], count: int, channels: int, filters: int
    ) -> list[tfb.Bijector]:
        """Makes couplings of alternating parity, each followed by batch normalization."""
        bijectors = []
        for i in range(count):
            mask = partition(i % 2)
            masked = partition is Checkerboard
            changing = channels if masked else channels // 2
            network = ResidualNetwork(
                changing,
                filters,
                self.residual_blocks,
                checkerboard_parity=mask.parity if masked else None,
                momentum=self.momentum,
                scale_l2=self.scale_l2,
                synchronized=self.synchronized,
                remat=self.remat,
                spline_bins=self.spline_bins,
                traces=self.traces,
                dtype=self.policy,
            )
            network.build((None, None, None, changing), self.context_shape)
            if self.mixing:
                matrix = InvertibleMatrix(dtype=self.policy.variable_dtype)
                matrix.build((None, None, None, channels))
                bijectors.append(InvertibleConv1x1(matrix))
            moments = RunningMoments(
                self.momentum, self.synchronized, dtype=self.policy.variable_dtype
            )
            moments.build((None, None, None, changing))
            coupling = SplineCoupling if self.spline_bins else AffineCoupling
            bijectors += [coupling(mask, network), BatchNormalization(mask, moments)]
        return bijectors


def checked_image_shape(image_shape: Sequence[int], num_scales: int) -> tuple[int, int, int]:
    """Makes a tuple of an image shape, or raises a ValueError where the scales do not divide it."""
    image_shape = tuple(image_shape)
    if len(image_shape) != 3:
        raise ValueError(
            f"image_shape must be (height, width, channels), got image_shape={image_shape!r}"
        )
    for size in image_shape:
        check_positive_int("each size of image_shape", size)
    divisor = 2 ** (num_scales - 1)
    if any(size % divisor for size in image_shape[:2]):
        raise ValueError(
            f"height and width of image_shape must be multiples of {divisor} for "
            f"num_scales={num_scales}, got image_shape={image_shape}"
        )
    return image_shape
