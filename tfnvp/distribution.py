"""The distribution of a flow: one pass of each network, always of the current weights."""

import math
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp.bijectors.flow_bijector import FlowBijector, held_layers, tie_keras_layers
from tfnvp.bijectors.one_pass import forward_and_log_det, inverse_and_log_det, parts
from tfnvp.deep_copy import deep_copy
from tfnvp.graph.internals import TransformedDistribution, broadcast_base, is_injective

tfb, tfd = tfp.bijectors, tfp.distributions


class FlowDistribution(TransformedDistribution):
    """A `tfd.TransformedDistribution` that takes value and log-det from one pass of each network.

        log_prob(x) = base.log_prob(z) + log |det dz/dx|,    z = bijector.inverse(x).

    Its answers are of the weights of that moment and connected to what it is given, in eager code
    and in graphs, also at its own samples. `tfd.TransformedDistribution` gives the same figures of
    the same bijector, but runs each network twice in `log_prob`. Where data or a log-density is
    so far from 0 that something might overflow (beyond 3e18, below -1.8e19 nats in float32) the
    log-density is -inf, with a gradient of 0. Source: change of variables, Real NVP (arXiv
    1605.08803), equations 2 and 3.

    It is of the class that `tfd.TransformedDistribution(...)` gives for a bijector that is no
    composite tensor, as none with Keras layers is: so `tf.Module` finds the layers' variables in
    it, and in every distribution that holds it.

    Args:
        distribution: the base distribution, of latents.
        bijector: a `tfb.Bijector` whose `forward` maps latents to data: a `FlowBijector`, one of
            TFP's, or a `tfb.Chain` of both.
        kwargs_split_fn: as in `tfd.TransformedDistribution`.
        validate_args: whether to check arguments at run time.
        name: of the distribution.

    Example:
        >>> import tensorflow as tf, tensorflow_probability as tfp, tfnvp
        >>> base = tfp.distributions.MultivariateNormalDiag([0.0, 0.0])
        >>> flow = tfnvp.FlowDistribution(base, tfp.bijectors.Scale(2.0))
        >>> flow.log_prob(tf.zeros([5, 2])).shape
        TensorShape([5])
    """

    def __init__(
        self,
        distribution: tfd.Distribution,
        bijector: tfb.Bijector,
        kwargs_split_fn: Any = None,
        validate_args: bool = False,
        name: str | None = None,
    ) -> None:
        parameters = dict(locals())
        super().__init__(
            distribution,
            bijector,
            kwargs_split_fn=kwargs_split_fn,
            validate_args=validate_args,
            parameters=parameters,
            name=name,
        )
        # TFP takes a base apart before it looks at what the base holds.
        self._layers_of_base = held_layers(distribution)
        tie_keras_layers(self)

    @classmethod
    def _parameter_properties(
        cls, dtype: tf.DType, num_classes: int | None = None
    ) -> dict[str, Any]:
        # TFP warns of a subclass with a constructor of its own that merely inherits them.
        return super()._parameter_properties(dtype, num_classes)

    def _log_prob(self, x: tf.Tensor, **kwargs: Any) -> tf.Tensor:
        if not self._in_one_pass(kwargs):
            return super()._log_prob(x, **kwargs)
        x = tf.convert_to_tensor(x, dtype_hint=self.dtype)
        next_to_data = next(parts(self.bijector))
        tamed = isinstance(next_to_data, FlowBijector) and next_to_data.tames_data
        if not tamed:
            # Zero replaces values beyond 3e18 (float32), which might overflow in a network.
            far = tf.abs(x) > _reach(x.dtype, 0.48)
            x = tf.where(far, tf.zeros_like(x), x)
        z, log_det = inverse_and_log_det(self.bijector, x, self.event_shape.rank)
        log_prob = self.distribution.log_prob(z)
        log_prob += tf.cast(log_det, log_prob.dtype)
        # Below that, products of latents in a gradient might overflow. NaN stays what it is.
        none = log_prob < -_reach(log_prob.dtype, 0.5)
        if not tamed:
            none |= tf.reduce_any(far, axis=list(range(-self.event_shape.rank, 0)))
        return tf.where(none, tf.constant(-math.inf, log_prob.dtype), log_prob)

    def _sample_and_log_prob(
        self, sample_shape: Any, seed: Any, **kwargs: Any
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if not self._in_one_pass(kwargs):
            return super()._sample_and_log_prob(sample_shape, seed, **kwargs)
        base = broadcast_base(self)
        z, log_prob = base.experimental_sample_and_log_prob(sample_shape, seed)
        x, log_det = forward_and_log_det(self.bijector, z, self.distribution.event_shape.rank)
        return x, log_prob - tf.cast(log_det, log_prob.dtype)

    def __getitem__(self, slices: Any) -> "FlowDistribution":
        """Slices the batch axes, as that of any `tfd.Distribution`."""
        event_ndims = self.distribution.event_shape.rank
        parts = {
            "distribution": (self.distribution, self.distribution.batch_shape),
            "bijector": (self.bijector, self.bijector.experimental_batch_shape(event_ndims)),
        }
        alike = all(shape.rank == 0 or shape == self.batch_shape for _, shape in parts.values())
        if not alike or event_ndims != self.bijector.forward_min_event_ndims:
            return super().__getitem__(slices)
        # TFP would broadcast a part without a batch first, and then slices some in no graph. Where
        # nothing has a batch, the base gets the new axes.
        sliced = {name: part[slices] for name, (part, shape) in parts.items() if shape.rank}
        return self.copy(**sliced or {"distribution": self.distribution[slices]})

    def __deepcopy__(self, memo: dict[int, Any]) -> "FlowDistribution":
        return deep_copy(self, memo)

    def _in_one_pass(self, kwargs: dict[str, Any]) -> bool:
        """Tells whether events are tensors of known rank that the bijector maps one to one."""
        ranks = [
            getattr(shape, "rank", None)
            for shape in (self.event_shape, self.distribution.event_shape)
        ]
        return not kwargs and None not in ranks and is_injective(self.bijector)


def mean_or_none(base: tfd.Distribution) -> tf.Tensor | None:
    """Gives the mean of a distribution, or None where it has none that is finite."""
    try:
        with tf.init_scope():
            has_mean = tf.reduce_all(tf.math.is_finite(base.mean()))
    except (NotImplementedError, ValueError, tf.errors.InvalidArgumentError):
        return None
    return base.mean() if has_mean else None


def _reach(dtype: tf.DType, power: float) -> float:
    """Gives the largest number of a type to a power less than 1, from which to keep a distance."""
    # In float16 there is no distance to keep.
    return float(dtype.max) ** power if dtype.is_floating and dtype.max > 1e30 else dtype.max
