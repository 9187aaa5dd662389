"""`VectorRealNVP.adapt` finds means and scales in data, and the steps of rounded columns."""

import numpy as np
import pytest
import tensorflow as tf

import tfnvp

SIZES = {"num_couplings": 4, "hidden_units": (8,)}


def _data(rows=20, size=5):
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, size)) * np.arange(1, size + 1) + 3
    return x.astype("float32")


@pytest.fixture(scope="module")
def model():
    model = tfnvp.VectorRealNVP(5, **SIZES)
    model.adapt(_data() + 1)
    return model


def _batched(x, *labels):
    return tf.data.Dataset.from_tensor_slices((x, *labels) if labels else x).batch(7)


@pytest.mark.parametrize(
    "data",
    [_data, lambda: _batched(_data()), lambda: _batched(_data(), np.arange(20))],
    ids=["array", "dataset", "labelled dataset"],
)
def test_adapt_takes_the_mean_and_the_standard_deviation(data):
    model, x = tfnvp.VectorRealNVP(5, **SIZES), _data()
    before = model.log_prob(x)
    model.adapt(data())
    mean, std = x.mean(axis=0, dtype="float64"), x.std(axis=0, dtype="float64")
    np.testing.assert_allclose(model.standardizer.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(model.standardizer.scale, std, rtol=1e-6)
    # All else is the identity still but for the order, and what had been compiled follows.
    z = (x - mean) / std
    np.testing.assert_allclose(np.sort(model.encode(x)), np.sort(z), rtol=1e-4, atol=1e-5)
    normal = -0.5 * np.sum(np.square(z), axis=1) - 2.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(model.log_prob(x), normal - np.log(std).sum(), rtol=1e-5)
    assert np.all(model.log_prob(x) != before)
    # In float64 to the last bits.
    double = tfnvp.VectorRealNVP(5, **SIZES, dtype="float64")
    double.adapt(data())
    np.testing.assert_allclose(double.standardizer.scale, std, rtol=1e-13)


def _hole():
    ones = np.ones((20, 5))
    ones[3, 2] = np.nan
    return ones


def _times():
    """Seconds since 1970, of one minute: float32 rounds them by 64."""
    return np.linspace(1.7e9, 1.7e9 + 60, 20)[:, np.newaxis] + np.arange(5)


BAD_TO_ADAPT = {
    "lost digits": (_times(), r"more than float32 rounds off, got column 0 .*: subtract its mean"),
    "shape": (_data(size=4), r"shape \[batch, 5\], got \(20, 4\)"),
    "dtype": (np.full((4, 5), "a"), "float dtype, got dtype string"),
    "nan": (_data() * _hole(), "data must be finite, got NaN in row 3, column 2"),
    "no rows": (_data(0), "must have rows, got none"),
    "endless": (_batched(_data()).repeat(), "must end, got a data set repeated without end"),
}


@pytest.mark.parametrize("kind", BAD_TO_ADAPT)
def test_data_that_cannot_be_adapted_to_is_refused(model, refuses, kind):
    data, match = BAD_TO_ADAPT[kind]
    before = [np.array(v) for v in (*model.standardizer.variables, model.rounding.step)]
    refuses(model.adapt, data, match=match)
    after = (*model.standardizer.variables, model.rounding.step)
    for variable, value in zip(after, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def _rounded(rows=500):
    """Columns of halves, of hundredths, of one value, and without steps; whole numbers last."""
    random = np.random.default_rng(0)
    columns = [
        random.integers(0, 9, rows) / 2,
        random.normal(0, 0.3, rows).round(2),
        np.full(rows, 4.0),
        random.normal(size=rows),
        random.integers(10**6, 10**6 + 5, rows),
    ]
    return np.stack(columns, axis=1)


def test_adapt_finds_the_steps_of_rounded_columns():
    model = tfnvp.VectorRealNVP(5, **SIZES, dtype="float64")
    x = _rounded()
    model.adapt(x)
    np.testing.assert_allclose(model.rounding.step, [0.5, 0.01, 1, 0, 1], rtol=1e-6)
    variance = x.var(axis=0) + np.square([0.5, 0.01, 1, 0, 1]) / 12
    np.testing.assert_allclose(model.standardizer.scale, np.sqrt(variance), rtol=1e-9)
    model.adapt(x, steps=[0, 0.01, 2, 0.1, 0])
    np.testing.assert_allclose(model.rounding.step, [0, 0.01, 2, 0.1, 0])


@pytest.mark.parametrize("steps", [[1, 1], [0, 0, 0, 0, -1], [0, 0, 0, 0, np.inf]])
def test_bad_steps_are_named(steps, refuses):
    model = tfnvp.VectorRealNVP(5, **SIZES)
    refuses(model.adapt, _rounded(), steps=steps, match="steps must be 5 finite numbers")


def test_training_spreads_rounded_values_over_their_cells_and_scores_do_not():
    model = tfnvp.VectorRealNVP(5, **SIZES, dtype="float64")
    x = _rounded()
    model.adapt(x)
    spread = model.continuous(tf.constant(x), training=True) - x
    step = np.array([0.5, 0.01, 1, 0, 1])
    assert np.all(np.abs(spread) <= step / 2 + 1e-9)
    np.testing.assert_allclose(np.std(spread, axis=0), step / np.sqrt(12), rtol=0.1)
    again = model.continuous(tf.constant(x), training=True) - x
    assert np.any(again != spread)
    np.testing.assert_array_equal(model.continuous(tf.constant(x)), x)


def _spiked(rows=2000):
    """Zeros in half of the rows; no common values; three values, and two that are near."""
    random = np.random.default_rng(0)
    spiked = np.where(random.uniform(size=rows) < 0.5, 0, random.exponential(size=rows).round(3))
    three = random.choice([0.0, 1.0, 400.0], rows, p=[0.8, 0.15, 0.05])
    two = random.choice([0.0, 1.0], rows, p=[0.8, 0.2])
    return np.stack([spiked, random.normal(size=rows), three, two], axis=1)


def test_cells_of_common_values_open_to_their_share_of_the_deviation():
    model, x = tfnvp.VectorRealNVP(4, **SIZES, dtype="float64"), _spiked()
    model.adapt(x)
    middle, width, opened = model.common_values.cells.numpy()
    for column, values in ((0, [0.0]), (1, []), (2, [0.0, 1.0]), (3, [])):
        count = len(values)
        np.testing.assert_array_equal(middle[column, :count], values)
        np.testing.assert_allclose(width[column, :count], model.rounding.step[column])
        shares = [np.mean(x[:, column] == value) for value in values]
        deviation = np.sqrt(x[:, column].var() + float(model.rounding.step[column]) ** 2 / 12)
        np.testing.assert_allclose(opened[column, :count], np.multiply(shares, deviation))
        np.testing.assert_array_equal(width[column, count:], opened[column, count:])
    # The rows that training sees are standardised when cells are open.
    parts = model.distribution.bijector.bijectors[:2]
    z = np.concatenate([model.continuous(tf.constant(x), training=True) for _ in range(50)])
    for part in parts:
        z = part.inverse(z)
    np.testing.assert_allclose(np.mean(z, axis=0), 0, atol=0.02)
    np.testing.assert_allclose(np.std(z, axis=0), 1, rtol=0.02)


def test_cells_that_overlap_are_not_opened():
    model = tfnvp.VectorRealNVP(4, **SIZES, dtype="float64")
    model.adapt(_spiked(), steps=[1.0, 0.0, 1.5, 2.0])
    _, width, opened = model.common_values.cells.numpy()
    np.testing.assert_array_equal(width, opened)


def _kept(count, data, weights=None):
    """The rows that a model keeps, in the units of the data."""
    model = tfnvp.VectorRealNVP(5, **SIZES, kept_rows=count, seed=0, dtype="float64")
    model.adapt(data, weights)
    kept = model.nearest_row.rows.numpy()[: int(model.nearest_row.kept)]
    return kept * model.standardizer.scale + model.standardizer.mean


def _is_among(rows, x):
    return np.isclose(rows[:, np.newaxis], x, rtol=1e-6).all(axis=2).any(axis=1)


def test_adapt_keeps_rows_of_all_batches_that_count():
    x = _data(40)
    assert len(_kept(100, np.repeat(x, 2, axis=0))) == 40, "equal rows are kept once"
    some = _kept(10, _batched(x))
    assert len(some) == 10 and np.all(_is_among(some, x))
    # Those of the last batches are as likely as those of the first.
    assert np.any(_is_among(some, x[:20])) and np.any(_is_among(some, x[20:]))
    weights = np.where(np.arange(40) < 30, 0.0, np.where(np.arange(40) < 35, 1e-9, 1.0))
    np.testing.assert_array_equal(_is_among(x[30:], _kept(10, x, weights)), True)
    np.testing.assert_array_equal(_is_among(_kept(5, x, weights), x[35:]), True)


def test_what_varies_by_rounding_alone_is_constant():
    x = _data().astype("float64")
    x[:, 1] = 0.1 * 3
    x[::2, 1] = 0.3
    assert len(np.unique(x[:, 1])) == 2
    model = tfnvp.VectorRealNVP(5, **SIZES)
    model.adapt(x)
    assert float(model.rounding.step[1]) == 1


def test_integers_are_taken_as_numbers(model):
    x = np.arange(10).reshape(2, 5)
    np.testing.assert_array_equal(model.log_prob(x), model.log_prob(x.astype("float32")))


def test_heavy_tails_stay_finite():
    x = np.random.default_rng(0).standard_cauchy((200, 5)) ** 3
    model = tfnvp.VectorRealNVP(5, **SIZES)
    model.adapt(x)
    assert np.abs(x).max() > 1e5
    assert np.all(np.isfinite(model.log_prob(x))) and np.all(np.isfinite(model.log_prob(1e6 * x)))
