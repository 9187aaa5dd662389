"""Means, spreads and steps of a table's columns, found in one pass."""

from collections.abc import Iterable, Sequence

import numpy as np

from tfnvp.types import TensorLike

# A column of more values than this counts as continuous, lest all of a large table is kept.
_MOST_VALUES = 65_536
# The share of a column's range that the flow's dtype may round off: more would show in the density.
_MOST_LOST = 0.01
# A value counts as common that so large a share of the rows has, and as a spike where it is so many
# times as dense as rows spread over a standard deviation.
_COMMON, _SPIKE = 0.1, 10

Values = tuple[np.ndarray, np.ndarray]


class Columns:
    """Statistics of the columns of a table that comes in batches.

    Args:
        batches: an iterable of arrays [B, D], or of pairs of one and the weights of its rows, [B],
            0 or more, or None.
        dtype: the float dtype in which the values are seen.

    Attributes:
        rows: the sum of their weights.
        mean: [D]. variance: [D].
        steps: [D], the width of the cells of columns whose values are rounded; 0 of continuous
            ones, 1 of constant ones.
        values: for each column, its distinct values, ascending, and the sums of their weights; None
            for a column of too many.

    Raises:
        ValueError: for no rows that count, for NaN or infinity in these, naming the first by its
            row and column, and for a column of which the dtype would not tell the values apart.

    Example:
        >>> import numpy as np
        >>> from tfnvp.columns import Columns
        >>> ages = np.array([[31.0], [31.0], [29.0], [29.0], [30.0], [30.0]])
        >>> Columns([ages], "float32").steps.tolist()
        [1.0]
    """

    def __init__(
        self, batches: Iterable[TensorLike | tuple[TensorLike, TensorLike | None]], dtype: str
    ) -> None:
        seen, kept, self.rows, self.mean, squares = 0, 0, 0.0, 0.0, 0.0
        rounding, low, high = 0.0, np.inf, -np.inf
        values: list[Values | None] = []
        for batch in batches:
            x, weights = batch if isinstance(batch, tuple) else (batch, None)
            given = np.asarray(x, "float64")
            # We sum up the values that the flow sees, in float64.
            with np.errstate(over="ignore"):
                x = given.astype(dtype).astype("float64")
            weights = np.ones(len(x)) if weights is None else np.asarray(weights, "float64")
            # Rows of weight 0 may hold anything.
            check_finite(np.where(weights[:, np.newaxis] > 0, x, 0), seen)
            seen += len(x)
            given, x, weights = (part[weights > 0] for part in (given, x, weights))
            kept += len(x)
            if not len(x):
                continue
            # We update as Chan, Golub and LeVeque (1983) do, so that a mean far from zero does not
            # swamp the variance.
            before, of_batch = self.rows, weights.sum()
            self.rows += of_batch
            mean = np.average(x, axis=0, weights=weights)
            off = mean - self.mean
            self.mean = self.mean + off * of_batch / self.rows
            squares = squares + weights @ (x - mean) ** 2 + off**2 * before * of_batch / self.rows
            values = values or [(np.empty(0), np.empty(0))] * x.shape[1]
            values = [_joined(old, new, weights) for old, new in zip(values, x.T, strict=True)]
            rounding = np.maximum(rounding, np.abs(given - x).max(axis=0))
            low = np.minimum(low, given.min(axis=0))
            high = np.maximum(high, given.max(axis=0))
        if not self.rows:
            raise ValueError("data to adapt to must have rows, got none of a weight above 0")
        spread = high - low
        # A column that varies in the last digits of float64 alone counts as constant.
        varies = spread > 1e-12 * np.maximum(np.abs(low), np.abs(high))
        lost = np.flatnonzero(varies & (rounding > _MOST_LOST * spread))
        if len(lost):
            j = lost[0]
            raise ValueError(
                f"data must vary by more than {dtype} rounds off, got column {j} within "
                f"{spread[j]:g} from {low[j]:.17g} on, rounded by {rounding[j]:.2g}: subtract its "
                "mean"
            )
        self.variance = squares / self.rows
        # Weights may be small shares, but there are no fewer rows than were seen.
        self.steps = np.array([_step(column, max(self.rows, kept)) for column in values])
        self.values = values

    def opened(self, steps: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Chooses the cells that a flow is to open, and how columns are with these open.

        A cell is opened of a value that is in a tenth of the rows or more, to the width of that
        share of the column's standard deviation, where it is less than a tenth of that wide.

        Args:
            steps: [D], the width of each column's cells; 0 of continuous columns.
            count: the most cells of a column.

        Returns:
            Cells [3, D, count], as `tfnvp.layers.CommonValues` has them; the mean [D] and the
            variance [D] of the columns, their values spread over cells.
        """
        mean, variance = self.mean.copy(), self.variance + steps**2 / 12
        cells = no_cells(len(mean), count)
        for j in np.flatnonzero(steps):
            values, weights = self.values[j] or (np.empty(0), np.empty(0))
            # Cells that overlap, of steps that were given, stay as they are.
            if len(values) < 2 or np.diff(values).min() < steps[j] * (1 - 1e-6):
                continue
            shares = weights / weights.sum()
            room = shares * np.sqrt(variance[j])
            common = np.sort(np.argsort(-shares, kind="stable")[:count])
            common = common[(shares >= _COMMON)[common] & (room >= _SPIKE * steps[j])[common]]
            wide = np.full(len(values), steps[j])
            wide[common] = room[common]
            widths = np.full(len(common), steps[j])
            cells[:, j, : len(common)] = values[common], widths, wide[common]
            # All that is above an opened cell moves up.
            values = values + np.cumsum(wide - steps[j]) - (wide - steps[j]) / 2
            mean[j] = shares @ values
            variance[j] = shares @ ((values - mean[j]) ** 2 + wide**2 / 12)
        return cells, mean, variance


class DrawnRows:
    """Rows drawn by their weights from a table that comes in batches, in one pass.

    Each draw is without putting back. Source: Efraimidis and Spirakis (2006), algorithm A-ES.

    Args:
        count: how many to draw, 0 or more; all where there are no more.
        seed: of the draws.

    Attributes:
        rows: [N, D], those drawn so far; None before the first batch.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.rows, self._keys, self._count = None, np.empty(0), count
        # NumPy promises to keep the streams of RandomState, not those of newer generators.
        self._random = np.random.RandomState(seed % 2**32)

    def see(self, x: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Takes a batch [B, D] with the weights of its rows, [B], into the draw."""
        weights = np.ones(len(x)) if weights is None else weights
        x, weights = x[weights > 0], weights[weights > 0]
        keys = np.concatenate([self._keys, self._random.exponential(size=len(x)) / weights])
        rows = x if self.rows is None else np.concatenate([self.rows, x])
        least = np.argsort(keys, kind="stable")[: self._count]
        self.rows, self._keys = rows[least], keys[least]


def no_cells(size: int, count: int) -> np.ndarray:
    """Makes cells [3, size, count] that stay as they are, as wide open as before."""
    return np.stack([np.zeros((size, count)), *np.ones((2, size, count))])


def check_finite(
    x: np.ndarray,
    rows_before: int = 0,
    names: Sequence[str] | None = None,
    what: object = "data",
) -> None:
    """Raises a ValueError that names row and column of the first NaN or infinity in x [B, D]."""
    wrong = np.argwhere(~np.isfinite(x))
    if len(wrong):
        row, column = (int(index) for index in wrong[0])
        value = "NaN" if np.isnan(x[row, column]) else x[row, column]
        raise ValueError(
            f"{what} must be finite, got {value} in row {rows_before + row}, column "
            f"{column if names is None else repr(str(names[column]))}"
        )


def _joined(known: Values | None, new: np.ndarray, weights: np.ndarray) -> Values | None:
    """Adds new values to the distinct ones of a column; None means that there are too many."""
    if known is None:
        return None
    values, index = np.unique(np.concatenate([known[0], new]), return_inverse=True)
    sums = np.bincount(index, np.concatenate([known[1], weights]))
    return (values, sums) if len(values) <= _MOST_VALUES else None


def _step(known: Values | None, rows: float) -> float:
    """Gives the least distance between values, where a tenth of them or more are repeated."""
    if known is None or len(known[0]) > max(1, 0.9 * rows):
        return 0.0
    return float(np.diff(known[0]).min()) if len(known[0]) > 1 else 1.0
