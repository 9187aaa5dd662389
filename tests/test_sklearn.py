"""`FlowDensity`: scikit-learn's checks and manners, and what it says of tables."""

import pickle

import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, ShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import tfnvp
from tfnvp.models import fitting
from tfnvp.sklearn import FlowDensity

# The smallest flow that can learn.
SMALL = {"num_couplings": 2, "hidden_units": (8,), "random_state": 0}


@pytest.fixture
def few_steps(monkeypatch):
    """Fits as short as can be, for what asks for manners alone: graphs would take most of it."""
    monkeypatch.setattr(fitting, "default_steps", lambda rows: 1)
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.usefixtures("few_steps")
@parametrize_with_checks([FlowDensity(num_couplings=1, hidden_units=(4,))])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def _wine():
    return sklearn.datasets.load_wine().data


@pytest.fixture(scope="module")
def fitted():
    return FlowDensity(**SMALL).fit(_wine())


def test_the_model_is_a_keras_model_of_the_datas_units(fitted):
    assert isinstance(fitted.model_, tfnvp.VectorRealNVP)
    scores = fitted.score_samples(_wine())
    np.testing.assert_allclose(scores, fitted.model_.log_prob(_wine()), rtol=1e-4, atol=1e-3)
    assert fitted.score(_wine()) == pytest.approx(scores.mean())
    # It has learned more than the means and the scales.
    x = (_wine() - _wine().mean(axis=0)) / _wine().std(axis=0)
    normal = -0.5 * (x**2 + np.log(2 * np.pi)).sum(axis=1) - np.log(_wine().std(axis=0)).sum()
    assert scores.mean() > normal.mean() + 1


def test_contamination_is_the_share_of_unusual_training_rows(fitted):
    assert np.mean(fitted.predict(_wine()) == -1) == pytest.approx(0.1, abs=1 / 178)
    far = _wine()[:5] + 20 * _wine().std(axis=0)
    assert np.all(fitted.predict(far) == -1) and np.all(fitted.decision_function(far) < 0)


def test_p_values_are_ranks_among_rows_held_out(fitted):
    held_out = fitted.held_out_unusualness_
    assert len(held_out) == len(fitted.held_out_scores_) == 17
    found = fitted.unusualness(_wine())
    assert np.all(np.isin(held_out, found)) and np.all(np.diff(held_out) >= 0)
    expected = [(1 + np.sum(held_out >= row)) / 18 for row in found]
    np.testing.assert_allclose(fitted.p_values(_wine()), expected)
    assert fitted.p_values(_wine()[:1] + 1e4)[0] == pytest.approx(1 / 18)


def test_unusualness_outranks_log_p_where_a_value_repeats():
    """One column of the unusual rows has the common value, which alone makes them likely."""
    random = np.random.RandomState(0)
    x = random.normal(size=(600, 3))
    x[random.uniform(size=600) < 0.5, 0] = 0
    usual, train = x[:200], x[200:]
    unusual = random.normal(size=(100, 3))
    unusual[:, 0], unusual[:, 1] = 0, unusual[:, 1] + 3
    density = FlowDensity(2, (16,), random_state=0).fit(train)
    rows, labels = np.concatenate([usual, unusual]), np.repeat([0, 1], [200, 100])
    found = roc_auc_score(labels, density.unusualness(rows))
    by_density = roc_auc_score(labels, -density.score_samples(rows))
    assert found > by_density + 0.1, by_density
    assert found > 0.8


def test_explanations_name_the_column_that_was_changed(fitted):
    x = _wine()[:13].copy()
    x[np.arange(13), np.arange(13)] += 8 * x.std(axis=0)[0] + 8 * _wine().std(axis=0)
    found = fitted.explain(x)
    assert found.shape == (13, 13)
    assert np.mean(found.argmax(axis=1) == np.arange(13)) > 0.8


def test_explanations_of_many_rows_are_those_of_chunks(fitted, monkeypatch):
    """Memory stays the same however many rows there are."""
    whole, counts = fitted.explain(_wine()[:7], draws=5), []
    scores = FlowDensity._scores
    monkeypatch.setattr(
        FlowDensity, "_scores", lambda self, X: counts.append(len(X)) or scores(self, X)
    )
    monkeypatch.setattr(tfnvp.sklearn, "_CHANGED", 12)
    np.testing.assert_array_equal(fitted.explain(_wine()[:7], draws=5), whole)
    assert max(counts) == 10


def test_samples_come_again_and_are_like_the_data(fitted):
    samples = fitted.sample(300, random_state=1)
    np.testing.assert_array_equal(samples, fitted.sample(300, random_state=1))
    assert samples.shape == (300, 13)
    off = np.median(samples, axis=0) - np.median(_wine(), axis=0)
    assert np.all(np.abs(off) < _wine().std(axis=0))


@pytest.mark.usefixtures("few_steps")
def test_the_same_random_state_gives_the_same_density():
    one = FlowDensity(**SMALL).fit(_wine())
    again = clone(one).fit(_wine())
    np.testing.assert_array_equal(again.score_samples(_wine()), one.score_samples(_wine()))


