"""Any transformed distribution as a Keras model: the density, its latents and its samples."""

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp import metrics
from tfnvp.bijectors.one_pass import inverse_and_log_det
from tfnvp.checks import check_draw, check_rows, plain_errors
from tfnvp.distribution import FlowDistribution, mean_or_none
from tfnvp.graph.full_precision import full_precision, without_tf32
from tfnvp.graph.functions import any_rows, call_key
from tfnvp.models.held_flow import HeldFlow
from tfnvp.seeds import stateless_seed
from tfnvp.shapes import at_least_one_row, known_shape
from tfnvp.types import TensorLike

tfd = tfp.distributions


@keras.saving.register_keras_serializable(package="tfnvp")
class FlowModel(HeldFlow):
    """A Keras model that fits a TFP distribution by maximum likelihood.

    The trainable variables are those of the Keras layers that the distribution's bijectors hold,
    the same variables as `model.distribution.trainable_variables`. `TrainingSteps` tells loss and
    metrics. Data sets yield a batch, (batch, labels), or (batch, labels or None, weights of rows);
    without `num_classes` or `context_size` their labels are left aside, which is said once.

    With one of these the density is conditional, p(x | y): every `AffineCoupling` gives its
    conditioner a context made of the label, see `LabelEncoding`. Labels are integers [B] or float
    vectors [B, context_size]; None asks for p(x), which the same weights learn where training
    leaves out some labels.

    To be saved whole, a model is a subclass that defines `build_distribution` and `get_config`::

        @keras.saving.register_keras_serializable()
        class MyFlow(tfnvp.FlowModel):
            def __init__(self, units, **kwargs):
                super().__init__(**kwargs)
                self.units = units

            def build_distribution(self):
                ...
                return tfd.TransformedDistribution(base, bijector)

            def get_config(self):
                return {**super().get_config(), "units": self.units}

    A subclass may rely on `build_distribution` being called once, when the model is built or its
    distribution first asked for.

    Args:
        distribution: a `tfd.TransformedDistribution` of a known event shape; None in a subclass.
        num_classes: how many classes the labels y of p(x | y) name; None for no classes.
        context_size: size of the float vectors that are the labels instead; None for none.
        label_dropout: probability with which training leaves out a label, so that p(x) is learned
            too; 0 for never.
        conditional_base: whether the mean of the base distribution, too, depends on the label: for
            each index of the latents' last axis (channels, or dimensions of a vector) a linear
            function of the context is added to it, zero before training.
        **kwargs: further arguments of `keras.Model`.

    Call arguments:
        x: [B, *event_shape]. labels: as above, or None. training: as in Keras.

    Returns:
        log p(x) or log p(x | y), [B], nats.

    Raises:
        TypeError: if distribution is not a transformed distribution.
        ValueError: if its event shape is not fully known, no bijector in it holds a Keras layer, or
            it has trainable variables that no layer holds.

    Example:
        >>> import keras, tfnvp, tensorflow_probability as tfp
        >>> coupling = tfnvp.bijectors.AffineCoupling(
        ...     tfnvp.masks.ChannelHalves(0, event_ndims=1), tfnvp.layers.DenseNetwork(1, [16]))
        >>> base = tfp.distributions.MultivariateNormalDiag([0.0, 0.0])
        >>> model = tfnvp.FlowModel(tfp.distributions.TransformedDistribution(base, coupling))
        >>> model.compile(optimizer="adam")
        >>> history = model.fit(keras.random.normal((32, 2)), verbose=0)
    """

    #: The number of values that one dimension of the data took before dequantisation.
    levels = 1

    @property
    def distribution(self) -> FlowDistribution:
        """The `FlowDistribution` that the model fits; p(x) of a conditional model."""
        return self.distribution_for()

    def distribution_for(self, labels: TensorLike | None = None) -> FlowDistribution:
        """Gives the same weights as the distribution of each label.

        Args:
            labels: integers [...] below num_classes, or floats [..., context_size]; None for p(x).

        Returns:
            A `FlowDistribution` of batch shape [...].

        Raises:
            ValueError: for labels out of range, of a wrong dtype or shape, that an unconditional
                model has no use for, or that are missing where there is no label_dropout.
        """
        return self.condition.applied(self.flow, labels)

    def density(
        self, x: tf.Tensor, labels: tf.Tensor | None = None, training: bool | None = False
    ) -> tf.Tensor:
        """Computes log p(x) or log p(x | y) [B], nats, in the caller's graph."""
        flow = self.condition.applied(self.flow, labels, bool(training))
        return flow.log_prob(self.continuous(x, training))

    def continuous(self, x: tf.Tensor, training: bool | None = False) -> tf.Tensor:
        """Makes the data that the distribution is over of the data that users have."""
        return tf.cast(x, self.flow.dtype)

    def bits(self, log_prob: tf.Tensor) -> tf.Tensor:
        """Gives log p(x) [B], nats, as bits per dimension [B]."""
        return metrics.bits_per_dim(log_prob, self.event_size, self.levels)

    def check_data(self, x: TensorLike) -> tf.Tensor:
        """Makes a tensor of a batch, and refuses one of a wrong dtype or shape."""
        if not isinstance(x, Mapping):
            x = tf.convert_to_tensor(x)
        self.check_kind(x)
        return known_shape(x, [None, *self.event_shape])

    def check_kind(self, x: Any) -> None:
        """Refuses data, or its `tf.TensorSpec`, of a wrong dtype or shape."""
        dtype = getattr(x, "dtype", None)
        if dtype is not None and not dtype.is_floating:
            raise ValueError(f"x must be of a float dtype, got dtype {dtype.name}")
        check_rows("x", x, self.event_shape)

    def check_values(self, x: tf.Tensor) -> tf.Tensor:
        """Gives a batch, once its values are found to be of the density's range; here all are."""
        return x

    def check_labels(self, labels: TensorLike | None) -> tf.Tensor | None:
        """Makes a tensor of a batch's labels, or None where the model has no use for them."""
        if self.condition.encoding is None:
            return None
        return self.condition.labels_of_rows(labels, None)

    def log_prob(self, x: TensorLike, labels: TensorLike | None = None) -> tf.Tensor:
        """Computes log p(x), or log p(x | y).

        Args:
            x: [B, *event_shape].
            labels: one y for each row, or one for all, see `distribution_for`; None for p(x).

        Returns:
            [B], nats.

        Raises:
            ValueError: for data or labels of a wrong shape, dtype or range.
        """
        x = self.check_data(x)
        return self._run(self._log_prob, x, self.condition.labels_of_rows(labels, x.shape[0]))

    def _log_prob(self, x: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
        return self.distribution_for(labels=labels).log_prob(self.continuous(x))

    def bits_per_dim(self, x: TensorLike, labels: TensorLike | None = None) -> tf.Tensor:
        """Computes -log2 p(x) / D, plus log2(levels) where the data was discrete; as `log_prob`."""
        return self.bits(self.log_prob(x, labels))

    def classify(self, x: TensorLike, prior: TensorLike | None = None) -> tf.Tensor:
        """Computes the posterior p(y | x) of each class by Bayes' rule, in one pass of x with all.

        Args:
            x: [B, *event_shape].
            prior: p(y), [num_classes], up to a common factor; None for equal classes.

        Returns:
            [B, num_classes], of sum one.

        Raises:
            ValueError: for a model without num_classes, a prior that is none, or data of a wrong
                shape, dtype or range.
        """
        if not self.num_classes:
            raise ValueError("classify needs a model with num_classes")
        prior = np.ones(self.num_classes) if prior is None else np.asarray(prior)
        if prior.shape != (self.num_classes,) or not (np.all(prior >= 0) and np.any(prior > 0)):
            raise ValueError(
                f"prior must be {self.num_classes} numbers of 0 or more, not all 0, got "
                f"prior={prior.tolist()}"
            )
        return self._run(self._posterior, self.check_data(x), tf.constant(prior, self.flow.dtype))

    def _posterior(self, x: tf.Tensor, prior: tf.Tensor) -> tf.Tensor:
        x = tf.expand_dims(self.continuous(x), 1)
        log_prob = self.distribution_for(labels=tf.range(self.num_classes)).log_prob(x)
        return tf.nn.softmax(log_prob + tf.math.log(prior))

    # Latents and samples.

    def encode(self, x: TensorLike, labels: TensorLike | None = None) -> tf.Tensor:
        """Maps data to latents, in full precision whatever the policy.

        Args:
            x: [B, *event_shape].
            labels: as in `log_prob`.

        Returns:
            [B, *latent event shape].
        """
        x = self.check_data(x)
        labels = self.condition.labels_of_rows(labels, x.shape[0])
        with without_tf32():
            return self._run(self.inverse_in_full_precision, x, labels)

    def decode(self, z: TensorLike, labels: TensorLike | None = None) -> tf.Tensor:
        """Maps latents to data, the reverse of `encode`, in full precision whatever the policy.

        Args:
            z: [B, *latent event shape].
            labels: as in `log_prob`.

        Returns:
            [B, *event_shape].

        Raises:
            ValueError: for latents of a wrong shape.
        """
        z = tf.cast(z, self.flow.dtype)
        latent_shape = self.flow.distribution.event_shape
        if z.shape.rank is None or not z.shape[1:].is_compatible_with(latent_shape):
            raise ValueError(
                f"z must have the shape [batch, {', '.join(map(str, latent_shape))}], got {z.shape}"
            )
        labels = self.condition.labels_of_rows(labels, z.shape[0])
        with without_tf32():
            return self._run(self.forward_in_full_precision, z, labels)

    def inverse_in_full_precision(self, x: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
        """Encodes as operations of the caller's graph, for exports."""
        with full_precision(self._flow_layers):
            bijector = self.distribution_for(labels=labels).bijector
            return inverse_and_log_det(bijector, self.continuous(x))[0]

    def forward_in_full_precision(self, z: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
        """Decodes as operations of the caller's graph, for exports."""
        with full_precision(self._flow_layers):
            return self.distribution_for(labels=labels).bijector.forward(z)

    def sample(
        self,
        n: int,
        labels: TensorLike | None = None,
        temperature: float = 1.0,
        seed: TensorLike | None = None,
        **size: Hashable,
    ) -> tf.Tensor:
        """Draws samples.

        Args:
            n: how many.
            labels: as in `log_prob`, for n rows.
            temperature: factor on the latents' distance from the base distribution's mean; 1, for
                a base that has none too, draws from the distribution itself.
            seed: an integer, with which the same samples come again, of a normal base the first k
                of n being those of n = k; None draws afresh.
            **size: arguments of `flow_of`, where a subclass has sizes other than its own.

        Returns:
            [n, *event_shape].

        Raises:
            ValueError: if n is not a non-negative integer of 32 bits, temperature is negative or
                not finite, or it is not 1 where the base distribution has no mean.
        """
        check_draw(n, temperature)
        if temperature == 1:
            factor = None
        else:
            self._check_mean(self.flow_of(**size).distribution, temperature)
            factor = tf.constant(temperature, self.flow.dtype)
        labels = at_least_one_row(self.condition.labels_of_rows(labels, n))
        rows = tf.constant(max(n, 1))
        return self._run(self._draw, rows, factor, stateless_seed(seed), labels, **size)[:n]

    def flow_of(self) -> FlowDistribution:
        """Gives the flow without a context; subclasses may have one for other sizes."""
        return self.flow

    def _draw(
        self,
        n: tf.Tensor,
        temperature: tf.Tensor | None,
        seed: tf.Tensor,
        labels: tf.Tensor | None,
        **size: Any,
    ) -> tf.Tensor:
        flow = self.flow_of(**size)
        base = flow.distribution
        z = base.sample(n, seed=seed)
        if temperature is not None:
            mean = base.mean()
            z = mean + temperature * (z - mean)
        flow = self.condition.applied(flow, labels)
        if self.base_mean is not None:
            # The base of each label is this one, shifted.
            z = flow.distribution.bijector.forward(z)
        # TFP loses sight of the rank where it broadcasts to an unknown number of labels.
        return flow.bijector.forward(tf.ensure_shape(z, [None, *base.event_shape]))

    def _check_mean(self, base: tfd.Distribution, temperature: float) -> None:
        """Refuses a temperature other than 1 where there is no mean to be nearer to."""
        if mean_or_none(base) is None:
            raise ValueError(
                f"temperature must be 1 where the base distribution, here {base.name}, has no "
                f"mean, got temperature={temperature!r}"
            )

    def _run(self, function: Callable, *args: tf.Tensor | None, **static: Hashable) -> tf.Tensor:
        """Runs a method compiled, traced once for each kind of arguments.

        Args:
            function: a method of tensors, the first of which has rows, or None.
            *args: its arguments. Of a first one that has no rows the answer has none.
            **static: further arguments, which are no tensors.
        """
        if args[0].shape.rank and args[0].shape[0] == 0:
            return self._run(function, *map(at_least_one_row, args), **static)[:0]
        with plain_errors():
            if self._flow is None:
                self.build()
            if tf.config.functions_run_eagerly():
                return function(*args, **static)
            traced = self._functions.known(getattr(self, "optimizer", None))
            key = call_key(function, args, static)
            if key not in traced:
                compiled = tf.function(functools.partial(function, **static), autograph=False)
                traced[key] = compiled.get_concrete_function(*map(any_rows, args))
            return traced[key](*args)
