"""Keras' Adam and Muon in fewer operations and variables, for models of many small variables.

A Real NVP has hundreds to thousands of variables, and Keras' Adam makes two more of each and spells
out some 40 operations: half of the graph of a training step, and half of the time before the first
one. These take the same steps as the classes that they are named after, with the same arguments.
"""

import math
import warnings

import keras
import numpy as np
import tensorflow as tf

from tfnvp.graph import replicas
from tfnvp.graph.internals import SummedGradients, slot_index, trained_variables
from tfnvp.layers.l2 import sum_of_squares


@keras.saving.register_keras_serializable(package="tfnvp")
class Adam(SummedGradients, keras.optimizers.Adam):
    """Keras' Adam, a function for each layer, in which small variables are updated together.

    Arguments, steps and saved state are those of `keras.optimizers.Adam`; `variables` are fewer.
    With any option but betas, epsilon, the rate and `global_clipnorm` it is Keras' own.

    Example:
        >>> import tfnvp
        >>> model = tfnvp.ImageRealNVP((8, 8, 1), num_scales=2, filters=8, residual_blocks=1)
        >>> model.compile(optimizer=tfnvp.optimizers.Adam(1e-3, global_clipnorm=100.0))
    """

    _layers = None

    def build(self, variables):
        """As Keras has it: makes the optimizer's variables."""
        if self.built:
            return
        if not self._is_plain(variables):
            super().build(variables)
            return
        # Not Adam's, which makes the slots.
        super(keras.optimizers.Adam, self).build(variables)
        self._layers = _Layers(self, variables)

    def _is_plain(self, variables):
        """Whether there are no options but a global norm, for optimizer and variables."""
        options = (
            self.amsgrad,
            self.weight_decay,
            self.clipnorm,
            self.clipvalue,
            self.use_ema,
            self.gradient_accumulation_steps,
            self.loss_scale_factor,
        )
        return not any(options) and all(
            isinstance(v, keras.Variable) and v.constraint is None and not v.overwrite_with_gradient
            for v in variables
        )

    @property
    def slots(self):
        """Its variables for momentums and velocities, where it is not Keras' own."""
        return [] if self._layers is None else self._layers.slots

    def apply(self, grads, trainable_variables=None):
        """As Keras has it: takes a step."""
        if not self.built and trainable_variables is not None:
            self.build(list(trainable_variables))
        if self._layers is None:
            super().apply(grads, trainable_variables)
            return
        variables = trained_variables(self)
        known = set(map(id, variables))
        variables = variables if trainable_variables is None else list(trainable_variables)
        if unknown := [v for v in variables if id(v) not in known]:
            raise ValueError(
                f"unknown variable {unknown[0]!r}: an optimizer takes steps for the variables that "
                "it was built for; make another one for others"
            )
        given = {
            id(variable): _dense(gradient, variable)
            for gradient, variable in zip(grads, variables, strict=True)
            if gradient is not None
        }
        if missing := [variable.path for variable in variables if id(variable) not in given]:
            warnings.warn(f"no gradients for {', '.join(missing)}", stacklevel=2)
        # A row for each layer.
        gradients = [
            replicas.sum_over([given[id(v)] for v in layer if id(v) in given])
            for layer in self._layers.variables
        ]
        # Scalars, in the most precise of the dtypes.
        dtype = max((tf.as_dtype(v.dtype) for v in variables), key=lambda d: d.size)
        dtype = tf.float32 if dtype.size < 4 else dtype
        shrink = tf.ones([], dtype)
        if self.global_clipnorm:
            squares = [tf.cast(sum_of_squares(row), dtype) for row in gradients if row]
            norm = tf.sqrt(tf.add_n(squares))
            shrink = self.global_clipnorm / tf.maximum(norm, self.global_clipnorm)
        factors = _factors(self, self.beta_1, self.beta_2, self.learning_rate, dtype)
        self._layers.update(gradients, given, shrink, factors)
        replicas.assign(self.iterations, self.iterations + 1)

    def save_own_variables(self, store):
        """As Keras has it, and in its layout: two arrays for each variable."""
        if self._layers is None:
            super().save_own_variables(store)
            return
        head = [variable.numpy() for variable in self._own_variables()]
        for i, array in enumerate([*head, *self._layers.to_arrays(trained_variables(self))]):
            store[str(i)] = array

    def load_own_variables(self, store):
        """As Keras has it, and from its layout."""
        if self._layers is None:
            super().load_own_variables(store)
            return
        own, trained = self._own_variables(), trained_variables(self)
        expected = len(own) + 2 * len(trained)
        if len(store.keys()) != expected:
            warnings.warn(
                f"skipping the state of optimizer {self.name!r}: it has {expected} arrays, "
                f"the saved one {len(store.keys())}",
                stacklevel=2,
            )
            return
        arrays = [store[str(i)] for i in range(expected)]
        for variable, array in zip(own, arrays, strict=False):
            variable.assign(array)
        self._layers.from_arrays(trained, arrays[len(own) :])

    def _own_variables(self):
        """Its variables but for the slots: the number of steps, the rate."""
        return self.variables[: len(self.variables) - len(self.slots)]


