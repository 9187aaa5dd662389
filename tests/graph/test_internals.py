"""A canary for each private name of TensorFlow, TFP and Keras, and for each workaround.

Each fails on the day on which the name is gone, or on which tfnvp can do without the workaround.
"""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfnvp
from tfnvp.graph import internals
from tfnvp.graph.concatenation import concatenate
from tfnvp.layers import DenseNetwork
from tfnvp.masks import ChannelHalves

tfb, tfd = tfp.bijectors, tfp.distributions
SOURCES = sorted(Path(tfnvp.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_private_names_are_in_one_file(path):
    """Modules of TensorFlow, TFP and Keras that are not public are imported there alone."""
    private = re.findall(
        r"(?:from|import) (?:tensorflow\.core|tensorflow\.python|keras\.src"
        r"|tensorflow_probability\.python)\S*",
        path.read_text(),
    )
    assert not private or path.name == "internals.py"


def test_inner_layers_are_found_at_any_depth():
    inner = keras.layers.Dense(1)
    outer = keras.Sequential([keras.Sequential([inner])])
    assert any(layer is inner for layer in internals.with_inner_layers(outer))


def test_structure_tells_what_a_trace_depends_on():
    layer = keras.layers.Dense(3)
    layer.build((None, 2))
    before = internals.structure([layer])
    layer.kernel.assign(np.ones((2, 3)))
    assert internals.structure([layer]) == before
    layer.enable_lora(1)
    assert internals.structure([layer]) != before


def test_keras_does_not_tell_a_variable_that_it_was_frozen():
    """The day it does, `internals.own_variables` need not set it."""
    layer = keras.layers.Dense(1)
    layer.build((None, 1))
    value = layer.kernel.value
    layer.trainable = False
    assert value.trainable
    assert internals.own_variables(layer)[0] is value
    assert not value.trainable
    layer.trainable = True
    internals.own_variables(layer)
    assert value.trainable


def test_tflite_takes_any_values_for_those_of_keras_variables():
    """The day it finds them, `internals.ListedToConverters` can go."""
    layer = keras.layers.Dense(1, kernel_initializer="ones", use_bias=False)
    layer.build((None, 3))
    function = tf.function(layer).get_concrete_function(tf.TensorSpec([1, 3], tf.float32))

    def operations(held):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], held)
        interpreter = tf.lite.Interpreter(model_content=converter.convert())
        return {operation["op_name"] for operation in interpreter._get_ops_details()}

    assert "VAR_HANDLE" in operations(layer)

    class Listed(list, internals.ListedToConverters):
        pass

    assert "VAR_HANDLE" not in operations(Listed([layer.kernel.value]))


def test_keras_looks_for_directions_of_metrics_in_lists_of_its_own_alone():
    """The day it asks every metric, `internals.LowerIsBetter` can go."""

    class WithMetric(keras.Model):
        listed = ()

        @property
        def metrics(self):
            return [metric, *self.listed]

    metric = keras.metrics.Mean(name="bits")
    metric._direction = "down"
    model = WithMetric()
    stops = keras.callbacks.EarlyStopping("val_bits")
    stops.set_model(model)
    with pytest.raises(ValueError, match="isn't able to automatically determine"):
        stops.on_epoch_end(0, {"val_bits": 1.0})
    model.listed = [internals.LowerIsBetter([metric])]
    stops.on_train_begin()
    stops.on_epoch_end(0, {"val_bits": 1.0})
    assert stops.best == 1.0 and model.listed[0].result() == {}


def test_tensorflows_gradient_of_a_fused_batch_norm_has_wrong_derivatives_in_a_function():
    """The day it has right ones, the gradient in `graph/fused_norm.py` need not be spelt out."""
    x, v = tf.constant([[[[1.0]], [[2.0]]]]), tf.ones([1, 2, 1, 1])
    one = tf.ones([1])

    @tf.function
    def norm(x):
        y = tf.nn.relu(x * 3.0)
        return tf.compat.v1.nn.fused_batch_norm(y, one, one, one, one, is_training=False)[0]

    with tf.autodiff.ForwardAccumulator(x, v) as accumulator:
        y = norm(x)
    found = accumulator.jvp(y)
    assert found is None or np.abs(found - 3.0 * v).max() > 0.1


