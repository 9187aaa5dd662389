"""MODEL of the command line: how it is loaded, and which kind of model it is."""

import zipfile
from pathlib import Path

import keras

from tfnvp.checks import one_line
from tfnvp.cli import terminal
from tfnvp.models import ImageRealNVP, VectorRealNVP, presets
from tfnvp.serving import SavedModel

Flow = ImageRealNVP | VectorRealNVP | SavedModel


def load(model: str) -> Flow:
    """Loads a .keras file, the directory of a SavedModel's version, or a model that ships.

    Raises:
        ValueError: if MODEL is none of them; the message lists the names that ship. Also if it is
            one of them, and damaged or cut off; the message names it.
    """
    path = Path(model)
    with terminal.status(f"loading {model}"):
        if model in presets.trained() and not path.is_file():
            return ImageRealNVP.from_preset(model, load_weights=True)
        if path.is_dir():
            if (path / "model.keras").is_file():
                raise ValueError(f"MODEL of a run is {path / 'model.keras'}, got {model}")
            return SavedModel(path)
        if not path.is_file() or path.suffix != ".keras":
            raise ValueError(
                "MODEL must be a .keras file, the directory of a SavedModel's version, or one of "
                f"{', '.join(presets.trained())}, got {model}"
            )
        flow = _load_file(path)
    if not isinstance(flow, ImageRealNVP | VectorRealNVP):
        kind = type(flow).__name__
        raise ValueError(f"MODEL must hold an ImageRealNVP or VectorRealNVP, {path} holds {kind}")
    return flow


def _load_file(path: Path) -> keras.Model:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no .keras file, or one that is cut off")
    try:
        # Keras does not look at each checksum of the archive.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        # It is not compiled, since no command needs the optimizer's state.
        flow = None if damaged else keras.models.load_model(path, compile=False)
    # zipfile, h5py, json and Keras raise many types of error for damaged files.
    except Exception as error:
        raise ValueError(f"{path} cannot be loaded: {one_line(error)}") from error
    if damaged:
        raise ValueError(f"{path} is damaged: the checksum of {damaged} in it does not fit")
    return flow


def is_of_images(flow: Flow) -> bool:
    """Whether a model is of images and not of vectors."""
    return hasattr(flow, "image_shape")


def is_of_tables(flow: Flow) -> bool:
    """Whether a model can tell how unusual rows are."""
    return isinstance(flow, VectorRealNVP) and not flow.condition.context_shape


def has_classes(flow: Flow) -> bool:
    """Whether a model takes the labels of a data set."""
    return flow.conditional if isinstance(flow, SavedModel) else flow.num_classes is not None


def check_can(flow: Flow, command: str, images: bool = True) -> None:
    """Raises a ValueError for a SavedModel, beyond whose signatures a command goes.

    The command may need a model of images, too.
    """
    if images and not is_of_images(flow):
        raise ValueError(f"{command} is of images, this is a model of vectors")
    if isinstance(flow, SavedModel):
        raise ValueError(
            f"{command} needs more than a SavedModel's signatures: give the .keras file or a "
            f"shipped name, got {flow.path}"
        )
