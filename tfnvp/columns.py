"""Means, spreads and steps of a table's columns, found in one pass."""

from collections.abc import Iterable, Sequence

import numpy as np

from tfnvp.types import TensorLike

# A column of more values than this counts as continuous, lest all of a large table is kept.
_MOST_VALUES = 65_536
# The share of a column's range that the flow's dtype may round off: more would show in the density.
_MOST_LOST = 0.01


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
        values: list[np.ndarray | None] = []
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
            values = values or [np.empty(0)] * x.shape[1]
            values = [_joined(old, new) for old, new in zip(values, x.T, strict=True)]
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


def _joined(known: np.ndarray | None, new: np.ndarray) -> np.ndarray | None:
    """Adds new values to the distinct ones of a column; None means that there are too many."""
    if known is None:
        return None
    values = np.union1d(known, new)
    return values if len(values) <= _MOST_VALUES else None


def _step(values: np.ndarray | None, rows: float) -> float:
    """Gives the least distance between values, where a tenth of them or more are repeated."""
    if values is not None and len(values) == 1:
        return 1.0
    if values is None or len(values) > 0.9 * rows:
        return 0.0
    return float(np.diff(values).min())