def test_slots_of_an_optimizer_are_found():
    variables = [keras.Variable([1.0]), keras.Variable([[2.0]])]
    optimizer = keras.optimizers.Adam()
    optimizer.build(variables)
    assert internals.slot_index(optimizer, variables[1]) == 1
    for slot in internals.adam_slots(optimizer, variables[1]):
        assert slot.shape == variables[1].shape


def test_training_is_told_from_inference():
    seen = []

    class Asks(keras.layers.Layer):
        def call(self, x, training=None):
            seen.append(internals.in_training())
            return x

    layer = Asks()
    for training in (True, False):
        layer(tf.zeros([1]), training=training)
    assert [*seen, internals.in_training()] == [True, False, False]


def test_keras_sums_gradients_where_it_is_not_told_otherwise():
    assert callable(keras.optimizers.Adam._all_reduce_sum_gradients)
    pairs = [(tf.ones([1]), keras.Variable([1.0]))]
    assert tfnvp.optimizers.Adam()._all_reduce_sum_gradients(pairs) == pairs


def test_keras_builds_a_model_by_a_batch_where_it_is_not_told_otherwise():
    assert callable(keras.Model._maybe_symbolic_build)


def test_options_of_functions_are_those_of_before_afterwards():
    from tensorflow.python.eager import context

    before = context.context().function_call_options.config_proto_serialized
    with internals.optimised_once():
        within = context.context().function_call_options.config_proto_serialized
    assert within != before
    assert context.context().function_call_options.config_proto_serialized == before


