"""The common way to write a coupling for TFP, in tfnvp's model.

TFP's guides define `_inverse` and `_inverse_log_det_jacobian` apart, and each runs the network. All
else is tfnvp's, parameters included: the difference is what one pass is worth.
"""

import tensorflow_probability as tfp

import tfnvp
from benchmarks.peers import tfnvp_model


class Contender(tfnvp_model.Contender):
    """What `benchmarks.throughput` runs."""

    def make_model(self, architecture, options):
        return RealNVP(**architecture, dtype=options.policy, remat=options.remat)


class RealNVP(tfnvp.ImageRealNVP):
    """`tfnvp.ImageRealNVP` with couplings of the common kind."""

    def _couplings(self, *args):
        return [
            Coupling(bijector) if isinstance(bijector, tfnvp.bijectors.AffineCoupling) else bijector
            for bijector in super()._couplings(*args)
        ]


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
