"""Keras models of flows."""

from tfnvp.models.flow_model import FlowModel
from tfnvp.models.image_real_nvp import ImageRealNVP

__all__ = ["FlowModel", "ImageRealNVP"]
