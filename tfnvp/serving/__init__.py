"""Serving: SavedModels for TF Serving, and a client for the models that it serves."""

from tfnvp.serving.client import Client, ServingError
from tfnvp.serving.export import export_saved_model
from tfnvp.serving.saved_model import SavedModel

__all__ = ["Client", "SavedModel", "ServingError", "export_saved_model"]
