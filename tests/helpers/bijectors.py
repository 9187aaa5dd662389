"""Every bijector in small, of which the laws are tried."""

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from helpers.few_couplings import FewCouplings
from tfnvp.bijectors import (
    AffineCoupling,
    BatchNormalization,
    ContextShift,
    ElementwiseSpline,
    Equalization,
    FactorOut,
    ImageLogit,
    InvertibleConv1x1,
    LogTails,
    OpenedCells,
    SplineCoupling,
    Squeeze,
    Standardization,
)
from tfnvp.layers import (
    CommonValues,
    DenseNetwork,
    IntensityHistogram,
    InvertibleMatrix,
    ResidualNetwork,
    RunningMoments,
    SplineWeights,
    Standardizer,
)
from tfnvp.masks import ChannelHalves, Checkerboard

tfb, tfd = tfp.bijectors, tfp.distributions


def _image_coupling(mask, channels, dtype, spline_bins=0):
    stays = channels // 2 if isinstance(mask, ChannelHalves) else channels
    changes = channels - stays if isinstance(mask, ChannelHalves) else channels
    if isinstance(mask, ChannelHalves) and mask.parity:
        changes = stays
    parity = mask.parity if isinstance(mask, Checkerboard) else None
    network = ResidualNetwork(
        changes, 4, 1, checkerboard_parity=parity, spline_bins=spline_bins, dtype=dtype
    )
    # Some values are beyond the bound.
    return SplineCoupling(mask, network, 0.8) if spline_bins else AffineCoupling(mask, network)


def _vector_coupling(parity, size, dtype):
    changes = size // 2 if parity else size - size // 2
    network = DenseNetwork(changes, [8], activation="tanh", dtype=dtype)
    return AffineCoupling(ChannelHalves(parity, event_ndims=1), network)


def _vector_splines(parity, size, dtype):
    changes = size // 2 if parity else size - size // 2
    hidden = keras.layers.Dense(8, "tanh", dtype=dtype)
    network = keras.Sequential([hidden, keras.layers.Dense(changes * 10, dtype=dtype)])
    return SplineCoupling(ChannelHalves(parity, event_ndims=1), network, 0.8)


def _normalization(mask, dtype):
    return BatchNormalization(mask, RunningMoments(dtype=dtype))


def _context_shift(shape, dtype):
    layer = keras.layers.Dense(shape[-1], use_bias=False, dtype=dtype)
    return ContextShift(layer, tf.constant([0.5, -1.0], dtype), event_ndims=len(shape))


def _factored(dtype):
    inner = [_image_coupling(Checkerboard(1), 2, dtype), _normalization(Checkerboard(1), dtype)]
    return FactorOut(tfb.Chain([*inner, tfb.Shift(tf.constant(0.3, dtype))]))


def _real_nvp(channels, dtype, num_scales=1, **options):
    sizes = {"num_scales": num_scales, "filters": 4, "residual_blocks": 1}
    model = FewCouplings((4, 4, channels), **sizes, **options, dtype=dtype)
    return model.distribution.bijector


# name: (bijector of a dtype, event shape of the data)
CASES = {
    "checkerboard 0": (lambda d: _image_coupling(Checkerboard(0), 2, d), (4, 2, 2)),
    "checkerboard 1": (lambda d: _image_coupling(Checkerboard(1), 1, d), (3, 3, 1)),
    "channels 0": (lambda d: _image_coupling(ChannelHalves(0), 3, d), (2, 3, 3)),
    "channels 1": (lambda d: _image_coupling(ChannelHalves(1), 3, d), (2, 3, 3)),
    "vector 0": (lambda d: _vector_coupling(0, 5, d), (5,)),
    "vector 1": (lambda d: _vector_coupling(1, 5, d), (5,)),
    "splines checkerboard 0": (lambda d: _image_coupling(Checkerboard(0), 2, d, 4), (3, 2, 2)),
    "splines checkerboard 1": (lambda d: _image_coupling(Checkerboard(1), 1, d, 4), (3, 3, 1)),
    "splines channels 0": (lambda d: _image_coupling(ChannelHalves(0), 3, d, 2), (2, 3, 3)),
    "splines channels 1": (lambda d: _image_coupling(ChannelHalves(1), 3, d, 4), (2, 3, 3)),
    "splines vector 0": (lambda d: _vector_splines(0, 5, d), (5,)),
    "invertible conv": (lambda d: InvertibleConv1x1(InvertibleMatrix(dtype=d)), (3, 2, 4)),
    "matrix of vectors": (
        lambda d: InvertibleConv1x1(InvertibleMatrix(seed=1, dtype=d), event_ndims=1),
        (5,),
    ),
    # Some values are beyond the bounds.
    "elementwise spline": (lambda d: ElementwiseSpline(SplineWeights(4, dtype=d), 0.8), (5,)),
    "opened cells": (lambda d: OpenedCells(CommonValues(dtype=d)), (5,)),
    "log tails": (lambda d: LogTails(0.4), (5,)),
    "squeeze": (lambda d: Squeeze(), (4, 2, 3)),
    "normalization": (lambda d: _normalization(None, d), (3, 2, 2)),
    "normalization checkerboard 0": (lambda d: _normalization(Checkerboard(0), d), (3, 3, 2)),
    "normalization checkerboard 1": (lambda d: _normalization(Checkerboard(1), d), (3, 3, 2)),
    "normalization channels 0": (lambda d: _normalization(ChannelHalves(0), d), (2, 2, 3)),
    "normalization channels 1": (lambda d: _normalization(ChannelHalves(1), d), (2, 2, 3)),
    "normalization vector": (lambda d: _normalization(ChannelHalves(0, event_ndims=1), d), (5,)),
    "context shift": (lambda d: _context_shift((3, 2, 2), d), (3, 2, 2)),
    "context shift vector": (lambda d: _context_shift((5,), d), (5,)),
    "factor out": (_factored, (4, 2, 1)),
    "equalization": (lambda d: Equalization(IntensityHistogram(4, dtype=d)), (2, 3, 1)),
    "image logit": (lambda d: ImageLogit(), (2, 3, 1)),
    "standardization": (lambda d: Standardization(Standardizer(dtype=d)), (5,)),
}
# A whole model takes seconds to trace and to compile: one of two scales, with all that a model may
# have, and one of one scale, each in one dtype.
MODELS = {
    ("real nvp", "float32"): (lambda d: _real_nvp(2, d), (4, 4, 2)),
    ("real nvp plus", "float64"): (
        lambda d: _real_nvp(2, d, 2, mixing=True, equalized=True, spline_bins=4),
        (4, 4, 2),
    ),
}
ALL = {(name, dtype): CASES[name] for name in CASES for dtype in ("float64", "float32")} | MODELS
