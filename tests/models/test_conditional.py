"""Conditional densities p(x | y): of images and vectors, with classes and with float vectors."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.integral import integral

import tfnvp

pytestmark = pytest.mark.filterwarnings("ignore:.*shuffle=True")
CLASSES = 3
Y = np.array([0, 2, 1, 2])


def _vectors(**options):
    options = {"num_classes": CLASSES, "label_dropout": 0.3} | options
    return tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=(8,), **options)


def _data(shape, dtype="float32"):
    return np.random.default_rng(0).uniform(0.1, 0.9, (4, *shape)).astype(dtype)


@pytest.fixture(scope="module", params=["image", "vector", "vector, plain base"])
def case(request, tiny_model, randomize):
    """A model in float64 and four rows of data."""
    options = {"num_classes": CLASSES, "label_dropout": 0.3, "dtype": "float64"}
    options["conditional_base"] = "plain" not in request.param
    if request.param == "image":
        model, shape = tiny_model((2, 2, 2), **options), (2, 2, 2)
    else:
        model, shape = randomize(_vectors(**options)), (3,)
    return model, _data(shape, "float64")


with_conditional_base = pytest.mark.parametrize("case", ["image", "vector"], indirect=True)


@pytest.fixture(scope="module")
def vectors(randomize):
    model = randomize(_vectors())
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    return model


def test_the_batch_form_is_each_label_alone(case):
    model, x = case
    distribution = model.distribution_for(labels=Y)
    assert distribution.batch_shape == [4] and distribution.event_shape == x.shape[1:]
    together = model.log_prob(x, labels=Y)
    np.testing.assert_allclose(distribution.log_prob(x), together, rtol=1e-10)
    for i, label in enumerate(Y):
        alone = model.distribution_for(labels=label).log_prob(x[i])
        np.testing.assert_allclose(alone, together[i], rtol=1e-10)
    # The label matters, at every row.
    assert np.all(np.abs(model.log_prob(x, labels=(Y + 1) % CLASSES) - together) > 1e-3)
    assert distribution.sample(2, seed=(0, 1)).shape == (2, *x.shape)


def test_log_det_is_that_of_the_jacobian(case):
    model, x = case
    bijector = model.distribution_for(labels=Y).bijector
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = bijector.inverse(x)
    size = x[0].shape.num_elements()
    jacobian = np.reshape(tape.batch_jacobian(z, x), [4, size, size])
    log_det = bijector.inverse_log_det_jacobian(x, x.shape.rank - 1)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], rtol=1e-9)
    forward = bijector.forward_log_det_jacobian(tf.identity(z), x.shape.rank - 1)
    np.testing.assert_allclose(forward, -log_det, rtol=1e-9)
    np.testing.assert_allclose(bijector.forward(tf.identity(z)), x, rtol=1e-9)


def test_round_trip_and_samples_follow_the_label(case):
    model, x = case
    np.testing.assert_allclose(model.decode(model.encode(x, labels=Y), labels=Y), x, rtol=1e-9)
    samples = model.sample(4, labels=Y, seed=3)
    np.testing.assert_array_equal(model.sample(4, labels=Y, seed=3), samples)
    np.testing.assert_allclose(model.sample(2, labels=Y[:2], seed=3), samples[:2], rtol=1e-9)
    same = model.sample(4, labels=2, seed=3)
    # Both rows are of the same latents and class.
    np.testing.assert_allclose(same[1], samples[1], rtol=1e-9)
    assert np.any(np.abs(same[0] - samples[0]) > 1e-4)
    assert model.sample(0, labels=Y[:0]).shape == (0, *x.shape[1:])


def test_posterior_is_bayes_rule(case):
    model, x = case
    prior = np.array([0.5, 0.2, 0.3])
    joint = [np.exp(model.log_prob(x, labels=y)) * prior[y] for y in range(CLASSES)]
    expected = np.transpose(joint / np.sum(joint, axis=0))
    np.testing.assert_allclose(model.classify(x, prior), expected, rtol=1e-6)
    np.testing.assert_allclose(np.sum(model.classify(x), axis=1), 1, rtol=1e-9)
    np.testing.assert_allclose(model.classify(x, [1, 1, 1]), model.classify(x), rtol=1e-9)
    assert model.classify(x[:0]).shape == (0, CLASSES)


def test_no_label_is_p_of_x(case):
    model, x = case
    unlabelled = model.log_prob(x)
    np.testing.assert_allclose(model.log_prob(x, labels=-1), unlabelled, rtol=1e-10)
    np.testing.assert_allclose(model.distribution.log_prob(x), unlabelled, rtol=1e-10)
    assert model.distribution.batch_shape == []


def test_a_gradient_reaches_the_weights_of_every_label(case):
    model, x = case
    with tf.GradientTape() as tape:
        labelled = tf.reduce_sum(model(x, Y, training=False))
        loss = labelled + tf.reduce_sum(model(x, training=False))
    # A row for each class and one for "no label": the columns that the contexts multiply.
    trained = [v for v in model.trainable_variables if "context" in v.path or "hidden0" in v.path]
    kernels = [v.value for v in trained if "kernel" in v.path]
    assert len(kernels) == (4 if x.ndim == 4 else 2)
    # Over all conditioners, for in one all features that a row reaches may be rectified to zero.
    rows = [
        np.any(gradient[-CLASSES - 1 :] != 0, axis=1) for gradient in tape.gradient(loss, kernels)
    ]
    assert np.all(np.any(rows, axis=0))


def test_each_conditioner_is_evaluated_once(vectors, count_operations):
    """Also when all classes are asked for: two products a network, and two a matrix."""
    x = tf.constant(_data((3,)))
    distribution = vectors.distribution_for(labels=Y)
    assert count_operations(distribution.log_prob, x)["MatMul"] == 2 * (2 + 2)
    assert count_operations(vectors.classify, x)["MatMul"] == 2 * (2 + 2)
    sampled = count_operations(lambda: distribution.experimental_sample_and_log_prob(2))
    assert sampled["MatMul"] == 2 * (2 + 1)  # A triangular matrix is no product.


def test_label_dropout_leaves_out_labels_in_training():
    encoding = tfnvp.layers.LabelEncoding(num_classes=CLASSES, dropout=0.3, seed=0)
    labels = tf.constant(np.tile(Y, 500))
    context = encoding(labels, training=True)
    np.testing.assert_array_equal(np.sum(context, axis=1), 1)
    assert abs(np.mean(context[:, -1]) - 0.3) < 0.05
    kept = context[:, -1] == 0
    np.testing.assert_array_equal(np.argmax(context, axis=1)[kept], labels[kept])
    assert np.any(encoding(labels, training=True) != context)
    np.testing.assert_array_equal(encoding(labels)[:, -1], 0)
    np.testing.assert_array_equal(encoding(tf.constant(-1)), encoding.no_label())


def test_fit_learns_both_densities():
    """Two classes two apart, of unit variance: the label is worth about 0.3 bits."""
    keras.utils.set_random_seed(0)
    model = tfnvp.VectorRealNVP(2, 4, (16,), num_classes=2, label_dropout=0.2)
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 2000)
    x = (random.normal(size=(2000, 2)) + 4.0 * y[:, None]).astype("float32")
    model.compile(optimizer=tfnvp.optimizers.Adam(1e-2))
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(100)
    model.fit(data, epochs=10, verbose=0)
    evaluated = model.evaluate(data, verbose=0, return_dict=True)["bits_per_dim"]
    np.testing.assert_allclose(evaluated, np.mean(model.bits_per_dim(x, labels=y)), rtol=1e-4)
    assert evaluated < np.mean(model.bits_per_dim(x)) - 0.3
    assert np.mean(np.argmax(model.classify(x), axis=1) == y) > 0.98
    np.testing.assert_allclose(model.predict(data, verbose=0), model.log_prob(x, y), rtol=1e-4)


def test_saved_whole_it_scores_the_same_to_the_bit(case, tmp_path):
    model, x = case
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.get_config() == model.get_config()
    np.testing.assert_array_equal(again.log_prob(x, labels=Y), model.log_prob(x, labels=Y))
    np.testing.assert_array_equal(again.classify(x), model.classify(x))


# The mean of the base distribution.


def _mean(model, y):
    """The mean of the latents of classes y, by hand: [..., C], with which events broadcast."""
    means = model.base_mean.kernel.numpy()[y]  # -1, no label, has the last row
    return means if means.shape[-1] == 3 else means[..., None, None, :]


@with_conditional_base
def test_the_density_is_about_the_labels_mean(case):
    model, x = case
    for labels, y in ((Y, Y), (None, np.int64(-1))):
        flow = model.distribution_for(labels=labels).bijector
        z = flow.inverse(x) - _mean(model, y)
        normal = np.reshape(-0.5 * z**2 - 0.5 * np.log(2 * np.pi), (len(x), -1)).sum(axis=1)
        by_hand = normal + flow.inverse_log_det_jacobian(tf.identity(x), x.ndim - 1)
        np.testing.assert_allclose(model.log_prob(x, labels=labels), by_hand, rtol=1e-9)
    # The mean matters.
    assert np.abs(_mean(model, 0) - _mean(model, 1)).max() > 0.1


@with_conditional_base
def test_samples_are_about_the_labels_mean(case):
    """Temperature scales the distance from it; at 0 it is decoded itself."""
    model, x = case

    def decoded(z, labels=None):
        decoded = model.decode(z, labels=labels)
        return np.clip(decoded, 0, 1) if x.ndim == 4 else decoded

    mean = np.broadcast_to(_mean(model, Y), x.shape)
    np.testing.assert_allclose(model.distribution_for(labels=Y).distribution.mean(), mean)
    cold = model.sample(4, labels=Y, temperature=0.0)
    np.testing.assert_allclose(cold, decoded(mean, Y), rtol=1e-9)
    unlabelled = np.broadcast_to(_mean(model, -1), x.shape)
    cold = model.sample(4, temperature=0.0)
    np.testing.assert_allclose(cold, decoded(unlabelled), rtol=1e-9)
    # The unlabelled base, too, has this noise for this seed.
    noise = model.flow.distribution.sample(4, seed=tf.constant([0, 1]))
    half = model.sample(4, labels=Y, temperature=0.5, seed=1)
    np.testing.assert_allclose(half, decoded(mean + 0.5 * noise, Y), rtol=1e-9)
    if x.ndim == 4:
        larger = model.distribution_for(image_shape=(4, 6, 2), labels=Y).distribution.mean()
        np.testing.assert_allclose(larger, np.broadcast_to(_mean(model, Y), (4, 4, 6, 2)))
    else:
        of_one = model.distribution_for(labels=1)
        z = of_one.bijector.inverse(of_one.sample(500, seed=(0, 1))) - _mean(model, 1)
        assert np.abs(np.mean(z, axis=0)).max() < 0.15 and abs(np.std(z) - 1) < 0.05


@with_conditional_base
def test_a_conditional_base_starts_as_none_and_is_the_models_own(case, identities):
    model, x = case
    fresh = type(model).from_config(model.get_config())
    np.testing.assert_array_equal(fresh.base_mean.kernel, 0)
    assert fresh.base_mean.kernel.shape == (CLASSES + 1, x.shape[-1])
    trainable = sorted(identities(model.trainable_variables))
    for labels in (Y, None):
        distribution = model.distribution_for(labels=labels)
        assert sorted(identities(distribution.trainable_variables)) == trainable


def test_each_density_about_its_mean_integrates_to_one(randomize):
    model = randomize(tfnvp.VectorRealNVP(2, 2, (8,), num_classes=2, conditional_base=True))
    for label in range(2):
        assert abs(integral(model, labels=label) - 1) < 1e-2


@pytest.mark.slow
def test_fit_learns_the_means():
    """Where couplings may not, and without label dropout."""
    keras.utils.set_random_seed(0)
    model = tfnvp.VectorRealNVP(2, 2, (4,), num_classes=2, conditional_base=True)
    model.compile(optimizer=tfnvp.optimizers.Adam(0.05))
    for layer in model._flow_layers:
        layer.trainable = False
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 1000)
    x = random.normal(size=(1000, 2)) + np.where(y[:, None], [3.0, 0.0], [0.0, -2.0])
    data = tf.data.Dataset.from_tensor_slices((x.astype("float32"), y)).batch(100)
    model.fit(data, epochs=20, verbose=0)
    # The matrices put the dimensions in another order.
    latents = np.array(model.encode(x, labels=y))
    means = [latents[y == label].mean(axis=0) for label in range(2)]
    np.testing.assert_allclose(model.base_mean.kernel, means, atol=0.15)
    assert np.abs(means).max() > 2


def test_float_vectors_as_labels(randomize, refuses):
    model = randomize(_vectors(num_classes=None, context_size=2, label_dropout=0.0))
    x, y = _data((3,)), np.random.default_rng(1).normal(size=(4, 2)).astype("float32")
    together = model.log_prob(x, labels=y)
    np.testing.assert_allclose(model.log_prob(x[2:3], labels=y[2]), together[2:3], rtol=1e-5)
    assert np.all(np.abs(model.log_prob(x, labels=y + 1) - together) > 1e-4)
    refuses(model.log_prob, x, labels=y[:, :1], match=r"floats \[\.\.\., 2\], got float32")
    refuses(model.classify, x, match="classify needs a model with num_classes")
    refuses(model.log_prob, x, match="labels must be given, .* no label_dropout")


@pytest.mark.parametrize("options", [{"remat": True}, {"dtype": "mixed_bfloat16"}], ids=str)
def test_a_network_in_a_graph_sees_its_context(options, randomize):
    """Rematerialised, its gradient too; in bfloat16 to its precision."""
    x, context = _data((2, 2, 1)), tf.one_hot(Y, CLASSES)
    layer = tfnvp.layers.ResidualNetwork(1, 4, 1, **options)
    layer.build(x.shape, context.shape)
    randomize(layer)

    def run():
        with tf.GradientTape() as tape:
            y = layer(x, context, training=True)
        return y, tape.gradient(y, [v.value for v in layer.trainable_variables])

    tolerance = 1e-4 if "remat" in options else 0.1
    expected, found = (tf.nest.flatten(f()) for f in (run, tf.function(run)))
    np.testing.assert_allclose(found[0], expected[0], rtol=tolerance, atol=tolerance)
    for gradient, value in zip(found[1:], expected[1:], strict=True):
        scale = 1 + np.abs(value).max()
        np.testing.assert_allclose(gradient / scale, value / scale, atol=tolerance)


def test_bad_labels_are_refused(vectors, refuses):
    x = _data((3,))
    out_of_range = r"labels must be 0\.\.2, or -1 for p\(x\), got 3"
    refuses(vectors.log_prob, x, labels=Y + 1, match=out_of_range)
    refuses(vectors.distribution_for, [3], match=out_of_range)
    refuses(vectors.sample, 4, labels=Y + 1, match=out_of_range)
    refuses(vectors.fit, x, Y + 1, verbose=0, match=out_of_range)
    refuses(vectors.log_prob, x, labels=Y[:3], match=r"shape \[4\], one for each row, got \(3,\)")
    refuses(vectors.log_prob, x, labels=Y / 2, match=r"integers 0\.\.2, got dtype float64")
    refuses(vectors.classify, x, prior=[1, -1, 1], match="prior must be 3 numbers of 0 or more")
    strict = _vectors(label_dropout=0.0)
    refuses(strict.log_prob, x, labels=Y - 1, match=r"no label_dropout to learn p\(x\), got -1")
    refuses(lambda: strict.distribution, match="labels must be given")
    strict.compile(optimizer="sgd")
    refuses(strict.fit, x, verbose=0, match="labels must be given")
    plain = _vectors(num_classes=None, label_dropout=0.0)
    refuses(plain.log_prob, x, labels=Y, match="labels must be None, .*num_classes or context_size")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_classes": 0}, "num_classes must be a positive integer or None, got num_classes=0"),
        ({"context_size": 2}, "exclude each other.*num_classes=3 and context_size=2"),
        ({"label_dropout": 1.0}, r"label_dropout must be in \[0, 1\), got label_dropout=1\.0"),
        ({"num_classes": None}, "label_dropout needs num_classes or context_size"),
        (
            {"num_classes": None, "label_dropout": 0, "conditional_base": True},
            "conditional_base needs num_classes or context_size, got conditional_base=True",
        ),
    ],
)
def test_bad_arguments_are_named(refuses, arguments, match):
    refuses(_vectors, **arguments, match=match)


def test_labelled_sets(tfds_directory, monkeypatch, refuses):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_directory))
    batches = tfnvp.data.load("cifar10", batch_size=16, flip=True, labels=True)
    assert [spec.shape.as_list() for spec in batches.element_spec] == [[None, 32, 32, 3], [None]]
    images, labels = next(iter(tfnvp.data.load("digits", "test", 300, labels=True)))
    np.testing.assert_array_equal(images, next(iter(tfnvp.data.load("digits", "test", 300))))
    assert labels.dtype == tf.int64 and set(labels.numpy()) == set(range(10))
    refuses(
        tfnvp.data.load, "photos", labels=True, match="those with labels: cifar10, digits, fash"
    )
