"""Bijectors of Real NVP, each a `tfb.Bijector`: `forward` makes data, `inverse` latents."""

from tfnvp.bijectors.affine_coupling import AffineCoupling
from tfnvp.bijectors.batch_normalization import BatchNormalization
from tfnvp.bijectors.context_shift import ContextShift
from tfnvp.bijectors.elementwise_spline import ElementwiseSpline
from tfnvp.bijectors.equalization import Equalization
from tfnvp.bijectors.factor_out import FactorOut
from tfnvp.bijectors.flow_bijector import FlowBijector
from tfnvp.bijectors.image_logit import ImageLogit
from tfnvp.bijectors.invertible_conv import InvertibleConv1x1
from tfnvp.bijectors.log_tails import LogTails
from tfnvp.bijectors.one_pass import forward_and_log_det, inverse_and_log_det
from tfnvp.bijectors.opened_cells import OpenedCells
from tfnvp.bijectors.spline_coupling import SplineCoupling
from tfnvp.bijectors.squeeze import Squeeze
from tfnvp.bijectors.standardization import Standardization

__all__ = [
    "AffineCoupling",
    "BatchNormalization",
    "ContextShift",
    "ElementwiseSpline",
    "Equalization",
    "FactorOut",
    "FlowBijector",
    "ImageLogit",
    "InvertibleConv1x1",
    "LogTails",
    "OpenedCells",
    "SplineCoupling",
    "Squeeze",
    "Standardization",
    "forward_and_log_det",
    "inverse_and_log_det",
]
