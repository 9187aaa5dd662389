"""Scores of unusual pictures, each computed a second way, and what their p-values promise."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from PIL import Image

import tfnvp
from tfnvp import anomaly
from tfnvp.bijectors import inverse_and_log_det


def gradual(count, seed, shape=(4, 4, 1)):
    """Images that get brighter from corner to corner, each at its own pace, with some noise."""
    random = np.random.default_rng(seed)
    slope = np.add.outer(np.arange(shape[0]), np.arange(shape[1]))[..., None] / 6
    images = 12 * slope * random.uniform(0.3, 1, (count, 1, 1, shape[2]))
    return np.clip(images + random.normal(0, 1, (count, *shape)), 0, 15).astype("uint8")


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model((4, 4, 1), dtype="float64")


@pytest.fixture(scope="module")
def detector(model):
    return anomaly.Detector(model, gradual(300, seed=0))


def test_bits_and_typicality_are_of_the_models_bits(model, detector):
    held_out, images = gradual(300, seed=0), gradual(7, seed=1)
    scores = detector.scores(images)
    assert tuple(scores) == anomaly.SCORES
    assert all(x.dtype == np.float64 and x.shape == (7,) for x in scores.values())
    bits = model.bits_per_dim(images).numpy()
    np.testing.assert_allclose(scores["bits_per_dim"], bits, rtol=1e-6)
    mean = model.bits_per_dim(held_out).numpy().mean()
    np.testing.assert_allclose(scores["typicality"], np.abs(bits - mean), rtol=1e-6)


def test_the_score_norm_is_that_of_finite_differences(model, detector):
    images, step = gradual(3, seed=2), 1e-6
    x = model.dequantization(tf.constant(images)).numpy()
    steps = step * np.eye(16).reshape(1, 16, 4, 4, 1)
    up, down = (
        model.log_prob((x[:, None] + sign * steps).reshape(48, 4, 4, 1)).numpy().reshape(3, 16)
        for sign in (1, -1)
    )
    norm = np.linalg.norm((up - down) / (2 * step), axis=1)
    assert norm.min() > 1 and np.ptp(norm) > 1
    np.testing.assert_allclose(detector.scores(images)["score_norm"], norm, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_png_bits_are_those_of_pillows_file(channels, tmp_path):
    """The channels of two are one below the other."""
    images = gradual(3, 0, (6, 5, channels))
    for image, bits in zip(images, anomaly.png_bits_per_dim(images), strict=True):
        if channels != 3:
            image = np.concatenate([image[..., c] for c in range(channels)])
        assert image.shape[:2] == ((6, 5) if channels != 2 else (12, 5))
        Image.fromarray(image).save(tmp_path / "x.png", optimize=True)
        assert bits == 8 * (tmp_path / "x.png").stat().st_size / (30 * channels)


def test_bits_over_png_are_the_difference(detector):
    images = gradual(5, seed=3)
    scores = detector.scores(images)
    over = scores["bits_per_dim"] - anomaly.png_bits_per_dim(images)
    np.testing.assert_allclose(scores["bits_over_png"], over, rtol=1e-12)


def test_p_values_of_images_like_those_held_out_are_uniform(detector):
    """Up to what 300 and 900 draws differ by in 1 of 100 times (Kolmogorov and Smirnov)."""
    for name, p in detector.p_values(gradual(900, seed=4)).items():
        assert p.min() >= 1 / 301 and p.max() <= 1
        share = np.arange(1, 901) / 900
        assert np.abs(np.sort(p) - share).max() < 1.63 * np.sqrt(1 / 300 + 1 / 900), name


def test_a_p_value_counts_the_images_that_are_as_unusual(detector):
    held_out, images = gradual(300, seed=0), gradual(20, seed=5)
    for name in ("bits_per_dim", "bits_over_png", "score_norm"):
        known, found = detector.scores(held_out)[name], detector.scores(images)[name]
        # Among the images are two held out, which are as unusual as themselves, and extremes.
        found = np.concatenate([found, known[[3, 8]], [known.max() + 1, np.inf, -np.inf]])
        by_hand = [(1 + np.sum(known >= value)) / 301 for value in found]
        np.testing.assert_allclose(detector.calibrated({name: found})[name], by_hand)


def test_each_held_out_image_is_compared_with_the_others(model):
    """And not with itself among them, to which it is nearer than another picture can expect to be.

    The detector of all but one gives that one's distances; there the p-values of all step down.
    """
    held_out = gradual(12, seed=6)
    detector = anomaly.Detector(model, held_out)
    for i in (0, 7):
        others = anomaly.Detector(model, np.delete(held_out, i, axis=0))
        alone = others.scores(held_out[i : i + 1])
        for name in ("typicality", "joint"):
            around = {name: alone[name] * np.array([1 - 1e-6, 1 + 1e-6])}
            below, above = detector.calibrated(around)[name]
            assert below - above == pytest.approx(1 / 13), name


def test_the_joint_score_is_the_distance_of_three_figures(model, detector):
    held_out, images = gradual(300, seed=0), gradual(9, seed=8)

    def figures(images):
        x = model.dequantization(tf.constant(images))
        z = inverse_and_log_det(model.distribution.bijector, x)[0].numpy().reshape(len(images), -1)
        norm = detector.scores(images)["score_norm"]
        bits = model.bits_per_dim(images).numpy()
        return np.stack([bits, np.log(norm), np.log(np.linalg.norm(z, axis=1))], axis=1)

    usual = figures(held_out)
    precision = np.linalg.inv(np.cov(usual.T))
    expected = [(f - usual.mean(0)) @ precision @ (f - usual.mean(0)) for f in figures(images)]
    np.testing.assert_allclose(detector.scores(images)["joint"], expected, rtol=1e-4)


def test_images_are_scored_a_few_at_a_time(detector, model, monkeypatch):
    images = gradual(8, seed=7)
    whole, maps = detector.scores(images), anomaly.latent_map(model, images)
    monkeypatch.setattr(anomaly, "_ROWS", 3)
    for name, values in detector.scores(images).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-9)
    np.testing.assert_allclose(anomaly.latent_map(model, images), maps, rtol=1e-5)


@pytest.mark.parametrize("labels", [None, 2, [0, 1, 2, 1, 0]])
def test_a_map_and_the_log_det_are_log_p(labels, tiny_model):
    options = {"num_classes": 3, "label_dropout": 0.1, "conditional_base": True}
    model = tiny_model((4, 4, 2), num_scales=2, dtype="float64", **options)
    images = gradual(5, 0, (4, 4, 2))
    found = anomaly.latent_map(model, images, labels)
    assert found.shape == (5, 4, 4) and found.dtype == np.float32
    # The middle of each level stands for it.
    x = (images + 0.5) / 16
    rows = np.broadcast_to(labels, 5) if labels is not None else None
    flow = model.distribution_for(labels=rows)
    z, log_det = inverse_and_log_det(flow.bijector, tf.constant(x))
    np.testing.assert_allclose(
        found.sum(axis=(1, 2)) + log_det, model.log_prob(x, labels), rtol=1e-5
    )
    # By position: it is the sum over channels of the normal density about the base's mean.
    mean = model.base_mean(model.label_encoding(rows)) if labels is not None else 0
    if labels is not None:
        normal = tfp.distributions.Normal(tf.reshape(mean, [5, 1, 1, 2]), tf.ones([], "float64"))
        np.testing.assert_allclose(found, tf.reduce_sum(normal.log_prob(z), -1), rtol=1e-5)


def test_labels_are_those_of_the_model(tiny_model, refuses):
    model = tiny_model((4, 4, 1), num_classes=3, label_dropout=0.1)
    held_out, images = gradual(20, seed=0), gradual(6, seed=1)
    given = anomaly.Detector(model, held_out, np.arange(20) % 3)
    labels = [0, 1, 2, 2, 1, 0]
    bits = given.scores(images, labels)["bits_per_dim"]
    np.testing.assert_allclose(bits, model.bits_per_dim(images, labels), rtol=1e-5)
    one_for_all = given.scores(images, 1)["bits_per_dim"]
    np.testing.assert_allclose(one_for_all, model.bits_per_dim(images, [1] * 6), rtol=1e-5)
    refuses(given.scores, images, match="labels must be as those of held_out, which had labels")
    refuses(given.scores, images, [3] * 6, match=r"labels must be 0\.\.2, or -1 for p\(x\), got 3")
    alone = anomaly.Detector(model, held_out)
    np.testing.assert_allclose(
        alone.scores(images)["bits_per_dim"], model.bits_per_dim(images), rtol=1e-5
    )
    refuses(alone.scores, images, labels, match="which had no labels")
    refuses(anomaly.Detector, model, held_out, [1, 2], match=r"labels must have the shape \[20\]")


def test_a_density_that_overflows_is_beyond_all_others(tiny_model, refuses):
    model, images = tiny_model((4, 4, 1)), gradual(12, seed=0)
    detector = anomaly.Detector(model, images)
    for variable in model.trainable_variables:
        variable.assign(1e20 * variable)
    assert not np.isfinite(model.bits_per_dim(images)).any()
    scores = detector.scores(images)
    assert np.all(scores["joint"] == np.inf) and np.all(scores["bits_per_dim"] == np.inf)
    assert np.all(detector.calibrated(scores)["joint"] == 1 / 13)
    refuses(anomaly.Detector, model, images, match="finite densities, and image 0 has none")


def test_what_cannot_be_scored_is_named(model, detector, refuses):
    images = gradual(3, seed=0)
    refuses(detector.scores, images / 16, match=r"images must be uint8 .* got float64 \[3, 4, 4, 1")
    refuses(detector.scores, images[:0], match=r"N > 0, got uint8 \[0, 4, 4, 1\]")
    refuses(detector.scores, images[0], match=r"got uint8 \[4, 4, 1\]")
    refuses(detector.scores, images[:, :2], match=r"must have the shape \[batch, 4, 4, 1\]")
    refuses(detector.scores, images + 16, match=r"values 0\.\.15")
    refuses(anomaly.Detector, model, images[:1], match="held_out must be ten images or more, got 1")
    refuses(anomaly.latent_map, model, images[:0], match="images must be one or more, got none")
    vectors = tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=(4,))
    refuses(anomaly.Detector, vectors, images, match="an ImageRealNVP, got a VectorRealNVP")
