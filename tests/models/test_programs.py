"""A model's distribution inside other programs: frozen, sliced, without rows, far out, copied."""

import copy
import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers.few_couplings import FewCouplings

import tfnvp
from tfnvp.bijectors import AffineCoupling
from tfnvp.graph.internals import with_inner_layers
from tfnvp.masks import ChannelHalves

tfb, tfd = tfp.bijectors, tfp.distributions
pytestmark = pytest.mark.filterwarnings("ignore:.*shuffle=True")


def _own_flow():
    """A flow of a plain Keras network that is not built yet, and bijectors of TFP."""
    network = keras.Sequential([keras.layers.Dense(8, "tanh"), keras.layers.Dense(2, "tanh")])
    coupling = AffineCoupling(ChannelHalves(0, event_ndims=1), network)
    chain = tfb.Chain([tfb.Shift([0.5, 0.0]), coupling, tfb.Permute([1, 0])])
    base = tfd.MultivariateNormalDiag([0.0, 0.0])
    return tfnvp.FlowModel(tfd.TransformedDistribution(base, chain))


MODELS = {
    "images": lambda: FewCouplings((4, 4, 1), 2, filters=4, residual_blocks=1),
    "mixing": lambda: FewCouplings((4, 4, 2), 1, filters=4, residual_blocks=1, mixing=True),
    "images of classes": lambda: FewCouplings(
        (4, 4, 1), 1, filters=4, residual_blocks=1, num_classes=3, conditional_base=True
    ),
    "vectors": lambda: tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=[4]),
    "vectors of classes": lambda: tfnvp.VectorRealNVP(
        3, 2, [4], num_classes=3, conditional_base=True
    ),
    "own flow": _own_flow,
}
CONDITIONAL = [name for name in MODELS if "classes" in name]
compiled = pytest.mark.parametrize("compiled", [lambda f: f, tf.function], ids=["eager", "graph"])
of_labels = pytest.mark.parametrize("model", CONDITIONAL, indirect=True)


# `make test-all` tries what they add to the others.
SLOW = ("mixing", "vectors of classes")
PARAMS = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in MODELS]


@pytest.fixture(scope="module", params=PARAMS)
def model(request, randomize):
    return randomize(MODELS[request.param]())


@pytest.fixture
def distribution(model):
    """The model's distribution, of labels 0, 1, 2 if it has some."""
    return model.distribution_for(**({"labels": [0, 1, 2]} if model.num_classes else {}))


# Frozen is frozen.


def _agree(model, distribution, identities):
    ours, theirs = (identities(m.trainable_variables) for m in (model, distribution))
    assert sorted(ours) == sorted(theirs)
    return len(ours)


def test_both_sides_agree_on_what_is_frozen(model, distribution, identities):
    holder = tfd.Independent(distribution, 0)
    count = _agree(model, distribution, identities)
    everything = len(distribution.variables)
    model.trainable = False
    assert _agree(model, holder, identities) == 0
    model.trainable = True
    innermost = [
        inner
        for layer in model._flow_layers
        for inner in with_inner_layers(layer)
        if inner.trainable_variables and len(with_inner_layers(inner)) == 1
    ]
    innermost[0].trainable = False
    assert 0 < _agree(model, holder, identities) < count
    assert len(distribution.variables) == everything
    innermost[0].trainable = True
    assert _agree(model, distribution, identities) == count


def test_a_model_frozen_before_it_is_built_is_frozen(identities):
    frozen = tfnvp.VectorRealNVP(3, 2, [4], trainable=False)
    assert _agree(frozen, frozen.distribution, identities) == 0


def test_both_sides_agree_after_lora(identities):
    model = tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=[4])
    distribution = model.distribution
    before = _agree(model, distribution, identities)
    for layer in model._flow_layers:
        for dense in getattr(layer, "hidden", []):
            dense.enable_lora(2)
    # Two small matrices in place of each kernel.
    assert _agree(model, distribution, identities) == before + 2


@compiled
def test_what_is_frozen_is_not_moved_by_variational_inference(compiled, randomize):
    """TFP trains whatever its tape sees."""
    model = randomize(tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=[4]))
    networks = [x for x in model._flow_layers if isinstance(x, tfnvp.layers.DenseNetwork)]
    frozen, free = networks
    frozen.trainable = False
    before = {layer: [v.numpy() for v in layer.variables] for layer in (frozen, free)}
    optimizer = importlib.import_module("tf_keras").optimizers.Adam(0.1)
    optimizer.build(model.distribution.trainable_variables)

    def fit():
        return tfp.vi.fit_surrogate_posterior(
            lambda x: -tf.reduce_sum(x**2, axis=-1), model.distribution, optimizer, num_steps=2
        )

    assert np.isfinite(compiled(fit)()).all()
    moved = {
        layer: [np.any(v.numpy() != b) for v, b in zip(layer.variables, values, strict=True)]
        for layer, values in before.items()
    }
    assert not any(moved[frozen]) and all(moved[free])


