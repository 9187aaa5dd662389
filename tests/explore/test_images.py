"""Images of the page of a model, computed without Gradio."""

import math

import numpy as np
import pytest
from PIL import Image

from tfnvp import latent
from tfnvp.explore.images import SIZES, Corners, Images, Known

LEVELS = 17


@pytest.fixture(scope="module")
def flow(tiny_model):
    return tiny_model((4, 4, 1), levels=LEVELS, num_scales=2)


@pytest.fixture(scope="module")
def known():
    images = np.random.default_rng(0).integers(0, LEVELS, (30, 4, 4, 1)).astype("uint8")
    return Known(images, "30 images of noise")


@pytest.fixture(scope="module")
def explored(flow, known):
    return Images(flow, known)


def test_the_corners_are_known_images_and_the_sphere_goes_through_them(explored, known):
    corners = Corners(seed=3)
    images = explored.corner_images(corners)
    middles = (known.images + 0.5) / LEVELS
    _, distance = latent.nearest(images, middles.astype("float32"))
    assert np.max(distance) < 1e-4 and len(np.unique(images.round(3), axis=0)) == 4
    for i, (down, right) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        angles = down * math.pi / 2, right * math.pi / 2
        np.testing.assert_allclose(explored.between(corners, *angles), images[i], atol=1e-4)


def test_between_them_is_the_papers_manifold(explored, flow):
    corners = Corners(seed=1)
    z = explored.corners(corners)
    expected = np.clip(flow.decode(latent.interpolate(*z, steps=3)[1]), 0, 1)
    for i, right in enumerate([0, math.pi / 4, math.pi / 2]):
        image = explored.between(corners, math.pi / 4, right)
        np.testing.assert_allclose(image, expected[i], atol=1e-4)


def test_at_temperature_zero_there_is_one_image(explored, flow):
    image = explored.between(Corners(seed=1), 0.3, 0.4, temperature=0.0)
    np.testing.assert_allclose(image, flow.sample(1, temperature=0.0)[0], atol=1e-5)


def test_finer_scales_are_drawn_and_the_others_stay(explored, flow):
    corners = Corners(seed=2, known=False)
    kept = explored.between(corners, 0.0, 0.0)
    drawn = [explored.between(corners, 0.0, 0.0, kept=1, draw=draw) for draw in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.abs(drawn[0] - drawn[2]).max() > 1e-3
    # Pixels at the edge of [0, 1] have lost what the latents were.
    inside = [np.all((x > 0) & (x < 1)) for x in (kept, *drawn)]
    if all(inside):
        scales = [flow.latents_by_scale(flow.encode(x[None])) for x in (kept, drawn[0])]
        np.testing.assert_allclose(scales[0][1], scales[1][1], atol=1e-2)
        assert np.abs(scales[0][0] - scales[1][0]).max() > 0.1
    # All scales drawn leave nothing of the corners.
    other = explored.between(Corners(seed=5, known=False), 0.0, 0.0, kept=0, draw=7)
    np.testing.assert_array_equal(explored.between(corners, 0.0, 0.0, kept=0, draw=7), other)


@pytest.mark.parametrize("size", SIZES)
def test_other_sizes(explored, flow, size):
    image = explored.between(Corners(size=size), 0.5, 0.5)
    assert image.shape == (4 * size, 4 * size, 1) and 0 <= image.min() <= image.max() <= 1
    corners = Corners(seed=4, size=size, known=False)
    z, images = explored.corners(corners), explored.corner_images(corners)
    expected = flow.distribution_for((4 * size, 4 * size, 1)).bijector.forward(z)
    np.testing.assert_allclose(images, np.clip(expected, 0, 1), atol=1e-4)


def test_a_picture_among_known_images(explored, flow, known):
    scored = explored.score(known.images[5])
    bits = flow.bits_per_dim(known.images).numpy()
    assert scored.bits == pytest.approx(bits[5], abs=1e-4)
    assert scored.share == pytest.approx(np.mean(bits < bits[5]), abs=0.04)
    np.testing.assert_allclose(scored.image, (known.images[5] + 0.5) / LEVELS, rtol=1e-6)
    assert scored.error < 1e-3 and scored.classes is None
    np.testing.assert_allclose(scored.reconstruction, scored.image, atol=1e-3)
    # The nearest one is the picture itself.
    np.testing.assert_array_equal(scored.neighbours[0], scored.image)
    assert scored.distances[0] == 0 and np.all(np.diff(scored.distances) >= 0)


def test_a_file_is_read_as_the_model_sees_it(explored, tmp_path):
    Image.fromarray(np.full([40, 60], 255, "uint8")).save(tmp_path / "white.png")
    np.testing.assert_array_equal(explored.read(tmp_path / "white.png"), np.full([4, 4, 1], 16))


def test_without_known_images_there_are_samples(flow):
    explored = Images(flow)
    assert explored.known.images.dtype == np.uint8 and explored.known.images.max() < LEVELS
    assert "samples of the model" in explored.known.source
    assert explored.bits.shape == (len(explored.known.images),)


def test_classes(tiny_model, known):
    flow = tiny_model((4, 4, 1), levels=LEVELS, num_classes=3, label_dropout=0.1)
    explored = Images(flow, known)
    assert explored.labels == [None, 0, 1, 2]
    images = [explored.between(Corners(label=y, known=False), 0.5, 0.5) for y in explored.labels]
    assert len({image.tobytes() for image in images}) == 4
    scored = explored.score(known.images[0])
    np.testing.assert_allclose(scored.classes, flow.classify(known.images[:1])[0], atol=1e-5)
    assert scored.bits == pytest.approx(float(flow.bits_per_dim(known.images[:1])[0]), abs=1e-4)


def test_classes_without_p_of_x(tiny_model, known):
    flow = tiny_model((4, 4, 1), levels=LEVELS, num_classes=3)
    explored = Images(flow, known)
    assert explored.labels == [0, 1, 2]
    mean = np.mean([np.exp(flow.log_prob(known.images[:1], y)) for y in range(3)])
    expected = -np.log2(mean) / 16 + np.log2(LEVELS)
    assert explored.score(known.images[0]).bits == pytest.approx(expected, abs=1e-4)
    assert Images(flow).bits.shape == (200,)


def test_labels_that_are_vectors_are_refused(tiny_model, refuses):
    refuses(Images, tiny_model((4, 4, 1), context_size=2), match="float vectors of 2 as labels")
