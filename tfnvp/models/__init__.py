"""Keras models of flows."""

from tfnvp.models.fitting import fit_in_time
from tfnvp.models.flow_model import FlowModel
from tfnvp.models.image_real_nvp import ImageRealNVP
from tfnvp.models.vector_real_nvp import VectorRealNVP

__all__ = ["FlowModel", "ImageRealNVP", "VectorRealNVP", "fit_in_time"]
