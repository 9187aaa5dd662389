"""Serving: SavedModels for TF Serving, and clients for the models that it serves."""

from tfnvp.serving.client import AsyncClient, Client
from tfnvp.serving.errors import ServingError
from tfnvp.serving.export import export_saved_model
from tfnvp.serving.saved_model import SavedModel

__all__ = ["AsyncClient", "Client", "SavedModel", "ServingError", "export_saved_model"]
