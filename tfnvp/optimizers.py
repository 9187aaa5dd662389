"""Keras' Adam and Muon in fewer operations, for models of many small variables.

A Real NVP has hundreds to thousands of variables, and Keras' Adam spells out some 40 operations for
each: more than half of the time before the first step (docs/performance.md). These take the same
steps as the classes that they are named after, with the same arguments. Under a strategy gradients
are summed over replicas before they are clipped, as one device clips them.
"""

import re
from typing import Any

import keras
import tensorflow as tf

from tfnvp.graph import replicas
from tfnvp.graph.internals import DecayOfEach, ReplicaOptimizer, adam_slots, slot_index
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
class Muon(ReplicaOptimizer, DecayOfEach, keras.optimizers.Muon):
    """Keras' Muon, traced once for each shape of matrix, and as `Adam` for all else.

    Arguments, steps and saved state are those of `keras.optimizers.Muon` in Keras 3.13 and later;
    they are the same with earlier ones, whose own Muon is another. All arguments but the learning
    rate are passed by name.

    Args:
        learning_rate: a number or a schedule, as that of Adam.
        weight_decay: the decoupled weight decay of matrices, or None.
        adam_weight_decay: that of all other variables.
        adam_lr_ratio: the learning rate of all other variables over that of matrices.
        ns_steps: how many times Newton-Schulz is iterated, which makes a step orthogonal.
        rms_rate: the root mean square of a step's entries over the learning rate, about; None
            leaves the singular values at about 1.
        **options: the other arguments of `keras.optimizers.Muon`.

    Example:
        >>> import tfnvp
        >>> model = tfnvp.ImageRealNVP((8, 8, 1), num_scales=2, filters=8, residual_blocks=1)
        >>> model.compile(optimizer=tfnvp.optimizers.Muon(4e-3, exclude_layers=["output_conv"]))
    """

    # Keras before 3.13 has other defaults, another scale of the steps, one weight decay for all, no
    # Adam for what has three axes, and one slot for variables of one path. All of that is spelt out
    # here; the iteration and the other arguments, which never changed, are Keras'.
    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.001,
        *,
        weight_decay: float | None = 0.004,
        adam_weight_decay: float | None = 0.004,
        adam_lr_ratio: float = 1,
        ns_steps: int = 5,
        rms_rate: float | None = 0.2,
        **options: Any,
    ) -> None:
        options |= {"weight_decay": weight_decay, "adam_lr_ratio": adam_lr_ratio}
        super().__init__(learning_rate, ns_steps=ns_steps, **options)
        self.adam_weight_decay = adam_weight_decay
        self.rms_rate = rms_rate

    def build(self, variables: list[keras.Variable]) -> None:
        """Makes a momentum for each variable, and a velocity for each that gets Adam's steps."""
        if self.built:
            return
        keras.optimizers.Optimizer.build(self, variables)
        self.momentums, self.adam_velocities = [], []
        for variable in variables:
            slot = self.add_variable_from_reference
            self.momentums.append(slot(variable, name="momentum"))
            by_adam = self._gets_adams_steps(variable)
            self.adam_velocities.append(slot(variable, name="velocity") if by_adam else None)

    def apply(self, grads: list[tf.Tensor | None], trainable_variables: Any = None) -> None:
        """Takes a step."""
        self._known_factors = {}
        # The function is not inlined, so that matrices of one shape are optimised once.
        self._orthogonalize = tf.function(
            self.zeropower_via_newtonschulz5, experimental_attributes={"_noinline": True}
        )
        super().apply(_summed(grads), trainable_variables)

    def decay_of(self, variable: keras.Variable | tf.Variable) -> float | None:
        """Gives the weight decay of a variable."""
        return self.adam_weight_decay if self._gets_adams_steps(variable) else self.weight_decay

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable | tf.Variable, learning_rate: TensorLike
    ) -> None:
        """Updates one variable; matrices by orthogonal steps, all others by Adam's operation."""
        index = slot_index(self, variable)
        momentum, velocity = self.momentums[index], self.adam_velocities[index]
        if velocity is not None:
            betas, rate = (self.adam_beta_1, self.adam_beta_2), learning_rate * self.adam_lr_ratio
            factors = _factors(self, *betas, rate, variable.dtype)
            _apply_adam(variable, momentum, velocity, gradient, factors)
            return
        self.assign_add(momentum, gradient + momentum * (self.momentum - 1))
        ahead = gradient + self.momentum * momentum if self.nesterov else momentum
        step = self._orthogonalize(tf.convert_to_tensor(ahead), self.ns_steps)
        if self.rms_rate is not None:
            step *= self.rms_rate * max(variable.shape) ** 0.5
        self.assign_sub(variable, learning_rate * step)

    def get_config(self) -> dict[str, Any]:
        """Gives the arguments that make this optimizer again."""
        own = {"adam_weight_decay": self.adam_weight_decay, "rms_rate": self.rms_rate}
        return super().get_config() | own

    def _gets_adams_steps(self, variable: keras.Variable | tf.Variable) -> bool:
        path = variable.path
        return (
            len(variable.shape) != 2
            or (self.exclude_embeddings and "embedding" in path.lower())
            or any(re.search(pattern, path) for pattern in self.exclude_layers)
        )


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
