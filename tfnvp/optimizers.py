"""Keras' Adam and Muon in fewer operations, for models of many small variables.

A Real NVP has hundreds to thousands of variables, and Keras' Adam spells out some 40 operations for
each: more than half of the time before the first step (docs/performance.md). These take the same
steps as the classes that they are named after, with the same arguments. Under a strategy gradients
are summed over replicas before they are clipped, as one device clips them.
"""

from typing import Any

import keras
import tensorflow as tf

from tfnvp.graph import replicas
from tfnvp.graph.internals import ReplicaOptimizer, adam_slots, slot_index
from tfnvp.types import TensorLike


@keras.saving.register_keras_serializable(package="tfnvp")
class Adam(ReplicaOptimizer, keras.optimizers.Adam):
    """Keras' Adam, with TensorFlow's fused operation for each variable.

    Arguments, steps and saved state are those of `keras.optimizers.Adam`.

    Example:
        >>> import tfnvp
        >>> model = tfnvp.ImageRealNVP((8, 8, 1), num_scales=2, filters=8, residual_blocks=1)
        >>> model.compile(optimizer=tfnvp.optimizers.Adam(1e-3, global_clipnorm=100.0))
    """

    def apply(self, grads: list[tf.Tensor | None], trainable_variables: Any = None) -> None:
        """Takes a step."""
        self._known_factors = {}
        super().apply(_summed(grads), trainable_variables)

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable | tf.Variable, learning_rate: TensorLike
    ) -> None:
        """Updates one variable and its slots."""
        if self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
            return
        factors = _factors(self, self.beta_1, self.beta_2, learning_rate, variable.dtype)
        _apply_adam(variable, *adam_slots(self, variable), gradient, factors)


@keras.saving.register_keras_serializable(package="tfnvp")
class Muon(ReplicaOptimizer, keras.optimizers.Muon):
    """Keras' Muon, traced once for each shape of matrix, and as `Adam` for all else.

    Arguments, steps and saved state are those of `keras.optimizers.Muon`.
    """

    def apply(self, grads: list[tf.Tensor | None], trainable_variables: Any = None) -> None:
        """Takes a step."""
        self._known_factors = {}
        # The function is not inlined, so that matrices of one shape are optimised once.
        self._orthogonalize = tf.function(
            super().zeropower_via_newtonschulz5, experimental_attributes={"_noinline": True}
        )
        super().apply(_summed(grads), trainable_variables)

    def zeropower_via_newtonschulz5(self, x: tf.Tensor, steps: int) -> tf.Tensor:
        """Gives about the nearest matrix with orthogonal rows or columns, as Keras does."""
        return self._orthogonalize(x, steps)

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable | tf.Variable, learning_rate: TensorLike
    ) -> None:
        """Updates one variable; matrices as Keras does, all others by Adam's operation."""
        index = slot_index(self, variable)
        momentum, velocity = self.momentums[index], self.adam_velocities[index]
        if velocity is None:  # a matrix
            super().update_step(gradient, variable, learning_rate)
            return
        betas, rate = (self.adam_beta_1, self.adam_beta_2), learning_rate * self.adam_lr_ratio
        factors = _factors(self, *betas, rate, variable.dtype)
        _apply_adam(variable, momentum, velocity, gradient, factors)


def _summed(gradients: list[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """Sums gradients over replicas: Keras clips those of each replica, and then sums them."""
    given = [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
    sums = iter(replicas.sum_each_over(given))
    return [None if gradient is None else next(sums) for gradient in gradients]


def _apply_adam(
    variable: keras.Variable | tf.Variable,
    momentum: keras.Variable,
    velocity: keras.Variable,
    gradient: tf.Tensor,
    factors: dict[str, tf.Tensor],
) -> None:
    tf.raw_ops.ResourceApplyAdam(
        var=replicas.handle(variable),
        m=replicas.handle(momentum),
        v=replicas.handle(velocity),
        grad=tf.cast(gradient, variable.dtype),
        **factors,
    )


def _factors(
    optimizer: Adam | Muon,
    beta_1: float,
    beta_2: float,
    learning_rate: TensorLike,
    dtype: tf.DType | str,
) -> dict[str, tf.Tensor]:
    """Computes what is the same for all variables of a dtype in a step."""
    # Replicas that run a step each for itself share no tensor.
    shares = replicas.may_meet_in_functions()
    if shares and dtype in optimizer._known_factors:
        return optimizer._known_factors[dtype]
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
    optimizer._known_factors[dtype] = factors
    return factors
