"""A coupling through the distribution function of a mixture, beside the affine one."""

import tensorflow as tf

from tfnvp.bijectors.coupling import Coupling
from tfnvp.checks import check_positive_int

# Bisections of an interval that is rarely longer than 100; each of the two Newton steps after them
# squares what error is left.
_BISECTIONS = 22


class MixtureCoupling(Coupling):
    """Maps one part of an event through mixtures of logistics that the part that stays sets.

    With F the distribution function and f the density of a mixture of logistic distributions, whose
    log-weights, means and log-scales, with s and t, come from the conditioner, the changed part
    goes from data to latents by

        inverse(x) = logit(F(x)) * exp(s) + t,
        log |det| = sum over the changed positions of s + log f(x) - log F(x) - log(1 - F(x)).

    The components give each position a density of several modes and of tails of any weight, where
    `AffineCoupling` has a bell. Zero parameters are the identity. `forward` runs the conditioner
    once too, and inverts F by bisection between the quantiles of the components. Source: Flow++
    (Ho et al. 2019, arXiv 1902.00275), section 3.2.

    Args:
        mask: as in `AffineCoupling`.
        conditioner: as in `AffineCoupling`; it returns, on its last axis, the log-scales s and the
            shifts t of what changes, and then the log-weights (not normalised), the means and the
            log-scales, each for `components` times what changes.
        components: of each mixture.
        validate_args: whether to check at run time that the parameters are finite.
        name: of the bijector.

    Raises:
        TypeError: if mask is no partition, or conditioner no callable.
        ValueError: if components is not a positive integer; at the first call, if the conditioner's
            output has the wrong last axis.

    Example:
        >>> import keras, tensorflow as tf, tfnvp
        >>> coupling = tfnvp.bijectors.MixtureCoupling(
        ...     tfnvp.masks.ChannelHalves(0, event_ndims=1), keras.layers.Dense(2 * 14), 4)
        >>> coupling.forward(tf.ones([3, 4])).shape.as_list()
        [3, 4]
    """

    def __init__(self, mask, conditioner, components, validate_args=False, name="mixture_coupling"):
        check_positive_int("components", components)
        parameters = dict(locals())
        self._components = components
        super().__init__(mask, conditioner, parameters, validate_args, name)

    @property
    def components(self):
        """Of each mixture."""
        return self._components

    def _inverse_and_log_det(self, x):
        stays, changes, merge = self._split(x)
        log_scale, shift, mixture = self._parameters_of(stays, changes)
        y, log_det = _logit_of_cdf(changes, mixture)
        return merge(y * tf.exp(log_scale) + shift), self._sum(log_scale + log_det)

    def _forward_and_log_det(self, z):
        stays, changes, merge = self._split(z)
        log_scale, shift, mixture = self._parameters_of(stays, changes)
        x, log_det = _quantile((changes - shift) * tf.exp(-log_scale), mixture)
        return merge(x), -self._sum(log_scale + log_det)

    def _parameters_of(self, stays, changes):
        """s and t, [..., C]; log-weights, means and log-scales, [..., components, C] each."""
        k = self.components
        outputs = self._condition(stays, changes, 2 + 3 * k)
        log_scale, shift = outputs[..., 0, :], outputs[..., 1, :]
        logits, means, log_scales = tf.split(outputs[..., 2:, :], 3, axis=-2)
        return log_scale, shift, (tf.nn.log_softmax(logits, axis=-2), means, log_scales)


def _logit_of_cdf(x, mixture):
    """logit(F(x)) and the log of its derivative, both of x's shape."""
    log_weights, means, log_scales = mixture
    z = (x[..., tf.newaxis, :] - means) * tf.exp(-log_scales)
    # Of a logistic distribution log F = -softplus(-z) and log(1 - F) = -softplus(z) = log F - z;
    # kept as logarithms, no tail rounds to 0 or 1.
    log_cdf = -tf.math.softplus(-z)
    log_sf = log_cdf - z
    log_pdf = tf.reduce_logsumexp(log_weights + log_cdf + log_sf - log_scales, axis=-2)
    log_cdf = tf.reduce_logsumexp(log_weights + log_cdf, axis=-2)
    log_sf = tf.reduce_logsumexp(log_weights + log_sf, axis=-2)
    return log_cdf - log_sf, log_pdf - log_cdf - log_sf


def _quantile(y, mixture):
    """x with logit(F(x)) = y, and the log of the derivative of logit(F) there."""
    still_y, still = tf.stop_gradient(y), tuple(map(tf.stop_gradient, mixture))
    _, means, log_scales = still
    # Each component reaches y at a point of its own, and the mixture between the outermost.
    reached = means + tf.exp(log_scales) * still_y[..., tf.newaxis, :]

    def halve(low, high):
        middle = (low + high) / 2
        below = _logit_of_cdf(middle, still)[0] < still_y
        return tf.where(below, middle, low), tf.where(below, high, middle)

    low, high = tf.while_loop(
        lambda *_: True,
        halve,
        (tf.reduce_min(reached, axis=-2), tf.reduce_max(reached, axis=-2)),
        maximum_iterations=_BISECTIONS,
    )
    x = tf.stop_gradient(_newton((low + high) / 2, still_y, still))
    # The second step carries the gradients, by the implicit function.
    x = _newton(x, y, mixture)
    return x, _logit_of_cdf(x, mixture)[1]


def _newton(x, y, mixture):
    value, log_derivative = _logit_of_cdf(x, mixture)
    return x + (y - value) * tf.exp(-tf.stop_gradient(log_derivative))
