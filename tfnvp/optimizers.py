"""Keras' Adam and Muon in fewer operations, for models of many small variables.

A Real NVP has hundreds to thousands of variables, and Keras' Adam spells out some 40 operations for
each: half of the graph of a training step, and half of the time before the first one. These take
the same steps as the classes that they are named after, with the same arguments.
"""

import keras
import tensorflow as tf

from tfnvp.keras_internals import SummedGradients, adam_slots, slot_index
from tfnvp.layers.l2 import sum_of_squares


@keras.saving.register_keras_serializable(package="tfnvp")
class Adam(SummedGradients, keras.optimizers.Adam):
    """Keras' Adam, with TensorFlow's fused operation for each variable.

    Arguments, steps and saved state are those of `keras.optimizers.Adam`.

    Example:
        >>> import tfnvp
        >>> model = tfnvp.ImageRealNVP((8, 8, 1), num_scales=2, filters=8, residual_blocks=1)
        >>> model.compile(optimizer=tfnvp.optimizers.Adam(1e-3, global_clipnorm=100.0))
    """

    def apply(self, grads, trainable_variables=None):
        """As Keras has it: takes a step."""
        self._factors = {}
        if self._takes_layers_whole(grads, trainable_variables):
            self._apply_to_layers(grads, trainable_variables)
            self.iterations.assign_add(1)
        else:
            super().apply(grads, trainable_variables)

    def _takes_layers_whole(self, grads, variables):
        """Whether this is a step of one device in a graph, with no option but a global norm."""
        options = (
            self.amsgrad,
            self.weight_decay,
            self.clipnorm,
            self.clipvalue,
            self.use_ema,
            self.gradient_accumulation_steps,
            self.loss_scale_factor,
        )
        return (
            self.built
            and variables is not None
            and not tf.executing_eagerly()
            and tf.distribute.get_strategy().num_replicas_in_sync == 1
            and not any(options)
            and all(isinstance(gradient, tf.Tensor) for gradient in grads)
            and all(
                isinstance(v, keras.Variable)
                and v.constraint is None
                and not v.overwrite_with_gradient
                for v in variables
            )
        )

    def _apply_to_layers(self, grads, variables):
        """Clips and updates the variables of each of the outermost layers in a function.

        Layers of the same variables share one, which is traced and optimised once.
        """
        momentums, velocities = adam_slots(self)
        layers = {}
        for gradient, variable in zip(grads, variables, strict=True):
            index = slot_index(self, variable)
            slots = variable.value, momentums[index].value, velocities[index].value
            # "model/layer/.../variable" or "layer/variable"
            layer = tuple(variable.path.split("/")[:-1][:2])
            layers.setdefault(layer, []).append((gradient, *slots))
        layers = [tuple(zip(*layer, strict=True)) for layer in layers.values()]
        # Scalars, in the most precise of the dtypes.
        dtype = max((tf.as_dtype(v.dtype) for v in variables), key=lambda d: d.size)
        dtype = tf.float32 if dtype.size < 4 else dtype
        shrink = tf.ones([], dtype)
        if self.global_clipnorm:
            squares = [tf.cast(sum_of_squares(gradients), dtype) for gradients, *_ in layers]
            norm = tf.sqrt(tf.add_n(squares))
            shrink = self.global_clipnorm / tf.maximum(norm, self.global_clipnorm)
        factors = _factors(self, self.beta_1, self.beta_2, self.learning_rate, dtype)
        for layer in layers:
            _update_layer(*layer, shrink, factors)

    def update_step(self, gradient, variable, learning_rate):
        """As Keras has it: updates one variable."""
        if self.amsgrad:
            return super().update_step(gradient, variable, learning_rate)
        index = slot_index(self, variable)
        momentum, velocity = (slots[index] for slots in adam_slots(self))
        factors = _factors(self, self.beta_1, self.beta_2, learning_rate, variable.dtype)
        _adam(variable, momentum, velocity, gradient, factors)


@keras.saving.register_keras_serializable(package="tfnvp")
class Muon(SummedGradients, keras.optimizers.Muon):
    """Keras' Muon, traced once for each shape of matrix, and as `Adam` for all else.

    Arguments, steps and saved state are those of `keras.optimizers.Muon`.
    """

    def apply(self, grads, trainable_variables=None):
        """As Keras has it: takes a step."""
        self._factors = {}
        # Not inlined, so that what matrices of one shape share is optimised once.
        self._orthogonalize = tf.function(
            super().zeropower_via_newtonschulz5, experimental_attributes={"_noinline": True}
        )
        super().apply(grads, trainable_variables)

    def zeropower_via_newtonschulz5(self, x, steps):
        """As Keras has it: the nearest matrix with orthogonal rows or columns, about."""
        return self._orthogonalize(x, steps)

    def update_step(self, gradient, variable, learning_rate):
        """As Keras has it: updates one variable."""
        index = slot_index(self, variable)
        momentum, velocity = self.momentums[index], self.adam_velocities[index]
        if velocity is None:  # a matrix
            super().update_step(gradient, variable, learning_rate)
            return
        betas, rate = (self.adam_beta_1, self.adam_beta_2), learning_rate * self.adam_lr_ratio
        factors = _factors(self, *betas, rate, variable.dtype)
        _adam(variable, momentum, velocity, gradient, factors)


# Not inlined, so that what layers share is optimised once.
@tf.function(autograph=False, experimental_attributes={"_noinline": True})
def _update_layer(gradients, variables, momentums, velocities, shrink, factors):
    for gradient, variable, momentum, velocity in zip(
        gradients, variables, momentums, velocities, strict=True
    ):
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=momentum.handle,
            v=velocity.handle,
            grad=tf.cast(shrink, variable.dtype) * tf.cast(gradient, variable.dtype),
            **{name: tf.cast(factor, variable.dtype) for name, factor in factors.items()},
        )


def _adam(variable, momentum, velocity, gradient, factors):
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=momentum.value.handle,
        v=velocity.value.handle,
        grad=tf.cast(gradient, variable.dtype),
        **factors,
    )


def _factors(optimizer, beta_1, beta_2, learning_rate, dtype):
    """What is the same for all variables of a dtype in a step."""
    if dtype in optimizer._factors:
        return optimizer._factors[dtype]
    step = tf.cast(optimizer.iterations + 1, dtype)
    beta_1, beta_2 = tf.constant(beta_1, dtype), tf.constant(beta_2, dtype)
    factors = {
        "lr": tf.cast(learning_rate, dtype),
        "beta1": beta_1,
        "beta2": beta_2,
        "beta1_power": tf.pow(beta_1, step),
        "beta2_power": tf.pow(beta_2, step),
        "epsilon": tf.constant(optimizer.epsilon, dtype),
    }
    # Replicas share no tensor.
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        optimizer._factors[dtype] = factors
    return factors