def test_gradient_of_tensorflows_concatenation_takes_the_axis_from_the_forward_function():
    """The day it does not, `graph/concatenation.py` can go."""

    @tf.function
    def forward(x):
        return tf.concat([x, -x], axis=-1)

    def backward_operations(function):
        x = tf.ones([2, 3])
        graph = tf.function(function).get_concrete_function(x)
        _, backward = graph._delayed_rewrite_functions.forward_backward()
        return [op.type for op in backward.graph.get_operations()]

    mine = tf.function(lambda x: concatenate(x, -x))
    assert "ConcatOffset" in backward_operations(forward.python_function)
    assert "ConcatOffset" not in backward_operations(mine.python_function)
    x = tf.constant([[1.0, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = concatenate(x, -x) * [1.0, 2.0, 3.0, 4.0]
    np.testing.assert_array_equal(tape.gradient(y, x), [[-2.0, -2.0]])


# TFP's cache.


def _chain():
    network = DenseNetwork(1, [4])
    network.build((None, 1))
    coupling = tfnvp.bijectors.AffineCoupling(ChannelHalves(0, event_ndims=1), network)
    return tfb.Chain([tfb.Shift([0.5, 0.0]), coupling])


def test_attributes_of_tfp_objects_hold_again_what_others_hold():
    moments = tfnvp.layers.RunningMoments()
    bijector = tfnvp.bijectors.BatchNormalization(None, moments)
    assert bijector.moments is moments is vars(bijector)["_parameters"]["moments"]
    assert any(name.startswith("_self_") for name in vars(bijector))


def test_chains_and_inverses_are_what_they_are_taken_for():
    chain = _chain()
    for one in (chain, tfb.Chain([tfb.Exp()])):
        assert isinstance(one, internals.Chain)
    for one in (tfb.Invert(chain), tfb.Invert(tfb.Exp())):
        assert isinstance(one, internals.Invert)
    assert internals.Chain.__name__ == "_Chain" and internals.Invert.__name__ == "_Invert"
    base = tfd.MultivariateNormalDiag([0.0, 0.0])
    assert type(tfd.TransformedDistribution(base, chain)) is internals.TransformedDistribution


def test_transformed_distributions_of_flows_are_instances_of_the_class_of_that_name():
    base = tfd.MultivariateNormalDiag([0.0, 0.0])
    flow = tfd.TransformedDistribution(base, _chain())
    for one in (flow, tfd.LogNormal(0.0, 1.0)):
        assert isinstance(one, tfd.TransformedDistribution)
    assert not isinstance(tfd.Normal(0.0, 1.0), tfd.TransformedDistribution)
    assert not isinstance(flow, tfd.LogNormal)
    assert not isinstance(flow, tf.__internal__.CompositeTensor)


def test_tfp_still_answers_from_its_cache_where_no_flow_is():
    """The day it does not, `internals.answer_afresh` can go."""
    plain = tfb.Chain([tfb.Scale(2.0), tfb.Exp()])
    x = tf.constant([1.0])
    assert plain.inverse(plain.forward(x)) is x


def test_a_chain_with_a_flow_has_no_cache():
    chain = _chain()
    x = tf.constant([[1.0, 2.0]])
    y = chain.forward(x)
    assert chain.inverse(y) is not x
    keys = [key.subkey[0] for key in tfb.Bijector._cache.storage]
    assert not any(key is chain or key is chain.bijectors[1] for key in keys)


def test_a_chain_of_tfps_own_takes_its_own_way_to_a_log_det():
    chain = tfb.Chain([tfb.Scale(2.0), tfb.Exp()])
    np.testing.assert_allclose(chain.forward_log_det_jacobian([1.0], 1), 1 + np.log(2), rtol=1e-6)
    np.testing.assert_allclose(
        chain.inverse_log_det_jacobian([2 * np.e], 1), -1 - np.log(2), rtol=1e-6
    )


def test_mirrored_replicas_take_collectives_unless_told_otherwise():
    for ops, collective in ((None, True), (tf.distribute.ReductionToOneDevice(), False)):
        strategy = tf.distribute.MirroredStrategy(["CPU:0"], cross_device_ops=ops)
        assert internals.takes_collectives(strategy) is collective


def test_steps_of_a_data_set_are_found_with_their_seeds():
    tf.random.set_seed(None)  # A program that is seeded as a whole has a seed everywhere.
    rows = tf.data.Dataset.range(8)
    found = internals.steps_of(rows.shuffle(4).map(lambda x: x + 1).shuffle(4, seed=3).shard(2, 0))
    (seeded, unseeded) = (seeds for kind, seeds in found if kind == "shuffle")
    assert len(seeded) == 2 and any(seeded) and unseeded == [0, 0]
    assert ("shard", []) in found
    mixed = tf.data.Dataset.sample_from_datasets([rows, rows])
    assert ("random", [0, 0]) in internals.steps_of(mixed)


def test_variables_that_an_optimizer_was_not_built_for_are_found():
    known, unknown = (keras.Variable(1.0) for _ in range(2))
    for optimizer in (
        keras.optimizers.Adam(),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
    ):
        optimizer.build([known])
        assert internals.variables_unknown_to(optimizer, [known, unknown]) == [unknown]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (tfnvp.optimizers.Adam, "_var_key"),
        (tfnvp.optimizers.Adam, "_backend_update_step"),
        (tfnvp.optimizers.Adam, "_clip_gradients"),
        (tfnvp.optimizers.Muon, "_apply_weight_decay"),
    ],
)
def test_keras_still_calls_what_an_optimizer_overrides(kind, name, monkeypatch):
    """Keras would leave an override alone that it no longer calls."""
    calls = []
    real = getattr(kind, name)

    def noted(*args, **kwargs):
        calls.append(name)
        return real(*args, **kwargs)

    monkeypatch.setattr(kind, name, noted)
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        variable = keras.Variable(1.0)
        optimizer = kind(global_clipnorm=1.0)
        optimizer.build([variable])
    strategy.run(tf.function(lambda: optimizer.apply([tf.constant(1.0)], [variable])))
    assert calls


def test_a_frozen_function_has_neither_variables_nor_functions():
    weight = tf.Variable(2.0)
    inner = tf.function(lambda x: weight * x)
    outer = tf.function(lambda x: inner(x) + 1).get_concrete_function(tf.TensorSpec([], tf.float32))
    made = internals.frozen(outer)
    kinds = {operation.type for operation in made.graph.get_operations()}
    assert "Mul" in kinds and not kinds & {"ReadVariableOp", "PartitionedCall"}
    assert not made.variables and len(made.outputs) == 1
