"""The steps of `fit`, `evaluate` and `predict`: maximum likelihood, on one replica or many."""

import abc
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnvp import metrics
from tfnvp.checks import plain_errors
from tfnvp.graph import replicas
from tfnvp.graph.functions import Changes
from tfnvp.graph.internals import (
    LowerIsBetter,
    MultiWorkerFit,
    ReplicaOptimizer,
    optimised_once,
    variables_unknown_to,
)
from tfnvp.graph.shared_step import SharedStep
from tfnvp.graph.strategies import check_strategy
from tfnvp.models.condition import Condition
from tfnvp.models.fresh_moments import MomentsStep, keep_moments_fresh, refresh, running_moments
from tfnvp.models.host_checks import check_on_the_host, named_fault
from tfnvp.models.training_data import accepted, has_labels, weights_of_rows, without_weightless
from tfnvp.models.worker_data import check_for_workers
from tfnvp.shapes import at_least_one_row
from tfnvp.types import TensorLike


class TrainingSteps(MultiWorkerFit, keras.Model):
    """A Keras model whose call is log p(x), trained by maximum likelihood.

    The loss is the mean negative log-likelihood in bits per dimension, plus the layers'
    regularization losses; `bits_per_dim`, without these, is a metric that `fit` and `evaluate`
    report. Under a strategy both are of the rows of all replicas. Rows may have weights: means, and
    the moments of batch normalizations, are then weighted; a row of weight 2 is two of that row,
    and one of weight 0 is left out. `tfnvp.models.FlowModel` defines the density.
    """

    #: The labels that the density is conditioned on, or that there are none.
    condition: Condition

    def __init__(self, **kwargs: Any) -> None:
        # Data is never cast to the compute dtype of mixed precision: only conditioners are.
        super().__init__(autocast=False, **kwargs)
        self._loss = keras.metrics.Mean(name="loss", dtype=self.variable_dtype)
        self._bits_per_dim = keras.metrics.Mean(name="bits_per_dim", dtype=self.variable_dtype)
        self._directions = LowerIsBetter([self._loss, self._bits_per_dim])
        self._shared_step = None
        self._said_aside = self.voiced_doubt = False
        self._changes = self._moments_step = None

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
    def check_kind(self, x: Any) -> None:
        """Refuses data, or its `tf.TensorSpec`, of a wrong dtype or shape."""

    def doubt(self, first_rows: Callable[[], np.ndarray]) -> str | None:
        """Says why figures of data, of which it is given some rows, would say nothing; or None."""
        return None

    @abc.abstractmethod
    def check_labels(self, labels: TensorLike | None) -> tf.Tensor | None:
        """Makes a tensor of a batch's labels, or None where the model has no use for them."""

    def call(
        self, x: tf.Tensor, labels: tf.Tensor | None = None, training: bool | None = None
    ) -> tf.Tensor:
        if replicas.replica_context() is None:
            return self.density(x, labels, training)
        # The last batch of an epoch may leave a replica without rows.
        rows = tf.shape(x)[0]
        weights = at_least_one_row(replicas.row_weights(self.variable_dtype))
        with replicas.weighing_rows(tf.minimum(rows, 1) if weights is None else weights):
            log_prob = self.density(at_least_one_row(x), at_least_one_row(labels), training)
        return log_prob[:rows]

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Takes one step of the optimizer on a batch, as `fit` calls it."""
        x, labels, weights = self.unpacked(data)
        return self._update_metrics(*self.optimize(x, labels, weights), weights)

    @tf.autograph.experimental.do_not_convert
    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Measures the bits per dimension of a batch, as `evaluate` calls it."""
        x, labels, weights = self.unpacked(data)
        bits = self.bits(self(x, labels, training=False))
        return self._update_metrics(bits, self._penalty(bits.dtype), weights)

    def predict_step(self, data: Any) -> tf.Tensor:
        """Computes log p(x) of a batch, as `predict` calls it."""
        x, labels, _ = self.unpacked(data, weighted=False)
        return self(x, labels, training=False)

    def unpacked(
        self, data: Any, weighted: bool = True
    ) -> tuple[tf.Tensor, tf.Tensor | None, tf.Tensor | None]:
        """Gives the rows of a batch, their labels and their weights, where they have some."""
        x, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        x = self.check_data(x)
        labels = labels if has_labels(labels) else None
        if labels is not None and self.condition.encoding is None and not self._said_aside:
            self._said_aside = True
            warnings.warn(
                "the labels of the data set are left aside, for the model is not conditional: make "
                "it with num_classes or context_size to learn p(x | y)",
                stacklevel=2,
            )
        labels = self.check_labels(labels)
        if weights is None or not weighted:
            return x, labels, None
        weights = weights_of_rows(weights, x, self.variable_dtype)
        return *without_weightless(weights, x, labels), weights

    def optimize(
        self, x: tf.Tensor, labels: tf.Tensor | None = None, weights: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Takes one step of the optimizer, as operations of the caller's graph.

        Args:
            x: [B, *event_shape].
            labels: as in a call.
            weights: of the rows, [B], in the dtype of the variables; None for equal ones.

        Returns:
            Bits per dimension [B] and the regularization loss, before the step.
        """
        variables = [*self.variables, *self.optimizer.variables]
        if not self.can_share_step(variables):
            return self._optimize(x, labels, weights)
        if self._shared_step is None:
            self._shared_step = SharedStep(self._optimize, variables)
        return self._shared_step(x, labels, weights)

    def can_share_step(self, variables: list[keras.Variable]) -> bool:
        """Tells whether this is one of several replicas that can share the step on variables."""
        # Keras' own optimizers leave the replica to update variables.
        return (
            SharedStep.fits(variables)
            and isinstance(self.optimizer, ReplicaOptimizer)
            and self.optimizer.can_share_steps
        )

    def _optimize(
        self, x: tf.Tensor, labels: tf.Tensor | None, weights: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        variables = [variable.value for variable in self.trainable_weights]
        context = replicas.replica_context()
        with tf.GradientTape() as tape:
            tape.watch(variables)
            with replicas.weighing_rows(weights):
                bits = self.bits(self(x, labels, training=True))
            penalty = self._penalty(bits.dtype)
            # The penalty is divided by the replica count: gradients are summed across replicas.
            share = 1 if context is None else context.num_replicas_in_sync
            loss = metrics.global_mean(bits, weights) + penalty / share
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled_loss, variables)
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        clips = inner.clipnorm or inner.global_clipnorm or inner.clipvalue
        if context is not None and clips and not isinstance(self.optimizer, ReplicaOptimizer):
            gradients = replicas.sums_on_the_first_replica(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return bits, penalty

    def _penalty(self, dtype: tf.DType) -> tf.Tensor:
        penalties = [tf.cast(penalty, dtype) for penalty in self.losses]
        return tf.add_n(penalties) if penalties else tf.zeros([], dtype)

    def _update_metrics(
        self, bits: tf.Tensor, penalty: tf.Tensor, weights: tf.Tensor | None
    ) -> dict[str, tf.Tensor]:
        # They are sums and counts over rows, which is right for a last batch that is smaller.
        self._bits_per_dim.update_state(bits, weights)
        self._loss.update_state(bits + penalty, weights)
        reported = (self._loss, self._bits_per_dim)
        return self.for_keras({metric.name: metric.result() for metric in reported})

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configures training, as `keras.Model.compile`; loss and metrics are the model's own.

        Raises:
            ValueError: for a loss or metrics, or under a strategy in which no training was tried.
        """
        given = inspect.signature(keras.Model.compile).bind(self, *args, **kwargs).arguments
        check_strategy(self.distribute_strategy, given.get("jit_compile", "auto"))
        for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
            if given.get(name):
                raise ValueError(
                    f"{name} must be None, for a flow is trained by maximum likelihood and reports "
                    f"loss and bits_per_dim, got {name}={given[name]!r}"
                )
        super().compile(*args, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a model that is loaded."""
        # Keras leaves alone a model whose `compile` is its own.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built and self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """`loss` and `bits_per_dim`, and which way they are better."""
        return [self._loss, self._bits_per_dim, self._directions]

    def make_train_function(self, force: bool = False) -> Any:
        """Makes Keras' train function, and the optimizer's variables before it is traced.

        A first step that is refused while it is traced would leave them half made.
        """
        self._forget_if_changed()
        if not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.build()
                self.optimizer.build(self.trainable_variables)
        if unknown := variables_unknown_to(self.optimizer, self.trainable_variables):
            raise ValueError(
                "the model must be compiled again, for it has got trainable variables that its "
                f"optimizer does not know, such as {unknown[0].path}"
            )
        if force or self.train_function is None:
            self._shared_step = None
            super().make_train_function(force=True)
            self.train_function = optimised_once()(self.train_function)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """Makes Keras' test function, anew where layers have changed."""
        self._forget_if_changed()
        return super().make_test_function(force)

    def make_predict_function(self, force: bool = False) -> Any:
        """Makes Keras' predict function, anew where layers have changed."""
        self._forget_if_changed()
        return super().make_predict_function(force)

    def _forget_if_changed(self) -> None:
        """Forgets the functions that were traced of layers which are no longer the same."""
        self.build()
        if self._changes is None:
            self._changes = Changes([self])
        if self._changes.happened():
            self.train_function = self.test_function = self.predict_function = None
            self._moments_step = None

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains on data without targets; else as `keras.Model.fit`.

        Args:
            *args: x, and y, the labels of a conditional model: arrays; or a `tf.data.Dataset` of
                batches x, (x, labels), or (x, labels or None, weights).
            **kwargs: among them `sample_weight`, the weights of an array's rows, 0 or more, and
                `class_weight`, a dictionary, those of classes.

        Raises:
            ValueError: for data of a wrong shape, dtype or range, or that would not be used.
        """
        return self._hand_to_keras("fit", args, kwargs)

    def refresh_moments(self, data: Any, batch_size: int | None = None) -> None:
        """Takes the moments of batch normalizations anew, of the weights as they stand.

        In inference these normalise by averages over batches, which lag behind weights that change
        fast. `fit` does this before each validation and when an epoch ends; within an epoch, and in
        a loop of your own, call it before you look at a model.

        Args:
            data: training data, as `fit` takes it, or a tuple of arrays: x, labels, weights. The
                first batches are used, of arrays evenly spaced rows: at least 512 rows and 4
                batches, where there are as many. The averages stay where no row counts.
            batch_size: rows of a batch of arrays, as in training; 32 if it is None.

        Raises:
            ValueError: for data that `fit` would refuse.

        Source: "precise" batch normalization, Wu and Johnson (arXiv 2105.07576), section 3.
        """
        with plain_errors():
            self._forget_if_changed()
            if running_moments(self):
                self._moments_step = self._moments_step or MomentsStep(self)
                refresh(self, data, batch_size, self._moments_step)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Measures loss and bits/dim of data without targets; else as `keras.Model.evaluate`.

        Data and weights are as those of `fit`.
        """
        results = self._hand_to_keras("evaluate", args, kwargs)
        if not tf.convert_to_tensor(self._bits_per_dim.count):
            raise ValueError("data to evaluate must have a row of a weight above 0, got none")
        return results

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Computes log p(x) of each row, [N], nats; else as `keras.Model.predict`."""
        shape = getattr(args[0] if args else kwargs.get("x"), "shape", None)
        if shape and shape[0] == 0:
            return np.zeros([0], self.variable_dtype)  # Keras knows no answer of no rows.
        return self._hand_to_keras("predict", args, kwargs)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Takes a step; data are arrays as those of `fit`, else as `keras.Model`."""
        self.reset_metrics()  # Before 3.15 Keras returns the average of all calls.
        return self._hand_to_keras("train_on_batch", args, kwargs)

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Measures a batch; data are arrays as those of `fit`, else as `keras.Model`."""
        self.reset_metrics()  # Before 3.15 Keras returns the average of all calls.
        return self._hand_to_keras("test_on_batch", args, kwargs)

    def predict_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Computes log p(x) of each row of an array; else as `keras.Model`."""
        return self._hand_to_keras("predict_on_batch", args, kwargs)

    def _hand_to_keras(self, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        method = getattr(keras.Model, name)
        with plain_errors():
            bound = accepted(self, method, args, kwargs)
            given = bound.arguments
            # Within `fit` Keras evaluates data that has been seen to already.
            seen_to = given.get("x") is None or given.get("kwargs")
            workers = tf.distribute.MultiWorkerMirroredStrategy
            if isinstance(self.distribute_strategy, workers) and not seen_to:
                check_for_workers(self, name, given)
            if self.jit_compile and not self.run_eagerly and not seen_to:
                check_on_the_host(self, name, given)
            if name == "fit" and not seen_to:
                keep_moments_fresh(self, given)
            with named_fault(self, given):
                return method(*bound.args, **bound.kwargs)
