"""Keras layers: every parameter of a flow lives in one of these."""

from tfnvp.layers.bounded_log_scale import BoundedLogScale
from tfnvp.layers.common_values import CommonValues
from tfnvp.layers.dense_network import DenseNetwork
from tfnvp.layers.dequantization import Dequantization
from tfnvp.layers.fused_batch_normalization import FusedBatchNormalization
from tfnvp.layers.intensity_histogram import IntensityHistogram
from tfnvp.layers.invertible_matrix import InvertibleMatrix
from tfnvp.layers.label_encoding import LabelEncoding
from tfnvp.layers.nearest_row import NearestRow
from tfnvp.layers.residual_network import ResidualNetwork
from tfnvp.layers.rounding import Rounding
from tfnvp.layers.running_moments import RunningMoments
from tfnvp.layers.spline_weights import SplineWeights
from tfnvp.layers.standardizer import Standardizer
from tfnvp.layers.weight_norm_conv2d import WeightNormConv2D

__all__ = [
    "BoundedLogScale",
    "CommonValues",
    "DenseNetwork",
    "Dequantization",
    "FusedBatchNormalization",
    "IntensityHistogram",
    "InvertibleMatrix",
    "LabelEncoding",
    "NearestRow",
    "ResidualNetwork",
    "Rounding",
    "RunningMoments",
    "SplineWeights",
    "Standardizer",
    "WeightNormConv2D",
]