class _Layers:
    """The slots of `Adam`: of all small variables of a layer together, of large ones each its own.

    Attributes:
        variables: lists of variables, those of one dtype in an outermost layer.
        slots: the optimizer's variables.
    """

    # Beyond that many elements an operation of its own is not what costs.
    SMALL = 4096

    def __init__(self, optimizer, variables):
        layers = {}
        for variable in variables:
            # "model/layer/.../variable" or "layer/variable"
            layer = *variable.path.split("/")[:-1][:2], variable.dtype
            layers.setdefault(layer, []).append(variable)
        self.variables = list(layers.values())
        self.slots = []
        # Of each layer pairs of variables that have slots in common, and of the two slots.
        self._parts = []
        for layer in self.variables:
            small = [v for v in layer if _size(v) <= self.SMALL]
            parts = [[v] for v in layer if _size(v) > self.SMALL]
            parts += [small] if small else []
            self._parts.append([(part, self._add_slots(optimizer, part)) for part in parts])

    def _add_slots(self, optimizer, part):
        options = {"shape": (sum(map(_size, part)),), "dtype": part[0].dtype}
        if len(part) == 1:
            options["shape"] = part[0].shape
        slots = [optimizer.add_variable(name=name, **options) for name in ("momentum", "velocity")]
        self.slots += slots
        return slots

    def update(self, gradients, given, shrink, factors):
        """Takes a step.

        Args:
            gradients: of each layer, of those of its variables that have one.
            given: a dictionary whose keys are the identities of variables that have one.
            shrink: what gradients are multiplied with.
            factors: of `ResourceApplyAdam`.
        """
        for row, layer, parts in zip(gradients, self.variables, self._parts, strict=True):
            found = dict(zip((id(v) for v in layer if id(v) in given), row, strict=True))
            arguments = []
            for part, slots in parts:
                some = [found.get(id(v)) for v in part]
                if all(gradient is None for gradient in some):
                    continue
                shapes = [tuple(v.shape) for v in part]
                handles = [replicas.handle(v) for v in part]
                arguments.append((some, shapes, handles, *map(replicas.handle, slots)))
            if arguments:
                _update_layer(arguments, shrink, factors)

    def to_arrays(self, variables):
        """Momentum and velocity of each variable."""
        arrays = {}
        for parts in self._parts:
            for part, slots in parts:
                ends = np.cumsum([_size(v) for v in part])[:-1]
                pairs = zip(*(np.split(s.numpy().ravel(), ends) for s in slots), strict=True)
                for variable, pair in zip(part, pairs, strict=True):
                    arrays[id(variable)] = [array.reshape(variable.shape) for array in pair]
        return [array for variable in variables for array in arrays[id(variable)]]

    def from_arrays(self, variables, arrays):
        """Sets what `to_arrays` gives."""
        pairs = zip(arrays[::2], arrays[1::2], strict=True)
        pairs = {id(v): pair for v, pair in zip(variables, pairs, strict=True)}
        for parts in self._parts:
            for part, slots in parts:
                for i, slot in enumerate(slots):
                    values = [np.ravel(pairs[id(v)][i]) for v in part]
                    slot.assign(np.concatenate(values).reshape(slot.shape))


