"""Fixtures that the tests of training share."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path):
    directory = tmp_path / "images"
    directory.mkdir()
    for i in range(10):
        pixels = np.random.RandomState(i).randint(0, 256, (12, 9, 3)).astype("uint8")
        Image.fromarray(pixels).save(directory / f"{i}.png")
    return directory
