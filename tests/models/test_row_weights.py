"""Weights of rows: a row of weight 2 is two of it, one of weight 0 is left out."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.few_couplings import FewCouplings

import tfnvp

pytestmark = pytest.mark.filterwarnings("ignore:.*shuffle=True")
WEIGHTS = np.array([1.0, 0.0, 2.0, 3.0, 0.0, 1.0])
REPEATS = WEIGHTS.astype(int)
LABELS = np.arange(6) % 3


def _images(**options):
    sizes = {"num_scales": 1, "filters": 4, "residual_blocks": 1, "levels": 16}
    return FewCouplings((4, 4, 1), **sizes, **options)


def _vectors(size=3, **options):
    return tfnvp.VectorRealNVP(size, num_couplings=2, hidden_units=(8,), **options)


# A model, the tolerance, and whether it takes labels.
CASES = {
    "images": (lambda: _images(dtype="float64", remat=True), 1e-9, False),
    "images, by the kernel": (_images, 2e-4, False),
    "vectors": (lambda: _vectors(dtype="float64"), 1e-9, False),
    "labelled": (lambda: _vectors(dtype="float64", num_classes=3), 1e-9, True),
}


# In float64 images take twice the time of the kernel, and vectors have the same digits.
PARAMS = [pytest.param(name, marks=[pytest.mark.slow] * (name == "images")) for name in CASES]


@pytest.fixture(scope="module", params=PARAMS)
def case(request, randomize):
    """A function that trains a model from the same start, the rows, and the tolerance.

    Its batches are of all rows.
    """
    make, tolerance, labelled = CASES[request.param]
    model = make()
    model.compile(optimizer=keras.optimizers.SGD(0.1, global_clipnorm=0.5))
    shape = (4, 4, 1) if "images" in request.param else (3,)
    x = np.random.default_rng(0).uniform(0.05, 0.95, (6, *shape))

    def train(x, y, *w):  # weights, or none
        randomize(model)
        data = tf.data.Dataset.from_tensors((x, y if labelled else None, *w))
        validation = None if w and not np.any(w) else data
        options = {"epochs": 4, "verbose": 0, "shuffle": False}
        history = model.fit(data, validation_data=validation, **options).history
        return history, [value.numpy() for value in model.weights if "seed" not in value.path]

    return train, x, tolerance


def _compare(one, other, tolerance):
    for key, values in one[0].items():
        np.testing.assert_allclose(other[0][key], values, rtol=tolerance)
    one, other = (np.concatenate([*map(np.ravel, run[1])]) for run in (one, other))
    assert np.linalg.norm(one - other) <= tolerance * np.linalg.norm(one)


def test_a_weight_is_that_many_rows(case):
    """In loss, metrics, gradients, batch statistics and validation."""
    train, x, tolerance = case
    weighted = train(x, LABELS, WEIGHTS)
    repeated = train(*(np.repeat(part, REPEATS, axis=0) for part in (x, LABELS)))
    _compare(repeated, weighted, tolerance)
    assert weighted[0]["loss"][-1] < weighted[0]["loss"][0]
    # Rows and labels that are left out may be anything.
    bad, unknown = x.copy(), np.where(WEIGHTS == 0, 99, LABELS)
    bad[WEIGHTS == 0] = np.nan
    _compare(train(bad, unknown, WEIGHTS), weighted, 1e-12)


def test_weights_say_how_much_not_how_many(case):
    train, x, tolerance = case
    _compare(train(x, LABELS, WEIGHTS / 700), train(x, LABELS, WEIGHTS), tolerance)


def test_where_no_row_counts_nothing_is_learned(case):
    """The penalty alone has a gradient; no average moves, and nothing turns NaN."""
    train, x, _ = case
    history, weights = train(np.full_like(x, np.nan), LABELS, np.zeros(6))
    assert history["bits_per_dim"] == [0] * 4
    assert all(np.isfinite(value).all() for value in weights)


@pytest.fixture(scope="module")
def model(randomize):
    """A model that does not move, and its bits per dimension of the data."""
    model = randomize(_vectors())
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    x = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    return model, x, model.bits_per_dim(x).numpy()


def test_arrays_have_weights(model):
    """Without labels, where Keras forgets them, also in batches, and on a single batch."""
    model, x, bits = model
    mean = np.average(bits, weights=WEIGHTS)
    other = np.average(bits, weights=WEIGHTS[::-1])
    history = model.fit(
        x, sample_weight=WEIGHTS, batch_size=4, verbose=0,
        validation_data=(x, None, WEIGHTS[::-1]),
    ).history  # fmt: skip
    np.testing.assert_allclose(history["loss"], [mean], rtol=1e-5)
    np.testing.assert_allclose(history["val_bits_per_dim"], [other], rtol=1e-5)
    for weights in (WEIGHTS, WEIGHTS[:, None], WEIGHTS.astype(int), WEIGHTS.tolist()):
        evaluated = model.evaluate(x, sample_weight=np.array(weights), batch_size=4, verbose=0)
        np.testing.assert_allclose(evaluated, [mean, mean], rtol=1e-5)
    mask = model.evaluate(x, sample_weight=WEIGHTS > 0, verbose=0)
    np.testing.assert_allclose(mask[0], np.mean(bits[WEIGHTS > 0]), rtol=1e-5)
    for method in (model.train_on_batch, model.test_on_batch):
        np.testing.assert_allclose(method(x, sample_weight=WEIGHTS)[0], mean, rtol=1e-5)
    split = model.fit(x, sample_weight=WEIGHTS, validation_split=0.5, verbose=0).history
    expected = np.average(bits[3:], weights=WEIGHTS[3:])
    np.testing.assert_allclose(split["val_loss"], [expected], rtol=1e-5)


def test_data_sets_have_weights(model):
    model, x, bits = model
    for labels in (None, (), LABELS):
        data = tf.data.Dataset.from_tensor_slices((x, labels, WEIGHTS)).batch(4)
        evaluated = model.evaluate(data, verbose=0)
        np.testing.assert_allclose(evaluated[0], np.average(bits, weights=WEIGHTS), rtol=1e-5)


@pytest.mark.parametrize("kind", ["fit", "evaluate", "train_on_batch", "adapt"])
@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (-WEIGHTS, r"sample_weight must be finite and 0 or more, got -1"),
        (np.where(WEIGHTS == 2, np.nan, WEIGHTS), "sample_weight must be finite .*got nan"),
        (np.where(WEIGHTS == 2, np.inf, WEIGHTS), "sample_weight must be finite .*got inf"),
        (np.ones([6, 3]), "sample_weight must be one number for each row, got weights .* 18 6"),
        ("balanced", "sample_weight must be one number for each row, got"),
    ],
)
def test_bad_weights_are_refused(kind, weights, match, model, refuses):
    model, x, _ = model
    before = [value.numpy() for value in model.weights if "mean" not in value.path]
    options = {} if kind in ("adapt", "train_on_batch") else {"verbose": 0}
    refuses(getattr(model, kind), x, sample_weight=weights, match=match, **options)
    if kind == "adapt":
        after = [value.numpy() for value in model.weights if "mean" not in value.path]
        assert all(map(np.array_equal, before, after))


def test_weights_of_too_many_rows_are_refused(model, refuses):
    model, x, _ = model
    data = tf.data.Dataset.from_tensors((x, None, WEIGHTS[:1]))
    refuses(model.fit, data, verbose=0, match="one number for each row, got weights and rows 1 6")


def test_an_evaluation_of_nothing_is_refused(model, refuses):
    """In place of 0 bits."""
    model, x, _ = model
    refuses(
        model.evaluate, x, sample_weight=0 * WEIGHTS, verbose=0, match="row of a weight above 0"
    )


def test_adapt_weighs_rows(refuses):
    x = np.random.default_rng(0).normal(3, 2, size=(6, 3))
    repeated = np.repeat(x, REPEATS, axis=0)
    x[WEIGHTS == 0] = np.nan
    triples = tf.data.Dataset.from_tensor_slices((x, LABELS, WEIGHTS)).batch(4)
    expected = _vectors(dtype="float64")
    expected.adapt(repeated)
    for arguments in ((x, WEIGHTS), (triples,)):
        model = _vectors(dtype="float64")
        model.adapt(*arguments, steps=np.zeros(3))
        np.testing.assert_allclose(model.standardizer.mean, repeated.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(model.standardizer.scale, repeated.std(axis=0), rtol=1e-12)
        # Values that are repeated are taken for rounded, also where weights say so.
        model.adapt(*arguments)
        assert np.all(np.array(expected.rounding.step) > 0)
        np.testing.assert_array_equal(model.rounding.step, expected.rounding.step)
        np.testing.assert_allclose(
            model.standardizer.scale, expected.standardizer.scale, rtol=1e-12
        )
    refuses(model.adapt, triples, WEIGHTS, match=r"sample_weight must be None with a tf\.data")
    refuses(model.adapt, x, 0 * WEIGHTS, match="must have rows, got none of a weight above 0")


# Weights of classes.


@pytest.fixture(scope="module")
def labelled(randomize):
    model = randomize(_vectors(num_classes=3, label_dropout=0.3))
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    return model


def test_classes_have_weights(labelled):
    """A class that is not named has weight 1, and so have rows of no class; -1 is p(x)."""
    x = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    y, by_class = np.array([0, 1, 2, 2, -1, 1]), {0: 5.0, 2: np.int64(0)}
    weights = np.array([5.0, 1, 0, 0, 1, 1])
    # Label dropout is random: the same weights, by Keras' seed, give the same training.
    runs = []
    for data, options in (
        ((x, y), {"sample_weight": weights}),
        ((x, y), {"class_weight": by_class}),
        ((tf.data.Dataset.from_tensor_slices((x, y)).batch(6),), {"class_weight": by_class}),
    ):
        labelled.condition.encoding.seed_generator.state.assign([0, 1])
        history = labelled.fit(*data, verbose=0, shuffle=False, **options).history
        runs.append(history["loss"][0])
    np.testing.assert_allclose(runs[1:], runs[0], rtol=1e-6)
    labelled.condition.encoding.seed_generator.state.assign([0, 1])
    unweighted = labelled.fit(x, y, verbose=0, shuffle=False).history["loss"][0]
    assert abs(unweighted - runs[0]) > 1e-3


def test_class_weights_that_are_not_used_are_refused(labelled, model, refuses):
    model, x, _ = model
    weights = {0: 2.0}
    data = tf.data.Dataset.from_tensor_slices((x, LABELS)).batch(4)
    for one in (x, data):
        refuses(
            model.fit, one, class_weight=weights, match="class_weight must be None, .* no class"
        )
    refuses(
        model.train_on_batch,
        x,
        class_weight=weights,
        match="class_weight must be None, .* no class",
    )
    for one in (x, data.map(lambda x, y: x)):
        refuses(labelled.fit, one, class_weight=weights, match="class_weight needs labels")
    refuses(
        labelled.fit, x, LABELS, sample_weight=WEIGHTS, class_weight=weights,
        match="class_weight and sample_weight exclude each other",
    )  # fmt: skip
    for bad in ({3: 1.0}, {"a": 1.0}, {0: -1.0}, {0: np.nan}):
        refuses(labelled.fit, x, LABELS, class_weight=bad, match=r"classes 0\.\.2 to finite .*got")
    refuses(labelled.fit, x, LABELS, class_weight=[1, 0, 3], match="must be a dictionary .*1, 0, 3")
