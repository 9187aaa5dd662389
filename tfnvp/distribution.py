"""The distribution of a flow: one pass of each network, always of the current weights."""

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp.bijectors.one_pass import forward_and_log_det, inverse_and_log_det
from tfnvp.graph.internals import TransformedDistribution

tfb, tfd = tfp.bijectors, tfp.distributions


class FlowDistribution(TransformedDistribution):
    """A `tfd.TransformedDistribution` that takes value and log-det from one pass of each network.

        log_prob(x) = base.log_prob(z) + log |det dz/dx|,    z = bijector.inverse(x).

    Its answers are of the weights of that moment and connected to what it is given, in eager code
    and in graphs, also at its own samples. `tfd.TransformedDistribution` gives the same figures of
    the same bijector, but runs each network twice in `log_prob`. Source: change of variables, Real
    NVP (arXiv 1605.08803), equations 2 and 3.

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

    def _log_prob(self, x: tf.Tensor, **kwargs: Any) -> tf.Tensor:
        if not self._in_one_pass(kwargs):
            return super()._log_prob(x, **kwargs)
        z, log_det = inverse_and_log_det(self.bijector, x, self.event_shape.rank)
        log_prob = self.distribution.log_prob(z)
        return log_prob + tf.cast(log_det, log_prob.dtype)

    def _sample_and_log_prob(
        self, sample_shape: Any, seed: Any, **kwargs: Any
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if not self._in_one_pass(kwargs):
            return super()._sample_and_log_prob(sample_shape, seed, **kwargs)
        base = self._maybe_broadcast_distribution_batch_shape()
        z, log_prob = base.experimental_sample_and_log_prob(sample_shape, seed)
        x, log_det = forward_and_log_det(self.bijector, z, self.distribution.event_shape.rank)
        return x, log_prob - tf.cast(log_det, log_prob.dtype)

    def _in_one_pass(self, kwargs: dict[str, Any]) -> bool:
        """Tells whether events are tensors of known rank that the bijector maps one to one."""
        ranks = [
            getattr(shape, "rank", None)
            for shape in (self.event_shape, self.distribution.event_shape)
        ]
        return not kwargs and None not in ranks and self.bijector._is_injective
