"""Every private name of TensorFlow, TFP and Keras that tfnvp uses: where to look when they change.

Each part names the versions that it was tried with and where its names are defined in the latest.
`tests/graph/test_internals.py` has a canary for each, which fails on the day on which the name is
gone or the workaround is no longer needed.
"""

import abc
import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp
from keras.src.backend.common import global_state
from keras.src.trainers.compile_utils import MetricsList
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel as SavedModelProto  # noqa: F401
from tensorflow.python.eager import context as eager
from tensorflow.python.framework import convert_to_constants
from tensorflow_probability.python.internal import cache_util

from tfnvp.graph import replicas
from tfnvp.graph.held_kernels import holds_kernel

tfb, tfd = tfp.bijectors, tfp.distributions

# Keras 3.10 to 3.15.


class MultiWorkerFit:
    """A mixin for a `keras.Model`: `fit` and `evaluate` under MultiWorkerMirroredStrategy.

    Keras breaks them in two places, both in
    https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/tensorflow/trainer.py
    `tests/training/test_multi_worker.py` fails on the day that Keras mends them: this can go then.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Keras would call the model on a batch of the data, which is then missing from the first
        # epoch, in a way that fails where it lies on several workers. A flow builds itself.
        with self.distribute_strategy.scope():
            self.build()

    def for_keras(self, metrics: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Gives a step's metrics, scalars, the shape in which Keras can reduce them."""
        # Keras takes the mean of each over an axis, which scalars do not have.
        if not isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return metrics
        return {name: tf.reshape(value, [1]) for name, value in metrics.items()}


class ReplicaOptimizer:
    """A mixin for a Keras optimizer whose `apply` is given gradients that are summed over replicas.

    In a function that replicas share each updates variables of its own, where Keras would leave the
    replica and have the strategy update all of them:
    https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/tensorflow/optimizer.py
    """

    @property
    def can_share_steps(self) -> bool:
        """Whether a step assigns Keras variables alone, outside of branches and strategies."""
        decays = self.weight_decay and isinstance(self, keras.optimizers.Adam)
        return not (decays or self.use_ema or self.gradient_accumulation_steps)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> list:
        return list(grads_and_vars)

    def _var_key(self, variable: Any) -> Any:
        # Within a `keras.StatelessScope` a variable's value is a tensor, which has no key.
        return super()._var_key(getattr(variable, "_value", variable))

    def _backend_update_step(
        self, grads: list[tf.Tensor], trainable_variables: list, learning_rate: Any
    ) -> None:
        if not replicas.may_meet_in_functions():
            return super()._backend_update_step(grads, trainable_variables, learning_rate)
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            self.update_step(gradient, variable, learning_rate)

    def _clip_gradients(self, grads: list[tf.Tensor]) -> list[tf.Tensor]:
        if self.clipnorm or not self.global_clipnorm:
            return super()._clip_gradients(grads)
        # It is Keras' formula in half of the operations; norm - norm makes every gradient NaN where
        # the norm is not finite.
        norm, bound = tf.linalg.global_norm(grads), self.global_clipnorm
        scale = bound * tf.minimum(1 / norm, 1 / bound) + (norm - norm)
        return [scale * gradient for gradient in grads]

    def assign(self, variable: Any, value: Any) -> None:
        """Assigns by the Keras variable, which a `keras.StatelessScope` takes note of."""
        variable.assign(tf.cast(value, variable.dtype))

    def assign_add(self, variable: Any, value: Any) -> None:
        """Adds a value to a variable."""
        self.assign(variable, variable + tf.cast(value, variable.dtype))

    def assign_sub(self, variable: Any, value: Any) -> None:
        """Subtracts a value from a variable."""
        self.assign(variable, variable - tf.cast(value, variable.dtype))


class DecayOfEach:
    """A mixin for a Keras optimizer whose `decay_of(variable)` gives a weight decay, or None."""

    def _apply_weight_decay(self, variables: list) -> None:
        for variable in variables:
            decay = self.decay_of(variable)
            if decay is not None and self._use_weight_decay(variable):
                share = tf.cast(decay * self.learning_rate, variable.dtype)
                self.assign_sub(variable, variable * share)


# https://github.com/keras-team/keras/blob/v3.15.1/keras/src/callbacks/monitor_callback.py
class LowerIsBetter(MetricsList):
    """Stands among a model's metrics and tells callbacks the direction of some of them.

    Keras looks for it in a list that `compile` makes, and there alone.
    """

    def __init__(self, metrics: list[keras.metrics.Metric]) -> None:
        super().__init__(metrics)
        for metric in metrics:
            metric._direction = "down"

    def result(self) -> dict[str, tf.Tensor]:
        """Gives nothing: the metrics report for themselves."""
        return {}


