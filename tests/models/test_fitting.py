"""`fit_in_time`: which rows are held out, which weights stay, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf

import tfnvp
from tfnvp.models import fit_in_time
from tfnvp.models.fitting import AveragedWeights


def _data(rows=120):
    return np.random.default_rng(0).normal(size=(rows, 3))


def _model(**options):
    return tfnvp.VectorRealNVP(3, num_couplings=1, hidden_units=(4,), seed=0, **options)


def test_a_tenth_is_held_out_of_50_rows_or_more_that_count():
    x = _data()
    x[60:] = np.nan
    held_out, steps = fit_in_time(_model(), x, np.arange(120) < 60, random=0, steps=2)
    assert len(np.unique(held_out)) == 6 and held_out.max() < 60
    assert steps == 2
    held_out, _ = fit_in_time(_model(), x[:49], random=0, steps=1)
    np.testing.assert_array_equal(np.sort(held_out), np.arange(49))


def test_rows_held_out_are_neighbours_like_those_of_the_training():
    x, model = _data(), _model(kept_rows=500)
    fit_in_time(model, x, random=0, steps=1)
    assert int(model.nearest_row.kept) == len(x)
    # Each row is compared with all others, whether it was held out or not.
    x = model._standardized(x.astype("float32")).numpy()
    distance = np.sqrt(np.mean(np.square(x[:, np.newaxis] - x), axis=2))
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_allclose(model.nearest_row(tf.constant(x)), distance.min(axis=1), rtol=1e-4)


def _watched(rows):
    model, watch = _model(), AveragedWeights(_data(rows), np.ones(rows))
    watch.set_model(model)
    model.stop_training = False  # `fit` begins so.
    return model, watch, model.trainable_variables[0]


def test_the_average_that_the_rows_held_out_like_best_stays_and_training_ends():
    model, watch, variable = _watched(20)
    watch.on_epoch_end(0)
    best = [np.array(v) for v in model.trainable_variables]
    for epoch in range(1, 11):
        assert not model.stop_training
        for v in model.trainable_variables:
            v.assign_add(np.full(v.shape, 5.0))
        before = np.array(variable)
        watch.on_epoch_end(epoch)
        # Training goes on from where it was, not from the average.
        np.testing.assert_array_equal(variable, before)
    assert model.stop_training and watch.epochs == 11
    watch.on_train_end()
    for v, value in zip(model.trainable_variables, best, strict=True):
        np.testing.assert_array_equal(v, value)


def test_without_rows_held_out_the_last_average_stays():
    model, watch, variable = _watched(0)
    average = None
    for epoch in range(12):
        variable.assign(np.full(variable.shape, float(epoch)))
        watch.on_epoch_end(epoch)
        decay = min(0.7, (1 + epoch) / (5 + epoch))
        average = epoch if average is None else decay * average + (1 - decay) * epoch
    watch.on_train_end()
    np.testing.assert_allclose(variable, np.full(variable.shape, average), rtol=1e-5)
    assert not model.stop_training


def _hole():
    x = _data()
    x[7, 1] = np.nan
    return x


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"x": _data()[:, :2]}, r"shape \[batch, 3\], got \(120, 2\)"),
        ({"x": _hole()}, "must be finite, got NaN in row 7, column 1"),
        ({"x": _data(0)}, "must have rows, got none"),
        ({"sample_weight": np.ones(3)}, "one number for each row, got weights and rows 3 120"),
        ({"sample_weight": -np.ones(120)}, r"finite and 0 or more, got -1\.0"),
        ({"steps": 0}, "steps must be a positive integer or None, got steps=0"),
        ({"model": _model(num_classes=2)}, r"model must be one of p\(x\), got one of p\(x \| y\)"),
    ],
)
def test_what_cannot_be_fitted_is_named(refuses, arguments, match):
    refuses(fit_in_time, **{"model": _model(), "x": _data(), **arguments}, match=match)
