"""Densities of tables, and what is unusual in them, in scikit-learn's manners."""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, DensityMixin, OutlierMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from tfnvp.checks import check_positive_int, is_number
from tfnvp.columns import check_finite
from tfnvp.models import VectorRealNVP, fit_in_time
from tfnvp.models.fitting import default_dropout, default_kept_rows

# Rows are scored so many at a time: matrix products of one shape round the same way, so that the
# score of a row does not depend on the rows around it.
_BLOCK = 1024
# Rows that `explain` changes and scores at a time.
_CHANGED = 16 * _BLOCK
# Rows that `explain` draws from.
_BACKGROUND = 256


class FlowDensity(OutlierMixin, DensityMixin, BaseEstimator):
    """The density of a table's rows by a Real NVP, and the rows that are unusual under it.

    Columns may be of any scale; those of integers or of rounded values are found and dequantised,
    and a constant one does not disturb the others (see `tfnvp.VectorRealNVP.adapt`). Equal rows
    count as one of the sum of their weights. A tenth of the rows is held out: training stops by
    them, and p-values rest on them.

    Args:
        num_couplings, hidden_units: the size of the flow, as in `tfnvp.VectorRealNVP`.
        dropout: probability with which training leaves out each hidden unit; None chooses it by
            the number of rows: more of fewer.
        spline_bins: bins of the splines of `tfnvp.bijectors.SplineCoupling`s, 8 say; 0 for affine
            couplings. With splines most densities are better, anomalies are found less well, and a
            fit takes more than twice the time: docs/vectors.md has by how much.
        contamination: the share of the training rows that `predict` calls unusual, in (0, 0.5].
        random_state: an integer, a `RandomState`, or None: of weights, batches and held-out rows.

    Attributes:
        model_: the fitted `tfnvp.VectorRealNVP`, with up to 4,096 of the training rows in it.
        offset_: log p below which `predict` calls a row unusual.
        held_out_scores_: log p of the rows held out, ascending, float64; of all rows where there
            are too few to hold some out.
        held_out_unusualness_: `unusualness` of the same rows, ascending.
        background_: training rows from which `explain` draws, at most 256.
        n_iter_: steps of training taken.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.

    Example:
        >>> import sklearn.datasets
        >>> from tfnvp.sklearn import FlowDensity
        >>> x = sklearn.datasets.load_wine().data
        >>> density = FlowDensity(num_couplings=2, random_state=0).fit(x)
        >>> density.score_samples(x).shape
        (178,)
    """

    _parameter_constraints: ClassVar[dict] = {
        "num_couplings": [Interval(Integral, 1, None, closed="left")],
        "hidden_units": ["array-like"],
        "dropout": [None, Interval(Real, 0, 1, closed="left")],
        "spline_bins": [Interval(Integral, 0, None, closed="left")],
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        num_couplings: int = 8,
        hidden_units: Sequence[int] = (64, 64),
        dropout: float | None = None,
        spline_bins: int = 0,
        contamination: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.num_couplings = num_couplings
        self.hidden_units = hidden_units
        self.dropout = dropout
        self.spline_bins = spline_bins
        self.contamination = contamination
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> "FlowDensity":
        """Fits the density.

        Args:
            X: [N, D], numbers; an array or a pandas frame.
            y: left aside; there for scikit-learn's pipelines.
            sample_weight: [N], 0 or more; None for equal ones.

        Returns:
            The estimator itself.

        Raises:
            ValueError: for data of a wrong shape, or NaN or infinity, naming row and column.
        """
        X = self._checked(X, reset=True)
        weights = np.ones(len(X))
        if sample_weight is not None:
            weights = _check_sample_weight(
                sample_weight, X, dtype="float64", ensure_non_negative=True
            )
        X, weights = X[weights > 0], weights[weights > 0]
        # Weights may be small shares, but there are no fewer rows than were seen.
        weights = weights * max(1.0, len(X) / weights.sum())
        # Equal rows become one, so that weights are what repetitions are.
        rows, inverse = np.unique(X, axis=0, return_inverse=True)
        weights = np.bincount(inverse.ravel(), weights)
        random = check_random_state(self.random_state)
        seed = int(random.randint(2**31 - 1))
        dropout = default_dropout(len(rows)) if self.dropout is None else self.dropout
        model = VectorRealNVP(
            X.shape[1],
            self.num_couplings,
            tuple(self.hidden_units),
            dropout=dropout,
            seed=seed,
            kept_rows=default_kept_rows(len(rows)),
            spline_bins=self.spline_bins,
        )
        held_out, self.n_iter_ = fit_in_time(model, rows, weights, random)
        self.model_ = model
        drawn = random.choice(len(rows), min(len(rows), _BACKGROUND), p=weights / weights.sum())
        self.background_ = rows[drawn]
        scores = self._scores(rows)
        self.held_out_scores_ = np.sort(scores[held_out])
        self.held_out_unusualness_ = np.sort(self._in_blocks(model.unusualness, rows[held_out]))
        self.offset_ = _quantile(scores, weights, self.contamination)
        return self

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """Computes log p of each row, [N], nats, a density in the units of the data.

        For rounded columns it is the density of the dequantised row: of a column of integers, about
        the log-probability of the value.
        """
        check_is_fitted(self)
        return self._scores(self._checked(X))

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Computes the mean of log p over the rows, nats; y is left aside."""
        return float(np.mean(self.score_samples(X)))

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Computes log p less `offset_`, [N]: negative of unusual rows."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Gives -1 for unusual rows and +1 for all others, [N]."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def unusualness(self, X: ArrayLike) -> np.ndarray:
        """Tells how unusual each row is, [N], the more the higher: best to rank anomalies by.

        It is -log p without what makes a density high where values repeat or columns nearly
        determine each other, with a part of how far the row is from the nearest other row of the
        training, see `tfnvp.VectorRealNVP.unusualness`; scikit-learn asks of `predict` and
        `decision_function` to go by log p itself.
        """
        check_is_fitted(self)
        return self._in_blocks(self.model_.unusualness, self._checked(X))

    def p_values(self, X: ArrayLike) -> np.ndarray:
        """Computes the share of held-out training rows that are as unusual as each row, [N].

        With n rows held out, of which k have as high an `unusualness`, it is (k + 1) / (n + 1): if
        X is more of the training rows' kind, it falls below any a with a probability of at most a.
        """
        found, known = self.unusualness(X), self.held_out_unusualness_
        return (1 + len(known) - np.searchsorted(known, found, side="left")) / (1 + len(known))

    def explain(self, X: ArrayLike, draws: int = 32) -> np.ndarray:
        """Tells which columns make each row unusual.

        For each column it gives how much log p of the row would rise, were the column's value one
        of the training rows': the log of the mean density over so many of their values.

        Args:
            X: [N, D].
            draws: how many values of the training rows stand in for each, 1 or more.

        Returns:
            [N, D], nats; about 0 or less where a value is usual given the rest of its row.
        """
        check_is_fitted(self)
        X = self._checked(X)
        check_positive_int("draws", draws)
        values = self.background_[:draws]
        # Chunks of rows are changed in one column at a time, so that memory does not grow with X.
        rows = max(1, _CHANGED // len(values))
        chunks = [X[i : i + rows] for i in range(0, len(X), rows)]
        return np.concatenate([self._explained(chunk, values) for chunk in chunks])

    def _explained(self, X: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Explains rows by training rows whose values stand in."""
        result = np.empty(X.shape)
        for j in range(X.shape[1]):
            changed = np.repeat(X, len(values), axis=0)
            changed[:, j] = np.tile(values[:, j], len(X))
            scores = self._scores(changed).reshape(len(X), len(values))
            result[:, j] = np.logaddexp.reduce(scores, axis=1) - math.log(len(values))
        return result - self._scores(X)[:, np.newaxis]

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Draws rows [n_samples, D] from the density, float64.

        Args:
            n_samples: how many, 1 or more.
            random_state: an integer, a `RandomState` or None.
        """
        check_is_fitted(self)
        check_positive_int("n_samples", n_samples)
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        return self.model_.sample(n_samples, seed=seed).numpy().astype("float64")

    def _checked(self, X: ArrayLike, reset: bool = False) -> np.ndarray:
        try:
            X = validate_data(self, X, dtype="float64", ensure_all_finite=False, reset=reset)
        except ValueError:
            _name_text(X)
            raise
        with np.errstate(over="ignore"):
            seen = X.astype("float32")
        check_finite(seen, names=getattr(self, "feature_names_in_", None))
        return X

    def _scores(self, X: np.ndarray) -> np.ndarray:
        """Computes log p of checked rows."""
        return self._in_blocks(self.model_.log_prob, X)

    def _in_blocks(self, function: Callable, X: np.ndarray) -> np.ndarray:
        """Computes a figure of the model for checked rows, whole blocks of them at a time."""
        # We cast to the model's dtype, for which `log_prob` is traced already.
        X = X.astype(self.model_.variable_dtype)
        rows = np.resize(X, (-(-len(X) // _BLOCK) * _BLOCK, X.shape[1]))
        found = [function(rows[i : i + _BLOCK]) for i in range(0, len(rows), _BLOCK)]
        return np.concatenate(found).astype("float64")[: len(X)]


def _name_text(X: ArrayLike) -> None:
    """Raises a ValueError that names row and column of the first text of a table that holds some.

    scikit-learn names the text alone.
    """
    names, table = getattr(X, "columns", None), np.asarray(X, object)
    if table.ndim != 2:
        return
    for (row, column), value in np.ndenumerate(table):
        if isinstance(value, str) and not is_number(value):
            name = column if names is None else repr(str(names[column]))
            raise ValueError(
                f"X must hold numbers, got {value!r} in row {row}, column {name}: encode it as "
                "numbers, or leave the column out"
            ) from None


def _quantile(scores: np.ndarray, weights: np.ndarray, share: float) -> float:
    """Gives the score below which is the share of the weight: between two, their middle."""
    order = np.argsort(scores)
    below = np.cumsum(weights[order])
    i = int(np.searchsorted(below, share * below[-1] * (1 + 1e-12), side="right"))
    last, first = scores[order[max(i - 1, 0)]], scores[order[min(i, len(order) - 1)]]
    return float((last + first) / 2)
