"""Grids and figures show what they are given."""

import matplotlib
import numpy as np
import pytest
from PIL import Image

import tfnvp
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


def test_histograms_share_their_bins_and_name_the_means():
    figure = plotting.bits_histogram({"a": np.linspace(0, 1, 50), "b": [2.0, 3.0]})
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a: 0.50", "b: 2.50"]
    first, second = (np.unique(patch.get_xy()[:, 0]) for patch in axes.patches)
    np.testing.assert_allclose(first, second)
    assert (first[0], first[-1]) == (0, 3)
    assert plotting.bits_histogram({"c": [1.0, 2.0]}, axes) is figure


def test_latent_scales_stand_beside_the_normal_density():
    z = np.random.default_rng(0).normal(size=(2, 4000))
    axes = plotting.latent_scales([z[0], 2 * z[1]]).axes[0]
    heights = [patch.get_xy()[:, 1].max() for patch in axes.patches]
    np.testing.assert_allclose(heights, [0.4, 0.2], atol=0.05)
    assert axes.lines[0].get_ydata().max() == pytest.approx(0.3989, abs=1e-3)
    labels = {text.get_text() for text in axes.get_legend().get_texts()}
    assert f"scale 2: mean {2 * z[1].mean():.2f}, deviation {2 * z[1].std():.2f}" in labels


def test_labels_stand_over_their_images():
    images = np.linspace(0, 1, 3, dtype="float32")[:, None, None, None] * np.ones((3, 4, 4, 1))
    figure = plotting.labelled_images(images, ["a", "b", "c"], columns=2)
    axes = figure.axes[0]
    for i, (drawn, text) in enumerate(zip(axes.images, axes.texts, strict=True)):
        np.testing.assert_allclose(drawn.get_array(), i / 2)
        left, right, bottom, top = drawn.get_extent()
        x, y = text.get_position()
        assert left < x < right and y < top < bottom
    assert axes.images[2].get_extent()[2] > axes.images[0].get_extent()[2]
    with pytest.raises(ValueError, match="labels must be 3"):
        plotting.labelled_images(images, ["a"])


def test_the_density_is_drawn_in_both_spaces(randomize):
    model = randomize(tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=(4,)))
    data = np.random.default_rng(0).normal(size=(50, 2)).astype("float32")
    x_axes, z_axes = plotting.density_2d(model, data, samples=40, seed=1).axes
    (points, samples), (latents, prior) = (
        [np.asarray(dots.get_offsets()) for dots in axes.collections[-2:]]
        for axes in (x_axes, z_axes)
    )
    np.testing.assert_allclose(points, data[:40])
    np.testing.assert_allclose(samples, model.sample(40, seed=1), atol=1e-5)
    np.testing.assert_allclose(latents, model.encode(data[:40]), atol=1e-5)
    np.testing.assert_allclose(prior, model.encode(samples.astype("float32")), atol=1e-4)
    for curve, line in zip(x_axes.lines, z_axes.lines, strict=True):
        mapped = model.decode(line.get_xydata().astype("float32"))
        np.testing.assert_allclose(curve.get_xydata(), mapped, atol=1e-5)
    # The heat map is the density at its points.
    mesh = x_axes.collections[0]
    corners = mesh.get_coordinates()
    middle = (corners[:-1, :-1] + corners[1:, 1:])[90, 120] / 2
    expected = np.exp(model.log_prob(middle[None].astype("float32")))[0]
    assert mesh.get_array().reshape(200, 200)[90, 120] == pytest.approx(expected, rel=1e-3)
    with pytest.raises(ValueError, match=r"\[N, 2\], got \(50, 3\)"):
        plotting.density_2d(model, np.zeros((50, 3)))


def test_an_explanation_has_the_20_most_unusual_columns_the_most_unusual_on_top():
    nats = np.random.default_rng(0).permutation(np.arange(30.0))
    (axes,) = plotting.explanation(nats).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [f"column {list(nats).index(value)}" for value in range(10, 30)]
    assert [bar.get_width() for bar in axes.patches] == list(range(10, 30))
    with pytest.raises(ValueError, match=r"must be \[D\], .* got shape \(30,\) and 2 names"):
        plotting.explanation(nats, names=["age", "height"])


def test_a_gif_holds_each_frame(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        plotting.save_png(np.full((4, 4, 3), 80 * i, "uint8"), path)
    plotting.save_gif(paths, tmp_path / "a.gif", seconds=0.2)
    with Image.open(tmp_path / "a.gif") as gif:
        durations = []
        for i in range(gif.n_frames):
            gif.seek(i)
            durations.append(gif.info["duration"])
            assert np.all(np.asarray(gif.convert("RGB")) == 80 * i)
    assert durations == [200, 200, 800]


def test_maps_stand_beside_their_images_on_one_scale():
    """Six deviations of a sum of three standard normal log-densities are the brightest."""
    images = np.linspace(0, 1, 2 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    mean, deviation = -1.5 * (np.log(2 * np.pi) + 1), np.sqrt(1.5)
    maps = np.full((2, 4, 4), mean)
    maps[0, 0, 1], maps[1, 2, 3] = mean - 3 * deviation, mean - 7 * deviation
    maps[1, 0, 0] = mean + deviation
    figure = plotting.beside_maps(images, maps, ["a", "b"], columns=2)
    assert [text.get_text() for text in figure.axes[0].texts] == ["a", "b"]
    shown = [image.get_array() for image in figure.axes[0].images]
    ramp = matplotlib.colormaps["inferno"]
    for pair, image, likely in zip(shown, images, maps, strict=True):
        assert pair.shape == (4, 9, 3) and np.all(pair[:, 4] == 1)
        np.testing.assert_allclose(pair[:, :4], image, rtol=1e-6)
        share = np.clip((mean - likely) / deviation / 6, 0, 1)
        np.testing.assert_allclose(pair[:, 5:], ramp(share)[..., :3], atol=0.02)
    width, height = figure.get_size_inches()
    assert 2.8 < width / height < 3.5, "two wide pairs leave no empty room"
