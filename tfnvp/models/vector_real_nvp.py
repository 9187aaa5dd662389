"""Real NVP for vectors: masked couplings with dense conditioners."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp.bijectors import (
    AffineCoupling,
    ElementwiseSpline,
    InvertibleConv1x1,
    LogTails,
    OpenedCells,
    SplineCoupling,
    Standardization,
)
from tfnvp.bijectors.coupling import Coupling
from tfnvp.checks import assert_all, check_positive_int, check_share, checked_spline_bins
from tfnvp.columns import Columns, DrawnRows, check_finite
from tfnvp.configured_layer import arguments
from tfnvp.distribution import FlowDistribution
from tfnvp.layers import (
    CommonValues,
    DenseNetwork,
    InvertibleMatrix,
    NearestRow,
    Rounding,
    SplineWeights,
    Standardizer,
)
from tfnvp.masks import ChannelHalves
from tfnvp.models.flow_model import FlowModel
from tfnvp.models.training_data import batches_to_adapt_to, weights_of_rows
from tfnvp.types import TensorLike

tfb, tfd = tfp.bijectors, tfp.distributions

#: A scale that is this many times larger or smaller than one counts as far from it.
_FAR = 10
#: The most that a column's curve may speak for a row in `unusualness`, nats.
_MOST_USUAL = 0.5


@keras.saving.register_keras_serializable(package="tfnvp")
class VectorRealNVP(FlowModel):
    """Real NVP of vectors [D]: exact log-likelihood, one-pass samples.

    From data to latents: the cells of common values opened (`OpenedCells`) and the standardisation,
    both as `adapt` sets them, logarithms of what is far out (`LogTails`), a learned curve for each
    column (`ElementwiseSpline`), and couplings, each after an invertible matrix, which keep
    the first and the second half of the vector in turn.
    Latents are [D], standard normal at best. A single dimension has nothing to couple: given a
    context, couplings scale and shift it by that, a curve before each; without one it is one curve.
    See `FlowModel` for training, `log_prob` (nats), `bits_per_dim` (-log2 p(x) / D), `sample`,
    `encode` and `decode`; docs/vectors.md goes through the parts. Source: Real NVP (arXiv
    1605.08803), sections 3.2 to 3.5; Glow (arXiv 1807.03039) for the matrices.

    It starts as the identity but for the order of dimensions, so that standardised data is all the
    normalisation of activations that it needs: batch normalization after each coupling, as the
    image model has it, trained worse on make_moons.

    Args:
        event_size: D, 1 or more.
        num_couplings: couplings; each changes half of the dimensions.
        hidden_units: sizes of the hidden layers of each conditioner.
        dropout: probability with which training leaves out each hidden unit, in [0, 1): for tables
            of few rows.
        seed: an integer: of the initial weights, the permutations, and what training draws; None
            draws one.
        kept_rows: the most rows that `adapt` keeps, which are saved with the model: `unusualness`
            then has a part of how far a row is from these. None keeps none.
        spline_bins: K, bins of the splines that bend what each coupling has scaled and shifted, see
            `SplineCoupling`; 0 for affine couplings.
        **kwargs: further arguments of `FlowModel`: `num_classes`, `context_size`, `label_dropout`,
            `conditional_base`, and those of `keras.Model`, such as `dtype`.

    Raises:
        ValueError: for sizes that do not fit and a dropout not in [0, 1), naming the argument.

    Example:
        >>> import sklearn.datasets, tfnvp
        >>> x = sklearn.datasets.make_moons(512, noise=0.05, random_state=0)[0]
        >>> model = tfnvp.VectorRealNVP(2)
        >>> model.adapt(x)
        >>> model.compile(optimizer="adam")
        >>> history = model.fit(x, verbose=0)
        >>> model.log_prob(x).shape
        TensorShape([512])
    """

    def __init__(
        self,
        event_size: int,
        num_couplings: int = 8,
        hidden_units: Sequence[int] = (64, 64),
        dropout: float = 0.0,
        seed: int | None = None,
        kept_rows: int | None = None,
        spline_bins: int = 0,
        **kwargs: Any,
    ) -> None:
        check_positive_int("event_size", event_size)
        check_positive_int("num_couplings", num_couplings)
        if not isinstance(hidden_units, (list, tuple)) or not hidden_units:
            raise ValueError(
                "hidden_units must be a list of positive integers, got "
                f"hidden_units={hidden_units!r}"
            )
        for units in hidden_units:
            check_positive_int("each of hidden_units", units)
        check_share("dropout", dropout)
        check_positive_int("kept_rows", kept_rows, optional=True)
        super().__init__(**kwargs)
        self._size = event_size
        self.num_couplings = num_couplings
        self.hidden_units = tuple(map(int, hidden_units))
        self.dropout = dropout
        self.kept_rows = kept_rows
        self.spline_bins = checked_spline_bins(spline_bins)
        # The seed is drawn as Keras draws its own, so that `keras.utils.set_random_seed` decides
        # it.
        self.seed = random.randint(1, 10**9) if seed is None else seed
        # The flow runs in the dtype of the variables; a policy lowers the conditioners alone.
        self.common_values = CommonValues(dtype=self.variable_dtype)
        self.standardizer = Standardizer(dtype=self.variable_dtype)
        self.rounding = Rounding(self.seed, dtype=self.variable_dtype)
        self.nearest_row = NearestRow(kept_rows, dtype=self.variable_dtype) if kept_rows else None
        for layer in (self.common_values, self.standardizer, self.rounding, self.nearest_row):
            if layer is not None:
                layer.build((None, event_size))
        self.build()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **arguments(VectorRealNVP, self)}

    def build_distribution(self) -> FlowDistribution:
        """Makes the distribution over vectors [D], in the units of the data."""
        parts = [OpenedCells(self.common_values), Standardization(self.standardizer)]
        parts += [LogTails(), self._spline()]
        for i in range(self.num_couplings):
            if self._size > 1:
                matrix = InvertibleMatrix(self.seed + i, dtype=self.variable_dtype)
                parts += [InvertibleConv1x1(matrix, event_ndims=1), self._coupling(i)]
            elif self.condition.context_shape:
                # No column stays, and the conditioner sees the context alone.
                parts += [self._coupling(i), self._spline()]
        zeros = tf.zeros([self._size], self.variable_dtype)
        base = tfd.Independent(tfd.Normal(zeros, tf.ones([], zeros.dtype)), 1)
        return FlowDistribution(base, tfb.Chain(parts, name="real_nvp"))

    def _spline(self) -> ElementwiseSpline:
        return ElementwiseSpline(SplineWeights(dtype=self.variable_dtype))

    def _coupling(self, i: int) -> Coupling:
        parity = i % 2 if self._size > 1 else 0
        first, second = self._size // 2, self._size - self._size // 2
        stays, changes = (second, first) if parity else (first, second)
        network = DenseNetwork(
            changes,
            self.hidden_units,
            dropout=self.dropout,
            seed=self.seed + 1000 * i,
            spline_bins=self.spline_bins,
            dtype=self.dtype_policy,
        )
        network.build((None, stays), self.condition.context_shape)
        coupling = SplineCoupling if self.spline_bins else AffineCoupling
        return coupling(ChannelHalves(parity, event_ndims=1), network)

    def adapt(
        self,
        data: TensorLike | tf.data.Dataset,
        sample_weight: TensorLike | None = None,
        steps: Sequence[float] | None = None,
    ) -> None:
        """Looks at the data: mean and standard deviation of each column, and steps of rounded ones.

        To be called before training, as Keras' Normalization: afterwards the same weights are
        another density. Saved with the model, in place of any before.

        A column of whose values a tenth or more are repeated is taken for rounded, to multiples of
        the least distance of two of its values: training spreads each value over a cell of that
        width (see `tfnvp.layers.Rounding`), and the density of a row is that of the dequantised row
        at the middle of its cells. A constant column counts as one of integers, so that its density
        is about that of one cell, 1, and no other column's changes.

        Args:
            data: an array [N, D], also of integers, or a finite `tf.data.Dataset` of batches
                [B, D], or of those that `fit` takes, of which labels are left aside and weights
                count.
            sample_weight: the weights of an array's rows, [N], 0 or more; None for equal ones.
            steps: the width of each column's cells, [D], 0 for a continuous column; None finds
                them.

        Raises:
            ValueError: for data of a wrong shape, without rows or without end, or with NaN or
                infinity, naming row and column; for bad weights or steps. Nothing changes then.
        """
        batches = batches_to_adapt_to(data, sample_weight)
        drawn = DrawnRows(self.kept_rows or 0, self.seed)

        def checked(x: TensorLike, _: Any, weights: TensorLike | None) -> tuple:
            x = self.check_data(x)
            weights = None if weights is None else weights_of_rows(weights, x, "float64").numpy()
            if self.kept_rows:
                drawn.see(x.numpy(), weights)
            return x, weights

        columns = Columns((checked(*batch) for batch in batches), self.variable_dtype)
        steps = columns.steps if steps is None else np.asarray(steps, "float64")
        self.rounding.set_steps(steps)
        cells, mean, variance = columns.opened(steps, self.common_values.count)
        self.common_values.take(cells)
        self.standardizer.take(mean, variance)
        self._keep(drawn)

    def keep_rows(self, x: TensorLike, sample_weight: TensorLike | None = None) -> None:
        """Keeps other rows for `unusualness` than those that `adapt` saw, up to `kept_rows`.

        Args:
            x: [N, D], in the data's units.
            sample_weight: the weights of the rows, [N], 0 or more; None for equal ones.

        Raises:
            ValueError: if the model keeps no rows; for data of a wrong shape, or with NaN or
                infinity in a row that counts; for bad weights. Nothing changes then.
        """
        if self.kept_rows is None:
            raise ValueError("the model keeps no rows: make it with kept_rows")
        x = self.check_data(x)
        weights = np.ones(len(x)) if sample_weight is None else sample_weight
        weights, x = weights_of_rows(weights, x, "float64").numpy(), x.numpy()
        check_finite(np.where(weights[:, np.newaxis] > 0, x, 0))
        drawn = DrawnRows(self.kept_rows, self.seed)
        drawn.see(x, weights)
        self._keep(drawn)

    def _keep(self, drawn: DrawnRows) -> None:
        if self.nearest_row is not None:
            rows = tf.cast(np.unique(drawn.rows, axis=0), self.variable_dtype)
            self.nearest_row.take(self._standardized(rows).numpy())

    def unusualness(self, x: TensorLike) -> tf.Tensor:
        """Tells how unusual vectors are among those of the training, the more the higher.

        It is -log p(x) with four changes. The latents count by a standard logistic density, whose
        tails are heavier than a normal one's, so that a row that is odd in many ways outranks one
        that is far out in a single latent: source, NICE (arXiv 1410.8516), section 3.4. A column's
        curve says no more than half a nat for a row, and nothing in a column with opened cells.
        The change of volume by couplings is left out. With `kept_rows` there comes D log(1 + r), r
        the root mean square difference from the nearest other row kept, in standard deviations,
        which is -log p by the nearest neighbour but for rows that are nearer than that.

        A density is high where values repeat or columns nearly determine each other, and a row
        there may be unusual all the same: this outranks -log p in finding anomalies,
        docs/vectors.md has by how much. That the volume term misleads is known from images:
        Nalisnick et al. (arXiv 1810.09136), section 4.

        Args:
            x: [B, D].

        Returns:
            [B], not a density; of the same zero for all rows of one model, not between models.

        Raises:
            ValueError: for vectors of a wrong shape or dtype, and a model of p(x | y).
        """
        if self.condition.context_shape:
            raise ValueError("unusualness is of models of p(x), this one is of p(x | y)")
        return self._run(self._unusualness, self.check_data(x))

    def _unusualness(self, x: tf.Tensor) -> tf.Tensor:
        flow = self.distribution
        opened, _, tails, spline, *couplings = flow.bijector.bijectors
        x = self._standardized(self.continuous(x))
        near = tf.zeros([], x.dtype) if self.nearest_row is None else self.nearest_row(x)
        x, log_det = tails.inverse_and_log_det(x)
        x, log_slopes = spline.inverse_and_log_slopes(x)
        _, widths, opened_widths = tf.unstack(opened.values(x))
        spiked = tf.reduce_any(opened_widths > widths, axis=-1)
        log_slopes = tf.where(spiked, 0.0, tf.minimum(log_slopes, _MOST_USUAL))
        log_det += tf.reduce_sum(log_slopes, axis=-1)
        for coupling in couplings:
            x = coupling.inverse(x)
        log_p = tfd.Logistic(tf.zeros([], x.dtype), 1.0).log_prob(x)
        return self._size * tf.math.log1p(near) - tf.reduce_sum(log_p, axis=-1) - log_det

    def _standardized(self, x: TensorLike) -> tf.Tensor:
        """Gives vectors with their cells opened, in standard deviations."""
        opened, standardization, *_ = self.distribution.bijector.bijectors
        return standardization.inverse(opened.inverse(x))

    def check_kind(self, x: Any) -> None:
        """Refuses data, or its `tf.TensorSpec`, of a wrong dtype or shape; integers are numbers."""
        dtype = getattr(x, "dtype", None)
        if dtype is not None and dtype.is_integer:
            x = tf.TensorSpec(x.shape, self.variable_dtype)
        super().check_kind(x)

    def check_data(self, x: TensorLike) -> tf.Tensor:
        """Makes a float tensor of a batch, and refuses one of a wrong dtype or shape."""
        x = super().check_data(x)
        return tf.cast(x, self.variable_dtype) if x.dtype.is_integer else x

    def doubt(self, first_rows: Callable[[], np.ndarray]) -> str | None:
        """Gives a warning where the model was not adapted to vectors of a scale far from one."""
        adapted = np.any(self.standardizer.mean) or np.any(np.not_equal(self.standardizer.scale, 1))
        if adapted or len(x := first_rows()) < 2:
            return None
        size = np.sqrt(np.mean(np.square(x, dtype="float64"), axis=0))
        spread = np.std(x, axis=0, dtype="float64")
        # A dimension that happens not to vary in some rows tells nothing of its scale.
        far = np.flatnonzero((size > _FAR) | ((spread > 0) & (spread < 1 / _FAR)))
        if not len(far):
            return None
        return (
            f"dimension {far[0]} of the data has values about {size[far[0]]:.2g} that vary by "
            f"{spread[far[0]]:.2g}, far from one, where the flow starts: call model.adapt(x) "
            "before training"
        )

    def continuous(self, x: tf.Tensor, training: bool | None = False) -> tf.Tensor:
        """Gives the vectors in the flow's dtype, once they are found finite."""
        return self.rounding(self.check_values(x), training=training)

    def check_values(self, x: tf.Tensor) -> tf.Tensor:
        """Gives vectors, once they are found finite in the flow's dtype."""
        x = tf.cast(x, self.flow.dtype)
        finite = assert_all(tf.math.is_finite(x), "vectors must be finite, got NaN or infinity")
        # All else waits, lest the optimizer's step comes before the check and weights are lost.
        with tf.control_dependencies([] if finite is None else [finite]):
            return tf.identity(x)
