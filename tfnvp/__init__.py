"""tfnvp: Real NVP for TensorFlow.

Exact likelihood and one-pass samples of images and vectors, as a TensorFlow Probability
distribution that Keras 3 trains, saves and exports. Start with `ImageRealNVP` or `VectorRealNVP`,
or, for tables, with `tfnvp.sklearn.FlowDensity`.
"""

import importlib
from types import ModuleType

from tfnvp import _environment
from tfnvp._version import __version__

with _environment.quiet_if_asked():
    _environment.check()

    from tfnvp import (
        anomaly,
        bijectors,
        callbacks,
        data,
        latent,
        layers,
        masks,
        metrics,
        optimizers,
        plotting,
        serving,
    )
    from tfnvp.distribution import FlowDistribution
    from tfnvp.models import FlowModel, ImageRealNVP, VectorRealNVP, presets
    from tfnvp.serving import export_saved_model
    from tfnvp.stablehlo import export_stablehlo

__all__ = [
    "FlowDistribution",
    "FlowModel",
    "ImageRealNVP",
    "VectorRealNVP",
    "__version__",
    "anomaly",
    "bijectors",
    "callbacks",
    "data",
    "export_saved_model",
    "export_stablehlo",
    "latent",
    "layers",
    "masks",
    "metrics",
    "optimizers",
    "plotting",
    "presets",
    "serving",
    "sklearn",
]


def __getattr__(name: str) -> ModuleType:
    """Imports `tfnvp.sklearn` when it is first asked for: scikit-learn takes a while."""
    if name == "sklearn":
        return importlib.import_module("tfnvp.sklearn")
    raise AttributeError(f"module 'tfnvp' has no attribute {name!r}")
