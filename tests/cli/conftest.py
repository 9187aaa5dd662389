"""Fixtures that the tests of the command share."""

import numpy as np
import pytest
from helpers.commands import load_once
from PIL import Image

from tfnvp.cli import loading


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch):
    """A model that one command has loaded and traced is there for the next."""
    monkeypatch.setattr(loading, "load", load_once)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Four image files of the model's size, and their levels."""
    directory = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8)).astype("uint8")
    paths = [directory / f"{i}.png" for i in range(4)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    return paths, (pixels.astype(int) * 17 // 256).astype("uint8")[..., None]
