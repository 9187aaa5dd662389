"""The laws that every bijector obeys, in float64 and float32, with random weights."""

import inspect
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers.bijectors import ALL, MODELS

from tfnvp.bijectors import FlowBijector, forward_and_log_det, inverse_and_log_det
from tfnvp.bijectors.flow_bijector import keras_layers

tfb, tfd = tfp.bijectors, tfp.distributions

# A function takes ten times as long to trace and to compile as to run: of the parts of models it is
# tried in float32 alone, in which functions run, and of the two parities one by `make test-all`.
COMPILED = [
    pytest.param(case, marks=[pytest.mark.slow] * case[0].endswith(" 1"))
    for case in ALL
    if case[1] == "float32" or case in MODELS
]
# In eager code the parts are tried in float64, in which faults show best, and in float32 by
# `make test-all`.
EAGER = [
    pytest.param(case, marks=[pytest.mark.slow] * (case[1] == "float32" and case not in MODELS))
    for case in ALL
]
compiled_cases = pytest.mark.parametrize("case", COMPILED, ids=" ".join, indirect=True)


class Case(NamedTuple):
    name: str
    bijector: tfb.Bijector
    x: tf.Tensor  # data of batch shape [2, 3]
    z: tf.Tensor  # latents of batch shape [2, 3]
    tolerance: float

    def close(self, actual, expected, factor=1):
        tolerance = factor * self.tolerance
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module", params=EAGER, ids=" ".join)
def case(request, randomize):
    name, dtype = request.param
    make, event_shape = ALL[request.param]
    bijector = make(dtype)
    random = np.random.default_rng(1)
    x, other = tf.constant(random.uniform(0.02, 0.98, (2, 2, 3, *event_shape)), dtype)
    bijector.inverse(x)  # builds the layers
    if layers := keras_layers(bijector):
        randomize(*layers)
    # Latents of data, for far out a logit is flat, and no float32 can be undone there.
    z = _fresh(bijector.inverse(other))
    return Case(name, bijector, x, z, {"float64": 1e-10, "float32": 2e-5}[dtype])


def _fresh(x):
    """Another tensor of the same values, of which no cache knows."""
    return tf.identity(x)


def _event_ndims(case):
    return case.x.shape.rank - 2


def _maps(bijector, event_ndims):
    """Both directions with their log-dets, as a function of data and latents."""

    def maps(x, z):
        inverse, inverse_log_det = inverse_and_log_det(bijector, x, event_ndims)
        forward, forward_log_det = forward_and_log_det(bijector, z, event_ndims)
        return {
            "inverse": inverse,
            "inverse log-det": inverse_log_det,
            "forward": forward,
            "forward log-det": forward_log_det,
        }

    return maps


def _slogdet(function, x):
    """log |det| of the autodiff Jacobian at x, an event without batch dimensions."""
    size = x.shape.num_elements()
    copies = tf.repeat(x[tf.newaxis], size, axis=0)
    with tf.GradientTape() as tape:
        tape.watch(copies)
        # Copy i gives coordinate i: rows do not see each other, so one backward pass is enough.
        diagonal = tf.linalg.diag_part(tf.reshape(function(copies), [size, size]))
    jacobian = tape.gradient(diagonal, copies)
    return np.linalg.slogdet(np.reshape(jacobian, [size, size]).astype("float64"))[1]


def test_both_together_are_the_four_methods_of_tfp(case):
    b, ndims = case.bijector, _event_ndims(case)
    together = _maps(b, ndims)(case.x, case.z)
    case.close(b.inverse(case.x), together["inverse"])
    case.close(b.inverse_log_det_jacobian(case.x, ndims), together["inverse log-det"])
    case.close(b.forward(case.z), together["forward"])
    case.close(b.forward_log_det_jacobian(case.z, ndims), together["forward log-det"])


def test_answers_are_of_the_current_weights(case):
    """Also where argument and answer are held, TFP's cache being neither asked nor filled."""
    _follows_its_weights(case, lambda function: function)


@compiled_cases
def test_answers_are_of_the_current_weights_in_a_function(case):
    if not isinstance(case.bijector, FlowBijector):
        pytest.skip("a minute to trace; tests/test_distribution.py has whole models in a function")
    _follows_its_weights(case, tf.function)