# https://github.com/keras-team/keras/blob/v3.15.1/keras/src/layers/layer.py
def with_inner_layers(layer: keras.Layer) -> list[keras.Layer]:
    """Lists a layer and all layers within it, at any depth."""
    return layer._flatten_layers()


# https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/python/trackable/base.py
class ListedToConverters(tf.__internal__.tracking.AutoTrackable):
    """Shows the `tf.Variable`s that it iterates over to whoever saves what holds it.

    TensorFlow's converters do not find the values of Keras variables, and take any for them.
    """

    def _trackable_children(self, *args: Any, **kwargs: Any) -> dict[str, tf.Variable]:
        return {str(i): variable for i, variable in enumerate(self)}


# https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/tensorflow/core.py
def own_variables(layer: keras.Layer) -> list[tf.Variable]:
    """Lists the `tf.Variable`s that a layer's variables keep, and freezes those that are frozen.

    Keras fixes what is trainable when it makes the `tf.Variable`. Within a layer's call or a
    `keras.StatelessScope` the public `value` is another tensor.
    """
    trainable = {id(variable) for variable in layer.trainable_variables}
    # A variable made in a stateless scope has no value yet.
    values = {id(v): v._value for v in layer.variables if v._value is not None}
    for key, value in values.items():
        # A strategy keeps one for each replica.
        for part in getattr(value, "values", (value,)):
            part._trainable = key in trainable
    return list(values.values())


def structure(layers: list[keras.Layer]) -> tuple[list, list[keras.Variable]]:
    """Tells what a trace of layers depends on beside values: their policies and variables.

    Variables are told by their identities; they come too, for who keeps them keeps others from
    getting these.
    """
    trained = [variable for layer in layers for variable in layer._trainable_variables]
    others = [variable for layer in layers for variable in layer._non_trainable_variables]
    facts = [layer.dtype_policy.name for layer in layers]
    facts += [variable.trainable for variable in trained]
    return [*facts, *map(id, trained), *map(id, others)], trained + others


def kind(layer: keras.Layer) -> tuple:
    """Tells what a trace depends on that takes the variables of a layer as its arguments."""
    inner = with_inner_layers(layer)
    states = ((x.dtype_policy.name, getattr(x, "lora_alpha", None), holds_kernel(x)) for x in inner)
    return *((v.name, tuple(v.shape), v.dtype) for v in layer.variables), *states