def test_is_pickled_whole(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.score_samples(_wine()), fitted.score_samples(_wine()))
    np.testing.assert_array_equal(again.predict(_wine()), fitted.predict(_wine()))


@pytest.mark.usefixtures("few_steps")
def test_works_where_scikit_learn_puts_estimators():
    x = _wine()[::2]
    pipeline = make_pipeline(StandardScaler(), FlowDensity(**SMALL)).fit(x)
    assert pipeline.score_samples(x).shape == (len(x),)
    assert np.all(np.isfinite(cross_val_score(FlowDensity(**SMALL), x, cv=2)))
    once = ShuffleSplit(1, test_size=0.2, random_state=0)
    search = GridSearchCV(FlowDensity(**SMALL), {"dropout": [0.0, 0.5]}, cv=once).fit(x)
    assert search.best_estimator_.dropout in (0.0, 0.5)


@pytest.mark.usefixtures("few_steps")
def test_couplings_have_splines_where_asked():
    x = _wine()[:60]
    affine, bent = (FlowDensity(**SMALL, spline_bins=bins).fit(x) for bins in (0, 4))
    kinds = [type(part).__name__ for part in bent.model_.distribution.bijector.bijectors]
    assert kinds.count("SplineCoupling") == 2 and "AffineCoupling" not in kinds
    assert not np.allclose(affine.score_samples(x), bent.score_samples(x))
    with pytest.raises(ValueError, match=r"spline_bins must be .* got spline_bins=1"):
        FlowDensity(**SMALL, spline_bins=1).fit(x)


@pytest.mark.usefixtures("few_steps")
def test_equal_rows_count_as_one_of_their_weight():
    x = _wine()[:60]
    weights = np.arange(60) % 3
    one = FlowDensity(**SMALL).fit(x, sample_weight=weights)
    other = FlowDensity(**SMALL).fit(np.repeat(x, weights, axis=0))
    np.testing.assert_array_equal(one.score_samples(x), other.score_samples(x))


def test_names_row_and_column_of_what_is_no_number():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": [1.0, 2.0, np.nan], "height": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match="NaN in row 2, column 'age'"):
        FlowDensity(**SMALL).fit(frame)
    with pytest.raises(ValueError, match="inf in row 1, column 0"):
        FlowDensity(**SMALL).fit([[0.0, 1.0], [np.inf, 0.0]])
    with pytest.raises(ValueError, match="got inf in row 1, column 0"):
        FlowDensity(**SMALL).fit([[0.0, 1.0], [1e300, 0.0]])
    frame["age"] = ["31", "unknown", "29"]
    with pytest.raises(ValueError, match="must hold numbers, got 'unknown' in row 1, column 'age'"):
        FlowDensity(**SMALL).fit(frame)


def test_bad_arguments_are_named(fitted):
    for draws in (0, 2.5):
        with pytest.raises(
            ValueError, match=f"draws must be a positive integer, got draws={draws}"
        ):
            fitted.explain(_wine(), draws=draws)
    with pytest.raises(ValueError, match="n_samples must be a positive integer, got n_samples=0"):
        fitted.sample(0)


@pytest.mark.usefixtures("few_steps")
def test_weights_may_be_shares_of_any_sum():
    """Integers of which each row is another value's repetition are found all the same."""
    x = np.arange(200)[:, np.newaxis] % 5
    for share in (1 / 200, 1.0, 10.0):
        density = FlowDensity(**SMALL).fit(x, sample_weight=np.full(200, share))
        assert density.model_.rounding.step.numpy().tolist() == [1.0]


def test_one_column_integrates_to_one():
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(-3, 0.5, 300), random.normal(2, 1.0, 300)])[:, np.newaxis]
    density = FlowDensity(random_state=0).fit(x)
    grid = np.linspace(-60, 60, 40_001)[:, np.newaxis]
    p = np.exp(density.score_samples(grid))
    assert np.sum(p) * (grid[1, 0] - grid[0, 0]) == pytest.approx(1, abs=1e-2)
    # It has the two modes, and little between.
    near, between = (
        np.exp(density.score_samples([[-3.0], [2.0]])),
        np.exp(density.score_samples([[-0.8]])),
    )
    assert np.all(near > 3 * between)


def test_integers_get_about_their_probabilities():
    """The density of a dequantised column of integers is the probability of the value."""
    random = np.random.default_rng(0)
    x = random.binomial(4, 0.4, (2000, 1)).astype(int)
    density = FlowDensity(random_state=0).fit(x)
    values = np.arange(5)
    counts = np.bincount(x[:, 0], minlength=5) / len(x)
    p = np.exp(density.score_samples(values[:, np.newaxis]))
    np.testing.assert_allclose(p, counts, atol=0.08)


def test_a_constant_column_costs_about_nothing():
    random = np.random.default_rng(0)
    x = random.normal(size=(150, 2))
    with_seven = np.insert(x, 1, 7.0, axis=1)
    without = FlowDensity(**SMALL).fit(x).score(x)
    with_it = FlowDensity(**SMALL).fit(with_seven).score(with_seven)
    assert with_it == pytest.approx(without, abs=0.4)
