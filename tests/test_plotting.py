"""Grids and figures show what they are given."""

import numpy as np
import pytest
from PIL import Image

from tfnvp import plotting


def test_a_grid_holds_each_image_in_reading_order():
    images = np.linspace(0, 1, 5, dtype="float32")[:, None, None, None] * np.ones((5, 2, 3, 1))
    grid = plotting.image_grid(images, columns=3, least_size=2)
    assert grid.shape == (7, 13, 3)
    assert grid[1, 1].tolist() == [0, 0, 0]
    assert grid[1, 5].tolist() == [64, 64, 64]
    assert grid[4, 5].tolist() == [255, 255, 255]
    assert grid[0].tolist() == [[128] * 3] * 13


def test_small_images_are_magnified_by_a_whole_number():
    assert plotting.image_grid(np.zeros((1, 8, 8, 3)), least_size=20).shape == (26, 26, 3)


@pytest.mark.parametrize("shape", [(0, 8, 8, 1), (8, 8, 1), (2, 8, 8, 2)])
def test_what_cannot_be_shown_is_refused(shape):
    with pytest.raises(ValueError, match="images must have the shape"):
        plotting.image_grid(np.zeros(shape))


def test_a_png_is_written_whole_or_not_at_all(tmp_path):
    image = np.arange(48, dtype="uint8").reshape(4, 4, 3)
    plotting.save_png(image, tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), image)
    with pytest.raises(TypeError):
        plotting.save_png(np.zeros((4, 4, 3), "complex64"), tmp_path / "b.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_training_curves_are_those_of_the_history():
    history = {"bits_per_dim": [5.0, 4.0], "val_bits_per_dim": [4.5, 4.25]}
    figure = plotting.training_curves(history)
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert lines == {"training": [[1, 5.0], [2, 4.0]], "validation": [[1, 4.5], [2, 4.25]]}
    # Into axes that are there already.
    assert plotting.training_curves(history, figure.axes[0]) is figure
    assert len(figure.axes[0].lines) == 4