# https://github.com/keras-team/keras/blob/v3.15.1/keras/src/optimizers/adam.py
def slot_index(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> int:
    """Gives the place of a variable among those that an optimizer was built for."""
    return optimizer._get_variable_index(variable)


def variables_unknown_to(optimizer: Any, variables: list[keras.Variable]) -> list[keras.Variable]:
    """Lists the variables for which an optimizer that is built was not built."""
    known = {id(v) for v in getattr(optimizer, "inner_optimizer", optimizer)._trainable_variables}
    return [variable for variable in variables if id(variable) not in known]


def adam_slots(optimizer: keras.optimizers.Adam, variable: Any) -> tuple:
    """Gives the momentum and the velocity that Adam keeps of a variable."""
    index = slot_index(optimizer, variable)
    return optimizer._momentums[index], optimizer._velocities[index]


def in_training() -> bool:
    """Tells whether a Keras layer or model is being called in training mode."""
    call_context = global_state.get_global_attribute("current_call_ctx")
    return bool(call_context is not None and call_context.training)


# TensorFlow 2.19 to 2.21.


# https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/python/distribute/mirrored_strategy.py
def takes_collectives(strategy: tf.distribute.MirroredStrategy) -> bool:
    """Tells whether replicas exchange by collectives, as they do unless told otherwise."""
    return strategy.extended._cross_device_ops is strategy.extended._collective_ops


# https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/python/framework/convert_to_constants.py
def frozen(function: Any) -> Any:
    """Inlines the functions that a concrete function calls; its variables become constants."""
    return convert_to_constants.convert_variables_to_constants_v2(function, False)


# https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/python/data/ops/shuffle_op.py
def steps_of(dataset: tf.data.Dataset) -> list[tuple[str, list[int]]]:
    """Lists the kinds of steps that made a data set, and the seeds of each: zeros are no seed."""
    seeds = [int(value) for name, value in vars(dataset).items() if name in ("_seed", "_seed2")]
    kind = type(dataset).__name__.removeprefix("_").removesuffix("Dataset").lower()
    return [(kind, seeds), *(step for one in dataset._inputs() for step in steps_of(one))]


@contextlib.contextmanager
def optimised_once() -> Iterator[None]:
    """Within this context TensorFlow spends less time on optimising functions that are called.

    It optimises each function with the graph around it, and again for each device that calls it, in
    two rounds of which the second finds nothing. The options are those of the thread that traces:
    https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/python/eager/context.py
    """
    before = eager.context().function_call_options
    config = tf.compat.v1.ConfigProto.FromString(before.config_proto_serialized)
    options = config.graph_options.rewrite_options
    options.meta_optimizer_iterations = type(options).ONE
    options.function_optimization = type(options).OFF
    eager.context().function_call_options = eager.FunctionCallOptions(config_proto=config)
    try:
        yield
    finally:
        eager.context().function_call_options = before


# TensorFlow Probability 0.25.

#: The classes of every chain, inverse and transformed distribution: `tfb.Chain(...)` is an instance
#: of the first, but not of `tfb.Chain`, where a part of it is no composite tensor.
#: https://github.com/tensorflow/probability/blob/v0.25.0/tensorflow_probability/python/bijectors/chain.py
Chain = tfb.Chain.__mro__[1]
Invert = tfb.Invert.__mro__[1]
TransformedDistribution = tfd.TransformedDistribution.__mro__[1]
#: Attributes of TFP objects that begin so hold again what others hold.
BOOKS = ("_parameters", "_self_")


def _is_instance(cls: type, instance: object) -> bool:
    cls = TransformedDistribution if cls is tfd.TransformedDistribution else cls
    return abc.ABCMeta.__instancecheck__(cls, instance)


def broadcast_base(distribution: tfd.TransformedDistribution) -> tfd.Distribution:
    """Gives the base of a transformed distribution the batch of the whole."""
    return distribution._maybe_broadcast_distribution_batch_shape()


def is_injective(bijector: tfb.Bijector) -> bool:
    """Tells whether a bijector maps one to one, as all but a few do."""
    return bijector._is_injective


# Users take what `tfd.TransformedDistribution(...)` returns for an instance of it.
type(tfd.TransformedDistribution).__instancecheck__ = _is_instance


def answer_afresh(
    where: Callable[[tfb.Bijector], bool],
    in_line: Callable[[tfb.Bijector], bool],
    log_det: Callable[[tfb.Bijector, tf.Tensor, int, bool], tf.Tensor],
) -> None:
    """Makes some TFP bijectors compute every answer anew; all others stay as they are.

    TFP keeps what a bijector answered for as long as argument and answer live. It does not see that
    the weights of a Keras layer change, and hands back x for inverse(forward(x)), through which no
    gradient flows: https://github.com/tensorflow/probability/issues/1510. The cache is an attribute
    of the class in bijectors/bijector.py. For its log-det a chain, in bijectors/composition.py,
    runs each part forward and then each part's log-det.

    Args:
        where: tells whether a bijector has no use for the cache; it is asked once for each, and
            the parts have none then either.
        in_line: tells whether all parts of such a chain map one tensor to one.
        log_det: computes the log-det of such a chain in one pass, from the chain, an argument, the
            rank of its events, and whether it is that of the inverse.
    """
    _BypassableCache.where = staticmethod(where)
    tfb.Bijector._cache = _BypassableCache()

    def in_one_pass(tfp_method: Callable, inverse: bool) -> Callable:
        @functools.wraps(tfp_method)
        def method(chain: Any, argument: Any, event_ndims: int, **kwargs: Any) -> tf.Tensor:
            if kwargs or not _BypassableCache.bypassed_by(chain) or not in_line(chain):
                return tfp_method(chain, argument, event_ndims, **kwargs)
            return log_det(chain, argument, event_ndims, inverse)

        return method

    for inverse, name in enumerate(("_forward_log_det_jacobian", "_inverse_log_det_jacobian")):
        setattr(Chain, name, in_one_pass(getattr(Chain, name), bool(inverse)))


class _BypassableCache(cache_util.BijectorCache):
    """TFP's cache, which is not asked for some bijectors."""

    @classmethod
    def bypassed_by(cls, bijector: tfb.Bijector) -> bool:
        known = vars(bijector)
        if "_tfnvp_bypasses_cache" not in known:
            known["_tfnvp_bypasses_cache"] = bypassed = cls.where(bijector)
            # A part that stands next to the data would cut gradients at samples of the whole.
            for part in bijector.submodules if bypassed else ():
                vars(part)["_tfnvp_bypasses_cache"] = True
        return known["_tfnvp_bypasses_cache"]

    def __get__(self, bijector: tfb.Bijector | None, bijector_class: type | None = None) -> Any:
        if bijector is not None and self.bypassed_by(bijector):
            return _NoCache(bijector)
        return super().__get__(bijector, bijector_class)


class _NoCache:
    """Stands in for the cache of one bijector, and keeps nothing."""

    def __init__(self, bijector: tfb.Bijector) -> None:
        self.forward, self.inverse = bijector._forward, bijector._inverse

    def forward_attributes(self, *_: Any, **__: Any) -> dict[str, tf.Tensor]:
        return {}

    def inverse_attributes(self, *_: Any, **__: Any) -> dict[str, tf.Tensor]:
        return {}
