"""`FlowDensity` with one of its parts left out, or another in its place: what each step is worth.

Each function here makes one change, for the rest of the process, to what `FlowDensity` is made of.
Cells are not among them: the density tables are jittered before any contender sees them.
"""

import functools

import tensorflow as tf
import tensorflow_probability as tfp

import tfnvp.sklearn
from tfnvp import layers
from tfnvp.bijectors import BatchNormalization, LogTails
from tfnvp.bijectors.coupling import Coupling
from tfnvp.distribution import FlowDistribution
from tfnvp.layers.bounded_log_scale import bounded
from tfnvp.models import VectorRealNVP, fitting

tfb, tfd = tfp.bijectors, tfp.distributions


def no_matrices():
    """The permutations of P L U alone."""
    _freeze(layers.InvertibleMatrix)


def no_curves():
    """No `ElementwiseSpline`."""
    _freeze(layers.SplineWeights)


def no_log_tails():
    """No `LogTails`."""
    _replace(lambda part: LogTails(1e30) if isinstance(part, LogTails) else part)


def no_dropout():
    """No dropout however few rows there are."""
    tfnvp.sklearn.default_dropout = lambda rows: 0.0


def no_averages():
    """No average of the weights: the best weights along the way stay."""
    fitting._DECAY = 0.0


def student_t():
    """Latents of a Student-t density of 5 degrees of freedom."""

    def replaced(self):
        flow = VectorRealNVP.build_distribution(self)
        zeros = tf.zeros(flow.event_shape, self.variable_dtype)
        base = tfd.Independent(tfd.StudentT(tf.constant(5.0, zeros.dtype), zeros, 1 + zeros), 1)
        return FlowDistribution(base, flow.bijector)

    _subclass("build_distribution", replaced)


def spline_couplings():
    """Couplings that bend by splines of 8 bins what they have scaled and shifted."""

    tfnvp.sklearn.FlowDensity = functools.partial(tfnvp.sklearn.FlowDensity, spline_bins=8)


def residual_conditioners():
    """Hidden layers of conditioners that are added to their input, where both are of one size."""

    def call(self, x, context=None, training=None):
        thins = training and self.dropout and self.hidden
        factors = self._thinning(tf.shape(x)[0]) if thins else [1.0] * len(self.hidden)
        for layer, factor in zip(self.hidden, factors, strict=True):
            h = layer(x) * factor
            x = x + h if x.shape[-1] == h.shape[-1] else h
        return bounded(self.log_scale, self.output_layer(x), self.channels)

    layers.DenseNetwork.call = call


def batch_normalization():
    """Batch normalization of what each coupling has changed, as in the image model."""

    class Normalised(VectorRealNVP):
        def build_distribution(self):
            flow = super().build_distribution()
            parts = []
            for part in flow.bijector.bijectors:
                parts.append(part)
                if isinstance(part, Coupling):
                    parts.append(BatchNormalization(part.mask))
            return FlowDistribution(flow.distribution, tfb.Chain(parts))

        def adapt(self, data, *args, **kwargs):
            super().adapt(data, *args, **kwargs)
            self._rows = tf.convert_to_tensor(data[:2048])

        def log_prob(self, x):
            # The weights may be others than at the last call.
            self.refresh_moments(self._rows, batch_size=256)
            return super().log_prob(x)

    tfnvp.sklearn.VectorRealNVP = Normalised


STEPS = (no_matrices, no_curves, no_log_tails, no_dropout, no_averages, student_t)
STEPS += (spline_couplings, residual_conditioners, batch_normalization)
STEPS = {step.__name__: step for step in STEPS}


def _freeze(kind):
    class Frozen(VectorRealNVP):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            for layer in self._flatten_layers():
                if isinstance(layer, kind):
                    layer.trainable = False

    tfnvp.sklearn.VectorRealNVP = Frozen


def _replace(change):
    def replaced(self):
        flow = VectorRealNVP.build_distribution(self)
        parts = [change(part) for part in flow.bijector.bijectors]
        return FlowDistribution(flow.distribution, tfb.Chain(parts))

    _subclass("build_distribution", replaced)


def _subclass(name, method):
    tfnvp.sklearn.VectorRealNVP = type("Ablated", (VectorRealNVP,), {name: method})
