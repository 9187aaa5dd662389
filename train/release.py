"""`python -m train.release RUN_DIR`: makes a trained run the one that ships with tfnvp.

Writes the weights and the card of a finished run to tfnvp/models/weights/PRESET.weights.h5 and
.json, and the SavedModel to saved_models/PRESET/1, in place of those of an earlier release.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import h5py
import typer

import tfnvp  # This comes before Keras, to keep TensorFlow quiet.
from tfnvp import atomic_file

import keras  # isort: skip


def release(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="of a finished run")],
    data: Annotated[
        str | None, typer.Option(help="what it was trained on, if the card does not say it whole")
    ] = None,
    package: Path = Path("tfnvp/models/weights"),
    saved_models: Path = Path("saved_models"),
) -> None:
    """Makes the model of RUN_DIR the one that its preset's weights are."""
    card = json.loads((run_dir / "card.json").read_text())
    if data:
        card["data"] = data
    preset = card["preset"]
    # It is not compiled, since the optimizer's state does not ship.
    trained = keras.models.load_model(run_dir / "model.keras", compile=False)
    # A model trained in bfloat16 ships in float32, since many machines emulate bfloat16, slowly.
    model = type(trained).from_config(trained.get_config() | {"dtype": "float32"})
    model.set_weights(trained.get_weights())
    package.mkdir(exist_ok=True)
    with atomic_file.writing(package / f"{preset}.weights.h5") as weights:
        model.save_weights(weights)
        _pack(weights)
    with atomic_file.writing(package / f"{preset}.json") as written:
        written.write_text(json.dumps(card, indent=2) + "\n")
    version = saved_models / preset / "1"
    version.parent.mkdir(parents=True, exist_ok=True)
    # A directory that holds something cannot be replaced in one step. The earlier version
    # therefore waits beside the new one, where the next release finds it if this one is killed.
    earlier = version.with_name(".earlier-1")
    _settle(version, earlier)
    with tempfile.TemporaryDirectory(dir=saved_models) as written:
        exported = tfnvp.export_saved_model(model, written, card=card)
        try:
            if version.exists():
                version.rename(earlier)
            exported.rename(version)
        finally:
            _settle(version, earlier)
    print(version)


def _settle(version: Path, earlier: Path) -> None:
    """Removes the earlier version where there is a new one, or else puts it back."""
    if not earlier.exists():
        return
    if version.exists():
        shutil.rmtree(earlier)
    else:
        earlier.rename(version)


def _pack(path: Path) -> None:
    """Writes an HDF5 file anew, compressed: hundreds of small tensors have large headers."""
    packed = path.with_name(f".packing-{path.name}")
    with h5py.File(path) as source, h5py.File(packed, "w", libver="latest") as target:

        def copy(name: str, item: h5py.Dataset | h5py.Group) -> None:
            if isinstance(item, h5py.Dataset):
                # A scalar cannot be compressed.
                options = {"compression": "gzip", "shuffle": True} if item.shape else {}
                copied = target.create_dataset(name, data=item[()], **options)
            else:
                copied = target.require_group(name)
            copied.attrs.update(item.attrs)

        target.attrs.update(source.attrs)
        source.visititems(copy)
    packed.replace(path)


if __name__ == "__main__":
    typer.run(release)