# Shapes of batches.


@of_labels
def test_a_bijector_of_labels_has_their_batch_shape(model):
    flow = model.distribution_for(labels=[0, 1, 2])
    assert flow.batch_shape == flow.bijector.experimental_batch_shape() == [3]
    shape = flow.event_shape.as_list()
    base = tfd.Independent(tfd.Normal(tf.zeros(shape), 1.0), len(shape))
    plain = tfd.TransformedDistribution(base, flow.bijector)
    for n in (3, 4):
        assert plain.sample(n).shape == flow.sample(n).shape == [n, 3, *shape]
    x = plain.sample(4)
    assert plain.log_prob(x).shape == [4, 3]
    for i in range(3):
        of_one = tfd.TransformedDistribution(base, model.distribution_for(labels=i).bijector)
        np.testing.assert_allclose(
            plain.log_prob(x)[:, i], of_one.log_prob(x[:, i]), rtol=1e-4, atol=1e-4
        )


@of_labels
@compiled
def test_a_distribution_of_labels_is_sliced(model, compiled):
    flow = model.distribution_for(labels=[0, 1, 2])
    x = flow.sample(4, seed=(0, 1))
    whole = flow.log_prob(x)
    assert flow[1].batch_shape == [] and flow[:2].batch_shape == [2]
    sliced = compiled(lambda: [flow[1].log_prob(x[:, 1]), flow[:2].log_prob(x[:, :2])])()
    np.testing.assert_allclose(sliced[0], whole[:, 1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(sliced[1], whole[:, :2], rtol=1e-5, atol=1e-5)
    assert flow[::2].sample(5).shape == [5, 2, *flow.event_shape]


SLICED = {"a new axis": (np.newaxis, (1,)), "two": ((np.newaxis, np.newaxis), (1, 1))}


@pytest.mark.parametrize("name", SLICED)
def test_one_density_takes_new_axes(name, model):
    index, batch = SLICED[name]
    one = model.distribution_for(labels=1) if model.num_classes else model.distribution
    sliced = one[index]
    assert sliced.batch_shape == batch
    x = sliced.sample(2, seed=(0, 1))
    assert x.shape == (2, *batch, *one.event_shape)
    flat = tf.reshape(x, [2, *one.event_shape])
    np.testing.assert_allclose(
        tf.reshape(sliced.log_prob(x), [2]), one.log_prob(flat), rtol=1e-4, atol=1e-3
    )


@compiled
def test_no_rows(distribution, compiled):
    rows = tf.zeros([0, *distribution.batch_shape, *distribution.event_shape])
    answers = compiled(
        lambda x: [
            distribution.log_prob(x),
            distribution.sample(0),
            distribution.bijector.inverse(x),
        ]
    )(rows)
    assert [answer.shape for answer in answers] == [
        rows.shape[: -distribution.event_shape.rank],
        rows.shape,
        rows.shape,
    ]


def test_any_number_of_rows_in_one_trace(distribution):
    """Zero is one of them."""
    ndims = distribution.batch_shape.rank + distribution.event_shape.rank
    x = distribution.sample(2, seed=(0, 1))
    spec = tf.TensorSpec([None, *x.shape[-ndims:]], x.dtype)
    log_prob = tf.function(distribution.log_prob, input_signature=[spec])
    sample = tf.function(lambda n: distribution.sample(n, seed=(0, 1)))
    assert log_prob(x[:0]).shape[0] == sample(tf.constant(0)).shape[0] == 0
    np.testing.assert_allclose(log_prob(x), distribution.log_prob(x), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sample(tf.constant(2)), x, rtol=1e-4, atol=1e-4)


# Far out.


@compiled
def test_far_out_there_is_no_density_and_no_nan(distribution, compiled):
    @compiled
    def value_and_gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            log_prob = distribution.log_prob(x)
        return log_prob, tape.gradient(log_prob, [x, *distribution.trainable_variables])

    for size in (1e10, 1e19, -1e19, 1e30, 3e38, np.inf):
        x = tf.fill([2, *distribution.batch_shape, *distribution.event_shape], np.float32(size))
        log_prob, gradients = value_and_gradients(x)
        if size == 1e10 and "standardizer" in str(distribution.variables):
            assert np.all(log_prob < -1e3)  # Tables have heavy tails.
        else:
            assert np.isneginf(log_prob).all(), size
        for gradient in gradients:
            assert np.isfinite(gradient).all(), size


def test_a_row_far_out_is_no_matter_to_others(distribution):
    x = distribution.sample(3, seed=(0, 1))
    with_far = tf.concat([x, tf.fill(x[:1].shape, 1e19)], axis=0)
    log_prob = distribution.log_prob(with_far).numpy()
    np.testing.assert_allclose(log_prob[:3], distribution.log_prob(x), rtol=1e-4, atol=1e-4)
    assert np.isneginf(log_prob[3]).all()
    # NaN is no point, and stays.
    assert np.isnan(distribution.log_prob(np.nan * x)).all()


# In whatever holds a distribution.


def test_it_is_part_of_plain_distributions_of_tfp(model, distribution):
    batch = distribution.batch_shape.rank
    independent = tfd.Independent(distribution, batch)
    joint = tfd.JointDistributionNamed({"z": tfd.Normal(0.0, 1.0), "x": independent})
    x = independent.sample(2, seed=(0, 1))
    of_x = tf.reduce_sum(distribution.log_prob(x), axis=list(range(1, 1 + batch)))
    np.testing.assert_allclose(independent.log_prob(x), of_x, rtol=1e-5)
    drawn = joint.sample(2)
    expected = independent.log_prob(drawn["x"]) + tfd.Normal(0.0, 1.0).log_prob(drawn["z"])
    np.testing.assert_allclose(joint.log_prob(drawn), expected, rtol=1e-5)
    if not batch:
        return
    mixture = tfd.MixtureSameFamily(tfd.Categorical(probs=[0.2, 0.3, 0.5]), distribution)
    row = x[:, 0]
    each = np.stack([distribution[i].log_prob(row) for i in range(3)], axis=-1)
    expected = np.log(np.exp(np.float64(each)) @ [0.2, 0.3, 0.5])
    np.testing.assert_allclose(mixture.log_prob(row), expected, rtol=1e-3)
    assert mixture.sample(5).shape == [5, *distribution.event_shape]


def test_a_deep_copy_has_variables_of_its_own(distribution, identities):
    copied = copy.deepcopy(distribution)
    x = distribution.sample(2, seed=(0, 1))
    before = distribution.log_prob(x)
    np.testing.assert_array_equal(copied.log_prob(x), before)
    ours, theirs = (identities(d.variables) for d in (distribution, copied))
    assert len(ours) == len(theirs) and not set(ours) & set(theirs)
    assert len(copied.trainable_variables) == len(distribution.trainable_variables)
    for variable in copied.trainable_variables:
        variable.assign_add(0.1 * tf.ones_like(variable))
    np.testing.assert_array_equal(distribution.log_prob(x), before)
    assert np.all(np.abs(copied.log_prob(x) - before) > 1e-4)


# Keras' own.


def test_a_model_is_exported_before_its_first_call(model, tmp_path):
    model.export(tmp_path / "exported", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "exported"))
    distribution = model.distribution_for(**({"labels": [1, 2]} if model.num_classes else {}))
    x = distribution.sample(**({} if model.num_classes else {"sample_shape": 2}), seed=(0, 1))
    labels = [tf.constant([1, 2], tf.int64)] if model.num_classes else []
    np.testing.assert_allclose(
        loaded.serve(x, *labels), distribution.log_prob(x), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("monitor", ["val_bits_per_dim", "loss"])
def test_callbacks_know_which_way_is_better(monitor, tmp_path):
    model = tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=[4])
    model.compile(optimizer="adam")
    x = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras", monitor=monitor, save_best_only=True
    )
    stops = keras.callbacks.EarlyStopping(monitor, patience=1, restore_best_weights=True)
    history = model.fit(x, validation_data=x, epochs=3, verbose=0, callbacks=[best, stops]).history
    assert set(history) == {"loss", "bits_per_dim", "val_loss", "val_bits_per_dim"}
    assert best.best == min(history[monitor]) == stops.best


def test_a_summary_shows_scales_couplings_parameters_and_shapes(model):
    printed = []
    model.summary(print_fn=lambda line, **_: printed.append(line))
    text = "\n".join(printed)
    flow = model.flow
    count = sum(np.prod(v.shape) for v in model.trainable_variables if "base_mean" not in v.path)
    couplings = [line for line in text.splitlines() if "AffineCoupling" in line]
    networks = [
        layer
        for layer in model._flow_layers
        if "network" in layer.name or "sequential" in layer.name
    ]
    assert f"events {flow.event_shape.as_list()}" in text
    assert f"{len(networks)} coupling" in text and len(couplings) == len(networks)
    assert f"{count:,} trainable parameters" in text
    for line, layer in zip(couplings, networks, strict=True):
        assert line.startswith("scale ") and f"{layer.count_params():,}" in line
    if hasattr(model, "num_scales"):
        assert f"scale {model.num_scales}" in text and f"scale {model.num_scales + 1}" not in text
        if model.num_scales == 2:
            assert any(line.startswith("scale 2  [2, 2, 2]") for line in couplings)
    assert "Total params" in text
