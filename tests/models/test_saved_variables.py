"""Every variable of a saved model is in its file, whatever Keras makes of the layers' lists."""

import zipfile

import h5py
import keras
import numpy as np
import pytest

import tfnvp

MODELS = {
    "images": lambda: tfnvp.ImageRealNVP((4, 4, 1), 2, filters=4, residual_blocks=2),
    "mixing": lambda: tfnvp.ImageRealNVP((4, 4, 2), 1, filters=4, residual_blocks=1, mixing=True),
    "images of classes": lambda: tfnvp.ImageRealNVP(
        (4, 4, 1), 1, 4, 1, num_classes=3, label_dropout=0.1, conditional_base=True
    ),
    "vectors": lambda: tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=[4, 4]),
    "vectors of a context": lambda: tfnvp.VectorRealNVP(3, 2, [4], context_size=2),
}


def _lists(layer):
    """The lists of layers in a layer that are attributes of it or of a layer within it."""
    for inner in layer._flatten_layers():
        yield from (value for value in vars(inner).values() if isinstance(value, list))


@pytest.mark.parametrize("kind", MODELS)
def test_every_variable_is_in_the_file(kind, randomize, tmp_path):
    model = randomize(MODELS[kind]())
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        archive.extract("model.weights.h5", tmp_path)
    stored = []
    with h5py.File(tmp_path / "model.weights.h5") as file:
        file.visititems(
            lambda _, item: stored.append(item[()]) if isinstance(item, h5py.Dataset) else None
        )
    values = np.sort(np.concatenate([np.ravel(array) for array in stored]).astype("float64"))
    # Keras leaves out the states of random seeds, which are no weights.
    for variable in model.weights:
        found = np.isin(np.ravel(variable.numpy()).astype("float64"), values)
        assert found.all(), variable.path
    again = keras.models.load_model(tmp_path / "m.keras")
    for variable, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(variable, other)


@pytest.mark.parametrize("kind", MODELS)
def test_no_layers_sit_in_lists_of_lists(kind):
    """Keras before 3.15 neither saves nor loads these."""
    for values in _lists(MODELS[kind]()):
        for value in values:
            assert not isinstance(value, list | tuple) or not any(
                isinstance(inner, keras.Layer) for inner in value
            )
