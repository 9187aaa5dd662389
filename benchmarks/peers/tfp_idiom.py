"""The common way to write a coupling for TFP, in tfnvp's model.

TFP's guides define `_inverse` and `_inverse_log_det_jacobian` apart, and each runs the network.
Everything else is tfnvp's, parameters included: the difference shows what one pass is worth.
"""

import tfnvp  # isort: skip  (keeps TensorFlow quiet)
import tensorflow as tf
import tensorflow_probability as tfp

from benchmarks.peers import tfnvp_model


class Contender(tfnvp_model.Contender):
    """The model with common couplings, behind the methods that `benchmarks.throughput` runs."""

    def make_model(self, architecture, options):
        return RealNVP(**architecture, dtype=options.policy, remat=options.remat)


class RealNVP(tfnvp.ImageRealNVP):
    """`tfnvp.ImageRealNVP` with couplings of the common kind."""

    def build_distribution(self):
        """Makes the model's distribution anew with other couplings of the same networks."""
        flow = super().build_distribution()
        return tfnvp.FlowDistribution(flow.distribution, _with_common_couplings(flow.bijector))


def _with_common_couplings(bijector):
    if isinstance(bijector, tfnvp.bijectors.AffineCoupling):
        return Coupling(bijector)
    if isinstance(bijector, tfnvp.bijectors.SplineCoupling):
        raise ValueError("tfp_idiom has affine couplings alone, the preset has splines")
    inner = {
        name: tf.nest.map_structure(_with_common_couplings, bijector.parameters[name])
        for name in ("bijector", "bijectors")
        if bijector.parameters.get(name) is not None
    }
    return bijector.copy(**inner) if inner else bijector


class Coupling(tfp.bijectors.Bijector):
    """An affine coupling whose value and log-det are computed apart."""

    def __init__(self, coupling):
        self.coupling = coupling
        super().__init__(forward_min_event_ndims=3, name="coupling")

    def _forward(self, z):
        return self.coupling._forward_and_log_det(z)[0]

    def _inverse(self, x):
        return self.coupling._inverse_and_log_det(x)[0]

    def _inverse_log_det_jacobian(self, x):
        return self.coupling._inverse_and_log_det(x)[1]
