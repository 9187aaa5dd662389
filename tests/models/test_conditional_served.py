"""Conditional densities in SavedModels: each row has a label of its own."""

import numpy as np
import tensorflow as tf

import tfnvp

CLASSES = 3
Y = np.array([0, 2, 1, 2])


def test_served_signatures_take_a_label(randomize, tmp_path):
    model = randomize(
        tfnvp.VectorRealNVP(
            3, 2, (8,), num_classes=CLASSES, label_dropout=0.3, conditional_base=True
        )
    )
    x = tf.random.stateless_uniform((4, 3), seed=(0, 0), minval=0.1, maxval=0.9)
    served = tf.saved_model.load(str(tfnvp.export_saved_model(model, tmp_path / "served")))
    label = tf.constant(Y, tf.int64)
    log_prob = served.signatures["log_prob"](vectors=x, label=label)["log_prob"]
    np.testing.assert_allclose(log_prob, model.log_prob(x, labels=Y), rtol=1e-5)
    unlabelled = served.signatures["log_prob"](vectors=x, label=-tf.ones_like(label))["log_prob"]
    np.testing.assert_allclose(unlabelled, model.log_prob(x), rtol=1e-5)
    latents = served.signatures["encode"](vectors=x, label=label)["latents"]
    np.testing.assert_allclose(latents, model.encode(x, labels=Y), rtol=1e-4, atol=1e-5)
    again = served.signatures["decode"](latents=latents, label=label)["vectors"]
    np.testing.assert_allclose(again, x, atol=1e-5)
    cold = served.signatures["sample"](
        seed=tf.zeros([4], tf.int64), temperature=tf.zeros([4]), label=label
    )["vectors"]
    np.testing.assert_allclose(cold, model.sample(4, labels=Y, temperature=0.0), atol=1e-5)
    # A row of a wrong label is told of it, and the others are answered.
    wrong = tf.tensor_scatter_nd_update(label, [[1]], [3])
    answer = served.signatures["log_prob"](vectors=x, label=wrong)
    assert [text.decode() != "" for text in answer["error"].numpy()] == [False, True, False, False]
    assert b"label must be 0..2" in answer["error"].numpy()[1]
    expected = np.where(wrong == label, model.log_prob(x, labels=Y), np.nan)
    np.testing.assert_allclose(answer["log_prob"], expected, rtol=1e-5)


def test_served_images_of_any_size_are_about_the_labels_mean(tiny_model, tmp_path):
    model = tiny_model((2, 2, 1), num_classes=CLASSES, conditional_base=True)
    path = tfnvp.export_saved_model(model, tmp_path, ["log_prob"], image_size="any")
    score = tf.saved_model.load(str(path)).signatures["log_prob"]
    for shape in ((2, 2, 1), (4, 6, 1)):
        images = np.random.default_rng(0).integers(0, 16, (4, *shape)).astype("uint8")
        log_prob = score(images=tf.constant(images), label=tf.constant(Y, tf.int64))["log_prob"]
        distribution = model.distribution_for(shape, labels=Y)
        expected = distribution.log_prob(model.dequantization(images, training=False))
        np.testing.assert_allclose(log_prob, expected, rtol=1e-4)