def _dense(gradient, variable):
    """A gradient as a tensor of the variable's dtype and shape."""
    gradient = tf.cast(tf.convert_to_tensor(gradient), variable.dtype)
    gradient.set_shape(variable.shape)
    return gradient


def _size(variable):
    return math.prod(variable.shape)


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
        factors = self._factors.get(variable.dtype)
        if factors is None:
            factors = _factors(self, *betas, rate, variable.dtype)
        # Replicas share no tensor.
        if tf.distribute.get_strategy().num_replicas_in_sync == 1:
            self._factors[variable.dtype] = factors
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=momentum.value.handle,
            v=velocity.value.handle,
            grad=tf.cast(gradient, variable.dtype),
            **factors,
        )


@replicas.SharedFunction
def _update_layer(parts, shrink, factors):
    """Gradients, shapes and resources of variables, and the resources of their slots: a step."""
    for gradients, shapes, variables, momentum, velocity in parts:
        dtype = next(g for g in gradients if g is not None).dtype
        scalars = {name: tf.cast(factor, dtype) for name, factor in factors.items()}
        if len(variables) == 1:
            tf.raw_ops.ResourceApplyAdam(
                var=variables[0],
                m=momentum,
                v=velocity,
                grad=tf.cast(shrink, dtype) * gradients[0],
                **scalars,
            )
            continue
        given = [g is not None for g in gradients]
        gradients = [
            tf.zeros(s, dtype) if g is None else g for g, s in zip(gradients, shapes, strict=True)
        ]
        row = tf.cast(shrink, dtype) * tf.concat([tf.reshape(g, [-1]) for g in gradients], axis=0)
        sizes = [math.prod(shape) for shape in shapes]
        # Where a variable has no gradient, nothing changes.
        where = None if all(given) else tf.constant(np.repeat(given, sizes))
        steps = tf.split(_row_of_steps(row, momentum, velocity, where, **scalars), sizes)
        for variable, step, shape in zip(variables, steps, shapes, strict=True):
            step = tf.reshape(step, shape)
            tf.raw_ops.AssignSubVariableOp(resource=variable, value=step)


def _row_of_steps(gradient, momentum, velocity, where, lr, beta1, beta2, epsilon, **powers):
    """What Adam subtracts; its two slots are updated."""
    after = []
    for slot, value, beta in (
        (momentum, gradient, beta1),
        (velocity, tf.square(gradient), beta2),
    ):
        before = tf.raw_ops.ReadVariableOp(resource=slot, dtype=gradient.dtype)
        before.set_shape(gradient.shape)
        new = before + (value - before) * (1 - beta)
        new = new if where is None else tf.where(where, new, before)
        tf.raw_ops.AssignVariableOp(resource=slot, value=new)
        after.append(new)
    rate = lr * tf.sqrt(1 - powers["beta2_power"]) / (1 - powers["beta1_power"])
    step = rate * after[0] / (tf.sqrt(after[1]) + epsilon)
    return step if where is None else tf.where(where, step, tf.zeros_like(step))


def _factors(optimizer, beta_1, beta_2, learning_rate, dtype):
    """What is the same for all variables of a dtype in a step."""
    step = tf.cast(optimizer.iterations + 1, dtype)
    beta_1, beta_2 = tf.constant(beta_1, dtype), tf.constant(beta_2, dtype)
    return {
        "lr": tf.cast(learning_rate, dtype),
        "beta1": beta_1,
        "beta2": beta_2,
        "beta1_power": tf.pow(beta_1, step),
        "beta2_power": tf.pow(beta_2, step),
        "epsilon": tf.constant(optimizer.epsilon, dtype),
    }
