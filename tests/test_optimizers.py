"""tfnvp's optimizers take the steps of Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from packaging.version import Version

import tfnvp

OPTIMIZERS = {
    tfnvp.optimizers.Adam: keras.optimizers.Adam,
    tfnvp.optimizers.Muon: keras.optimizers.Muon,
}
# Vectors and images, which Muon leaves to Adam, and matrices, of which two have one shape.
SHAPES = [(3,), (5, 4), (5, 4), (4, 7), (2, 2, 3)]


def variables(dtype):
    random = np.random.default_rng(0)
    return [keras.Variable(random.normal(size=shape), dtype=dtype) for shape in SHAPES]


def steps(optimizer, weights, count, seed=1):
    """Weights after steps on random gradients, the first of which are clipped."""
    random = np.random.default_rng(seed)
    apply = tf.function(lambda gradients: optimizer.apply(gradients, weights))
    for i in range(count):
        apply([tf.constant(random.normal(0, 3 / (1 + i), w.shape), w.dtype) for w in weights])
    return [weight.numpy() for weight in weights]


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("float32", {}),
        ("float32", {"weight_decay": 0.1}),
        ("float32", {"gradient_accumulation_steps": 2}),
        ("float64", {}),
    ],
)
@pytest.mark.parametrize("ours", OPTIMIZERS)
def test_steps_are_those_of_keras(ours, dtype, options):
    if ours is tfnvp.optimizers.Muon and dtype == "float64":
        pytest.skip("Keras' Muon has no float64")
    if ours is tfnvp.optimizers.Muon and Version(keras.__version__) < Version("3.13"):
        pytest.skip("Keras before 3.13 has another Muon; tests/compat compares the steps of ours")
    after = []
    for kind in (ours, OPTIMIZERS[ours]):
        rate = keras.optimizers.schedules.CosineDecay(0.1, 10)
        optimizer, weights = kind(rate, global_clipnorm=5.0, **options), variables(dtype)
        optimizer.build(weights)
        after.append(steps(optimizer, weights, 6))
    # In float64 Keras rounds the betas to float32, which is not done here.
    tolerance = 1e-5 if dtype == "float32" else 1e-4
    for value, expected, start in zip(*after, variables(dtype), strict=True):
        np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance)
        assert not np.allclose(value, start.numpy(), atol=0.05)


def test_amsgrad_is_left_to_keras():
    after = []
    for kind in (tfnvp.optimizers.Adam, keras.optimizers.Adam):
        optimizer, weights = kind(0.1, amsgrad=True), variables("float32")
        optimizer.build(weights)
        after.append(steps(optimizer, weights, 4))
    for value, expected in zip(*after, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("ours", OPTIMIZERS)
def test_goes_on_where_it_was_saved(ours, tmp_path, randomize):
    vectors = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    model = randomize(tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=[4]))
    model.compile(optimizer=ours(1e-2))
    model.fit(vectors, batch_size=4, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is ours
    losses = [
        m.fit(vectors, batch_size=4, epochs=2, verbose=0, shuffle=False).history["loss"]
        for m in (model, loaded)
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_adam_is_one_operation_a_variable(count_operations):
    optimizer, weights = tfnvp.optimizers.Adam(0.1), variables("float32")
    optimizer.build(weights)
    counts = count_operations(optimizer.apply, [tf.ones(shape) for shape in SHAPES])
    assert counts["ResourceApplyAdam"] == len(SHAPES)
    assert counts["Pow"] == 2


def step(optimizer, gradients, named, option):
    def apply():
        optimizer.apply(gradients, named)

    apply() if option == "eager" else tf.function(apply)()


# It warns of a gradient that is missing, as Keras does.
@pytest.mark.filterwarnings("ignore:(Gradients do not exist|no gradients for)")
@pytest.mark.parametrize("option", ["eager", "a gradient missing", "no variables named"])
def test_adam_takes_the_steps_of_keras_with(option):
    after = []
    for kind in (tfnvp.optimizers.Adam, keras.optimizers.Adam):
        optimizer, weights = kind(0.1, global_clipnorm=1.0), variables("float32")
        optimizer.build(weights)
        random = np.random.default_rng(1)
        for i in range(4):
            gradients = [tf.constant(random.normal(size=w.shape), w.dtype) for w in weights]
            if option == "a gradient missing" and i == 2:
                gradients[0] = gradients[1] = None
            step(optimizer, gradients, None if option == "no variables named" else weights, option)
        after.append([weight.numpy() for weight in weights])
    for value, expected in zip(*after, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


def test_adam_refuses_variables_that_it_was_not_built_for():
    known, unknown, *_ = variables("float32")
    for options in ({}, {"amsgrad": True}):
        optimizer = tfnvp.optimizers.Adam(0.1, **options)
        optimizer.build([known])
        with pytest.raises(ValueError, match="nknown variable"):
            optimizer.apply([tf.ones(unknown.shape)], [unknown])


def test_adam_saves_what_keras_does():
    """Its state goes into Keras' own, and back."""
    ours, fresh, theirs = (
        kind(0.1) for kind in (tfnvp.optimizers.Adam, tfnvp.optimizers.Adam, keras.optimizers.Adam)
    )
    weights = variables("float32")
    for optimizer in (ours, fresh, theirs):
        optimizer.build(weights)
    before = steps(ours, weights, 3)
    state, again = {}, {}
    ours.save_own_variables(state)
    assert len(state) == 2 + 2 * len(SHAPES)
    expected = steps(ours, weights, 2, seed=2)
    for optimizer in (theirs, fresh):
        for weight, value in zip(weights, before, strict=True):
            weight.assign(value)
        optimizer.load_own_variables(state)
        assert optimizer.iterations == 3
        optimizer.save_own_variables(again)
        for key, array in state.items():
            np.testing.assert_array_equal(again[key], array)
        for value, other in zip(steps(optimizer, weights, 2, seed=2), expected, strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-5)
    with pytest.warns(UserWarning, match="has 12 variables whereas the saved optimizer has 11"):
        fresh.load_own_variables({key: state[key] for key in list(state)[1:]})