def _follows_its_weights(case, wrap):
    b, ndims = case.bijector, _event_ndims(case)
    functions = [
        b.inverse,
        lambda x: b.inverse_log_det_jacobian(x, ndims),
        b.forward,
        lambda z: b.forward_log_det_jacobian(z, ndims),
    ]
    arguments = [case.x, case.x, case.z, case.z]

    def answers():
        return [f(argument) for f, argument in zip(functions, arguments, strict=True)]

    def before_and_after():
        before = answers()
        for variable in b.trainable_variables:
            # A histogram stays the same where all of its logits change alike.
            changes = np.linspace(0.005, 0.015, variable.shape.num_elements())
            variable.assign_add(tf.constant(changes, variable.dtype, variable.shape))
        return before, answers(), [f(_fresh(a)) for f, a in zip(functions, arguments, strict=True)]

    weights = [variable.numpy() for variable in b.trainable_variables]
    before, after, fresh = wrap(before_and_after)()
    for variable, value in zip(b.trainable_variables, weights, strict=True):
        variable.assign(value)
    for new, expected in zip(after, fresh, strict=True):
        case.close(new, expected)
    moved = [np.any(np.abs(new - old) > 1e-6) for old, new in zip(before, after, strict=True)]
    assert any(moved) == bool(weights)
    cached = [key.subkey[0] for key in tfb.Bijector._cache.storage]
    assert not any(isinstance(other, FlowBijector) or other is b for other in cached)


def test_gradients_pass_through_samples_and_back(case):
    """TFP's cache would hand back z for inverse(forward(z)), and cut the gradient."""
    b = case.bijector
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(case.z)
        x = b.forward(case.z)
        tape.watch(x)
        z = b.inverse(x)
    assert tape.gradient(z, x) is not None
    if b.trainable_variables:
        assert all(g is not None for g in tape.gradient(z, b.trainable_variables))
    # There and back again is the identity, whose gradient is one.
    case.close(tape.gradient(z, case.z), tf.ones_like(case.z), factor=1000)


def test_inverse_undoes_forward(case):
    case.close(case.bijector.inverse(_fresh(case.bijector.forward(case.z))), case.z, factor=10)


def test_forward_undoes_inverse(case):
    case.close(case.bijector.forward(_fresh(case.bijector.inverse(case.x))), case.x, factor=10)


def test_log_det_is_that_of_the_jacobian(case):
    b, ndims = case.bijector, _event_ndims(case)
    x, z = case.x[0, 1], case.z[1, 2]
    case.close(b.inverse_log_det_jacobian(x, ndims), _slogdet(b.inverse, x), factor=10)
    case.close(b.forward_log_det_jacobian(z, ndims), _slogdet(b.forward, z), factor=10)


def test_log_dets_of_the_two_directions_are_negations(case):
    b, ndims = case.bijector, _event_ndims(case)
    backward = b.inverse_log_det_jacobian(case.x, ndims)
    latents = _fresh(b.inverse(case.x))
    case.close(b.forward_log_det_jacobian(latents, ndims), -backward, factor=10)


def test_batch_dimensions_are_independent(case):
    """Any rank of batch, also none; log-dets are summed over what event_ndims calls an event."""
    ndims = _event_ndims(case)
    maps = _maps(case.bijector, ndims)
    whole = maps(case.x, case.z)
    for key, value in maps(case.x[0], case.z[0]).items():
        case.close(value, whole[key] if whole[key].shape.rank == 0 else whole[key][0])
    for key, value in maps(case.x[1, 2], case.z[1, 2]).items():
        assert value.shape.rank == (0 if "log-det" in key else ndims)
        case.close(value, whole[key] if whole[key].shape.rank == 0 else whole[key][1, 2])
    each = tf.broadcast_to(whole["inverse log-det"], [2, 3])
    summed = case.bijector.inverse_log_det_jacobian(case.x, ndims + 1)
    case.close(summed, tf.reduce_sum(each, axis=1), factor=3)


@compiled_cases
def test_graph_of_unknown_batch_size_does_as_eager_code(case):
    ndims = _event_ndims(case)
    maps = _maps(case.bijector, ndims)
    signature = [tf.TensorSpec([None, *value.shape[2:]], value.dtype) for value in (case.x, case.z)]
    compiled = tf.function(maps, input_signature=signature)
    eager = maps(case.x[0], case.z[0])
    for key, value in compiled(case.x[0], case.z[0]).items():
        case.close(value, eager[key])
    for key, value in compiled(case.x[0, :1], case.z[0, :1]).items():
        case.close(value, eager[key] if eager[key].shape.rank == 0 else eager[key][:1])


@compiled_cases
def test_xla_does_as_eager_code(case):
    maps = _maps(case.bijector, _event_ndims(case))
    eager = maps(case.x, case.z)
    for key, value in tf.function(maps, jit_compile=True)(case.x, case.z).items():
        case.close(value, eager[key], factor=3)


