"""Between latents, scale by scale, and beside the training images."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfnvp import latent


@pytest.fixture(scope="module")
def model(tiny_model):
    """Three scales of random weights."""
    return tiny_model((8, 8, 1), num_scales=3)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 16, (4, 8, 8, 1)).astype("uint8")


# Between latents.


def test_the_corners_of_the_manifold_reconstruct_the_images(model, images):
    grid = latent.interpolate(*model.encode(images), steps=3)
    assert grid.shape == (3, 3, 8, 8, 1)
    corners = tf.stack([grid[0, 0], grid[0, -1], grid[-1, 0], grid[-1, -1]])
    np.testing.assert_allclose(model.decode(corners), (images + 0.5) / 16, atol=1e-3)


def test_the_manifold_is_the_papers():
    z = np.random.default_rng(0).normal(size=(4, 5))
    expected = [
        [
            math.cos(p) * (math.cos(q) * z[0] + math.sin(q) * z[1])
            + math.sin(p) * (math.cos(q) * z[2] + math.sin(q) * z[3])
            for q in np.arange(8) * math.pi / 4
        ]
        for p in np.arange(8) * math.pi / 4
    ]
    np.testing.assert_allclose(latent.interpolate(*z, full_circle=True), expected, atol=1e-12)
    quarter = latent.interpolate(*z, steps=3)
    np.testing.assert_allclose(quarter[1, 1], np.array(expected)[1, 1], atol=1e-12)


def test_slerp_keeps_the_length_and_an_even_pace():
    z1, z2 = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 2)))[0].T
    z2 = 0.5 * z1 + math.sqrt(0.75) * z2  # 60 degrees from z1
    z = latent.slerp(z1.reshape(2, 3), z2.reshape(2, 3), steps=5).numpy().reshape(5, 6)
    np.testing.assert_allclose([z[0], z[-1]], [z1, z2], atol=1e-12)
    np.testing.assert_allclose(z @ z1, np.cos(np.radians([0, 15, 30, 45, 60])), atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-12)


def test_slerp_between_parallel_latents_is_linear():
    np.testing.assert_allclose(latent.slerp([1.0, 1.0], [3.0, 3.0], 3), [[1, 1], [2, 2], [3, 3]])
    np.testing.assert_allclose(latent.slerp([0.0, 0.0], [2.0, 0.0], 3), [[0, 0], [1, 0], [2, 0]])


# Scale by scale.


def test_scales_are_of_the_latents_that_leave_together(model):
    """A finer scale's bijectors see neither more nor less than what coarser ones are made of."""
    z = np.arange(64, dtype="float32").reshape(1, 8, 8, 1)
    fine, middle, coarse = model.latents_by_scale(z)
    assert fine.shape == (1, 4, 4, 2) and middle.shape == coarse.shape == (1, 2, 2, 4)
    rows, columns = np.divmod(np.ravel(fine).astype(int), 8)
    assert np.all((rows + columns) % 2 == 1)
    np.testing.assert_array_equal(
        np.sort(np.concatenate(list(map(np.ravel, [fine, middle, coarse])))), np.ravel(z)
    )
    np.testing.assert_array_equal(latent.join_scales([fine, middle, coarse]), z)


def test_what_is_kept_stays_and_the_rest_is_drawn_anew(model, images, monkeypatch):
    decoded, decode = [], model.decode
    monkeypatch.setattr(model, "decode", lambda z, labels: decoded.append(z) or decode(z))
    latent.resample_scales(model, images, keep=2, seed=1)
    before = model.latents_by_scale(model.encode(images))
    after = model.latents_by_scale(decoded[0])
    np.testing.assert_allclose(after[1], before[1], atol=1e-5)
    np.testing.assert_allclose(after[2], before[2], atol=1e-5)
    assert abs(np.mean(after[0])) < 0.4 and 0.7 < np.std(after[0]) < 1.3
    assert np.mean(np.abs(after[0] - before[0]) > 0.1) > 0.8


def test_all_scales_kept_are_a_reconstruction_and_none_a_sample(model, images):
    kept = latent.resample_scales(model, images, keep=3)
    np.testing.assert_allclose(kept, (images + 0.5) / 16, atol=1e-3)
    drawn = latent.resample_scales(model, images, keep=0, seed=1)
    np.testing.assert_allclose(
        latent.resample_scales(model, 15 - images, keep=0, seed=1), drawn, atol=1e-5
    )
    np.testing.assert_allclose(
        latent.resample_scales(model, images[:2], keep=1, seed=1),
        latent.resample_scales(model, images, keep=1, seed=1)[:2],
        atol=1e-5,
    )
    cold = latent.resample_scales(model, images, keep=0, temperature=0.0)
    mean = np.clip(model.decode(np.zeros((1, 8, 8, 1))), 0, 1)
    np.testing.assert_allclose(cold, np.repeat(mean, 4, axis=0), atol=1e-5)


# Attributes and neighbours.


def test_a_direction_moves_one_mean_to_the_other():
    z = np.random.default_rng(0).normal(size=(10, 2, 3))
    has = np.arange(10) < 4
    direction = latent.attribute_direction(z, has)
    np.testing.assert_allclose(z[~has].mean(0) + direction, z[has].mean(0))


def test_the_nearest_are_those_of_the_least_distance():
    random = np.random.default_rng(0)
    images, others = random.uniform(size=(3, 4, 4, 2)), random.uniform(size=(20, 4, 4, 2))
    others[7] = images[1]
    distances = np.sqrt(((images[:, None] - others[None]) ** 2).mean(axis=(2, 3, 4)))
    index, distance = latent.nearest(images, others, count=2)
    np.testing.assert_array_equal(index, np.argsort(distances)[:, :2])
    np.testing.assert_allclose(distance, np.sort(distances)[:, :2])
    assert index[1, 0] == 7 and distance[1, 0] == 0


_Z = np.zeros((2, 2), "float32")


@pytest.mark.parametrize(
    ("function", "args", "match"),
    [
        (latent.interpolate, (_Z, _Z, _Z, _Z[:1]), r"one shape, got z1 \(2, 2\), .*z4 \(1, 2\)"),
        (latent.interpolate, (_Z, _Z, _Z, _Z, 1), "steps must be 2 or more, .*steps=1"),
        (latent.slerp, (_Z, _Z, 0), "steps must be a positive integer, got steps=0"),
        (latent.slerp, ([1.0], [-1.0]), "must not be opposite"),
        (latent.attribute_direction, (_Z, [True, True]), "true of some"),
        (latent.attribute_direction, (_Z, [1, 0]), "2 booleans, .* got dtype int64"),
        (latent.nearest, (_Z, _Z.astype("uint8")), "float dtype, got float32 and uint8"),
        (latent.nearest, (_Z, _Z[:, :1]), "same shape .*2, 1"),
        (latent.nearest, (_Z, _Z, 3), "count must be 2 at most, got count=3"),
    ],
)
def test_bad_arguments_are_named(refuses, function, args, match):
    refuses(function, *args, match=match)


def test_scales_that_are_not_there_are_refused(model, images, refuses):
    refuses(latent.resample_scales, model, images, 4, match="from 0 to 3, got keep=4")
