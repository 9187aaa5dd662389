"""An export that several files ask, made once in each process of tests."""

import pytest

import tfnvp


@pytest.fixture(scope="session")
def of_classes(tiny_model, tmp_path_factory):
    """A model of images 4 x 4 and three classes or none, and an export of it."""
    model = tiny_model((4, 4, 1), levels=17, num_classes=3, label_dropout=0.1)
    return model, tfnvp.export_saved_model(model, tmp_path_factory.mktemp("export") / "tiny")