def test_composes_with_bijectors_of_tfp(case):
    b, ndims, dtype = case.bijector, _event_ndims(case), case.x.dtype
    # Data stays where the logit can take it.
    scale, shift = tfb.Scale(tf.constant(0.9, dtype)), tfb.Shift(tf.constant(0.01, dtype))
    size = case.x.shape[2:].num_elements()

    chain = tfb.Chain([shift, scale, b, shift])
    z = case.z - 0.01
    y = _fresh(0.9 * b.forward(case.z) + 0.01)
    log_det = b.forward_log_det_jacobian(case.z, ndims) + size * np.log(0.9)
    case.close(chain.forward(z), y, factor=10)
    case.close(chain.forward_log_det_jacobian(z, ndims), log_det, factor=10)
    case.close(chain.inverse(y), z, factor=10)
    case.close(chain.inverse_log_det_jacobian(y, ndims), -log_det, factor=10)

    inverted = tfb.Invert(b)
    case.close(inverted.forward(case.x), b.inverse(case.x))
    if not isinstance(b, FlowBijector):
        return  # a chain of ten couplings takes its time
    # There and back again, scaled between.
    conjugate = tfb.Chain([b, scale, inverted])
    z = _fresh(b.inverse(case.x))
    y = b.forward(0.9 * z)
    log_det = size * np.log(0.9) + b.forward_log_det_jacobian(0.9 * z, ndims)
    log_det -= b.forward_log_det_jacobian(z, ndims)
    case.close(conjugate.forward(case.x), y, factor=10)
    case.close(conjugate.forward_log_det_jacobian(case.x, ndims), log_det, factor=10)


def test_density_of_a_transformed_distribution(case):
    """log_prob is the base's at the latents plus the log-det, and that of a sample is the same."""
    zeros = tf.zeros(case.z.shape[2:], case.z.dtype)
    base = tfd.Independent(tfd.Normal(zeros, tf.ones([], zeros.dtype)), zeros.shape.rank)
    distribution = tfd.TransformedDistribution(base, case.bijector)
    z = case.bijector.inverse(case.x)
    log_det = case.bijector.inverse_log_det_jacobian(_fresh(case.x), _event_ndims(case))
    case.close(distribution.log_prob(_fresh(case.x)), base.log_prob(z) + log_det, factor=3)
    samples, log_prob = distribution.experimental_sample_and_log_prob([3], seed=(1, 2))
    case.close(distribution.log_prob(_fresh(samples)), log_prob, factor=10)


def test_copy_is_the_same_map_of_the_same_variables(case):
    copy = case.bijector.copy()
    assert copy is not case.bijector
    case.close(copy.inverse(_fresh(case.x)), case.bijector.inverse(case.x))
    variables = case.bijector.variables
    assert [id(v) for v in copy.variables] == [id(v) for v in variables]


def test_parameters_are_the_constructor_arguments(case):
    if not isinstance(case.bijector, FlowBijector):
        pytest.skip("a tfb.Chain")
    arguments = set(inspect.signature(type(case.bijector)).parameters)
    assert set(case.bijector.parameters) == arguments
    for name in arguments - {"name", "validate_args"}:
        assert getattr(case.bijector, name) is case.bijector.parameters[name]
    assert case.bijector.copy(name="other").name == "other"


def test_validate_args_accepts_what_is_valid(case):
    if not isinstance(case.bijector, FlowBijector):
        pytest.skip("a tfb.Chain")
    checked = case.bijector.copy(validate_args=True)
    assert checked.validate_args and not case.bijector.validate_args
    maps = _maps(checked, _event_ndims(case))
    expected = _maps(case.bijector, _event_ndims(case))(case.x, case.z)
    for key, value in maps(_fresh(case.x), _fresh(case.z)).items():
        case.close(value, expected[key])


@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_gradient_reaches_every_variable_and_the_argument(case, direction):
    b, ndims = case.bijector, _event_ndims(case)
    argument = _fresh(case.x if direction == "inverse" else case.z)
    weights = np.random.default_rng(2).normal(
        size=(case.z if direction == "inverse" else case.x).shape
    )
    with tf.GradientTape() as tape:
        tape.watch(argument)
        value = getattr(b, direction)(argument)
        log_det = getattr(b, f"{direction}_log_det_jacobian")(argument, ndims)
        loss = tf.reduce_sum(value * weights) + 3 * tf.reduce_sum(log_det)
    variables = b.trainable_variables
    assert len(variables) == sum(len(layer.trainable_variables) for layer in keras_layers(b))
    for variable, gradient in zip(
        (argument, *variables), tape.gradient(loss, (argument, *variables)), strict=True
    ):
        name = getattr(variable, "name", "argument")
        assert gradient is not None, name
        assert np.all(np.isfinite(gradient)) and np.any(gradient != 0), name
