"""The steps of `fit`, `evaluate` and `predict`: maximum likelihood, on one replica or many."""

import abc
from typing import Any

import keras
import tensorflow as tf

from tfnvp import metrics
from tfnvp.checks import plain_errors
from tfnvp.graph import replicas
from tfnvp.graph.internals import LowerIsBetter, MultiWorkerFit, ReplicaOptimizer
from tfnvp.graph.shared_step import SharedStep
from tfnvp.shapes import at_least_one_row
from tfnvp.types import TensorLike


class TrainingSteps(MultiWorkerFit, keras.Model):
    """A Keras model whose call is log p(x), trained by maximum likelihood.

    The loss is the mean negative log-likelihood in bits per dimension, plus the layers'
    regularization losses; `bits_per_dim`, without these, is a metric that `fit` and `evaluate`
    report. Under a strategy both are of the rows of all replicas. `tfnvp.models.FlowModel` defines
    the density.
    """

    def __init__(self, **kwargs: Any) -> None:
        # Data is never cast to the compute dtype of mixed precision: only conditioners are.
        super().__init__(autocast=False, **kwargs)
        self._loss = keras.metrics.Mean(name="loss", dtype=self.variable_dtype)
        self._bits_per_dim = keras.metrics.Mean(name="bits_per_dim", dtype=self.variable_dtype)
        self._directions = LowerIsBetter([self._loss, self._bits_per_dim])
        self._shared_step = None

    @abc.abstractmethod
    def density(self, x: tf.Tensor, labels: tf.Tensor | None, training: bool | None) -> tf.Tensor:
        """Computes log p(x) or log p(x | y) [B], nats, of a batch of at least one row."""

    @abc.abstractmethod
    def bits(self, log_prob: tf.Tensor) -> tf.Tensor:
        """Gives log p(x) [B], nats, as bits per dimension [B]."""

    @abc.abstractmethod
    def check_data(self, x: TensorLike) -> tf.Tensor:
        """Makes a tensor of a batch, and refuses one of a wrong dtype or shape."""

    @abc.abstractmethod
    def check_labels(self, labels: TensorLike | None) -> tf.Tensor | None:
        """Makes a tensor of a batch's labels, or None where the model has no use for them."""

    def call(
        self, x: tf.Tensor, labels: tf.Tensor | None = None, training: bool | None = None
    ) -> tf.Tensor:
        if replicas.several() is None:
            return self.density(x, labels, training)
        # The last batch of an epoch may leave a replica without rows.
        rows = tf.shape(x)[0]
        with replicas.rows_counting(tf.minimum(rows, 1)):
            log_prob = self.density(at_least_one_row(x), at_least_one_row(labels), training)
        return log_prob[:rows]

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Takes one step of the optimizer on a batch, as `fit` calls it."""
        return self._update_metrics(*self.optimize(*self._unpack(data)))

    @tf.autograph.experimental.do_not_convert
    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Measures the bits per dimension of a batch, as `evaluate` calls it."""
        x, labels = self._unpack(data)
        bits = self.bits(self(self.check_data(x), labels, training=False))
        return self._update_metrics(bits, self._penalty(bits.dtype))

    def predict_step(self, data: Any) -> tf.Tensor:
        """Computes log p(x) of a batch, as `predict` calls it."""
        x, labels = self._unpack(data)
        return self(self.check_data(x), labels, training=False)

    def _unpack(self, data: Any) -> tuple[TensorLike, tf.Tensor | None]:
        x, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if sample_weight is not None:
            raise ValueError("sample_weight is not supported: every row of the data counts once")
        return x, self.check_labels(labels)

    def optimize(
        self, x: TensorLike, labels: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Takes one step of the optimizer, as operations of the caller's graph.

        Returns:
            Bits per dimension [B] and the regularization loss, before the step.
        """
        x = self.check_data(x)
        variables = [*self.variables, *self.optimizer.variables]
        if not self.can_share_step(variables):
            return self._optimize(x, labels)
        if self._shared_step is None:
            self._shared_step = SharedStep(self._optimize, variables)
        return self._shared_step(x, labels)

    def can_share_step(self, variables: list[keras.Variable]) -> bool:
        """Tells whether this is one of several replicas that can share the step on variables."""
        # Keras' own optimizers leave the replica to update variables.
        return (
            SharedStep.fits(variables)
            and isinstance(self.optimizer, ReplicaOptimizer)
            and self.optimizer.can_share_steps
        )

    def _optimize(self, x: tf.Tensor, labels: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        weights = [variable.value for variable in self.trainable_weights]
        context = replicas.several()
        with tf.GradientTape() as tape:
            tape.watch(weights)
            bits = self.bits(self(x, labels, training=True))
            penalty = self._penalty(bits.dtype)
            # The penalty is divided by the replica count: gradients are summed across replicas.
            share = 1 if context is None else context.num_replicas_in_sync
            loss = metrics.global_mean(bits) + penalty / share
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled_loss, weights)
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        clips = inner.clipnorm or inner.global_clipnorm or inner.clipvalue
        if context is not None and clips and not isinstance(self.optimizer, ReplicaOptimizer):
            gradients = replicas.summed_on_the_first(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return bits, penalty

    def _penalty(self, dtype: tf.DType) -> tf.Tensor:
        penalties = [tf.cast(penalty, dtype) for penalty in self.losses]
        return tf.add_n(penalties) if penalties else tf.zeros([], dtype)

    def _update_metrics(self, bits: tf.Tensor, penalty: tf.Tensor) -> dict[str, tf.Tensor]:
        # They are sums and counts over rows, which is right for a last batch that is smaller.
        self._bits_per_dim.update_state(bits)
        self._loss.update_state(bits + penalty)
        reported = (self._loss, self._bits_per_dim)
        return self.for_keras({metric.name: metric.result() for metric in reported})

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """`loss` and `bits_per_dim`, and which way they are better."""
        return [self._loss, self._bits_per_dim, self._directions]

    def make_train_function(self, force: bool = False) -> Any:
        """Makes Keras' train function, and the optimizer's variables before it is traced.

        A first step that is refused while it is traced would leave them half made.
        """
        if not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.build()
                self.optimizer.build(self.trainable_variables)
        if force or self.train_function is None:
            self._shared_step = None
        return super().make_train_function(force)

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains on data without targets; else as `keras.Model.fit`.

        Raises:
            ValueError: for data of a wrong shape, dtype or range.
        """
        with plain_errors():
            return super().fit(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Measures loss and bits/dim of data without targets; else as `keras.Model.evaluate`."""
        with plain_errors():
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Computes log p(x) of each row, [N], nats; else as `keras.Model.predict`."""
        with plain_errors():
            return super().predict(*args, **kwargs)
