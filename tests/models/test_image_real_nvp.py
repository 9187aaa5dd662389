"""The image model: density, round trip, sampling, sizes, saving, and what it refuses."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfnvp

LEVELS = 16
# Keras warns that a data set is not shuffled by `fit`.
pytestmark = pytest.mark.filterwarnings("ignore:.*shuffle=True")


def _images(rows=5, shape=(4, 4, 2), levels=LEVELS):
    random = np.random.default_rng(0)
    return random.integers(0, levels, size=(rows, *shape)).astype("uint8")


def _floats(rows=5, shape=(4, 4, 2)):
    """In [0, 1], black and white pixels among them."""
    x = np.random.default_rng(1).uniform(size=(rows, *shape)).astype("float32")
    x[:, 0, 0], x[:, 1, 1] = 0, 1
    return x


@pytest.fixture(scope="module")
def model(tiny_model):
    """One scale: two couplings."""
    model = tiny_model((4, 4, 2), levels=LEVELS)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    return model


@pytest.fixture(scope="module")
def deep(tiny_model):
    """Two scales: four couplings, a squeeze and a factor-out."""
    return tiny_model((4, 4, 2), num_scales=2, levels=LEVELS)


# The density.


def test_density_of_two_pixels_integrates_to_one(tiny_model):
    """Over (-a, 1 + a), wider than the pixels; the grid is finer towards the ends."""
    model = tiny_model((1, 2, 1), dtype="float64")
    margin = 0.05 / 0.9
    y = np.linspace(-9, 9, 361)
    sigmoid = 1 / (1 + np.exp(-y))
    x = -margin + (1 + 2 * margin) * sigmoid
    width = (1 + 2 * margin) * sigmoid * (1 - sigmoid) * (y[1] - y[0])
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 1, 2, 1)
    log_prob = tf.function(model.distribution.log_prob)(grid)
    total = np.sum(np.exp(log_prob) * np.outer(width, width).ravel())
    assert abs(total - 1) < 1e-3
    # The weights are no identity's: pixels depend on each other.
    table = np.exp(log_prob).reshape(361, 361) * np.outer(width, width)
    assert np.abs(table - np.outer(table.sum(1), table.sum(0))).sum() > 0.01


def test_log_prob_is_that_of_the_distribution(model):
    x = _floats()
    log_prob = model.log_prob(x)
    assert log_prob.shape == (5,) and log_prob.dtype == tf.float32
    np.testing.assert_allclose(log_prob, model.distribution.log_prob(x), rtol=1e-5)
    assert model.distribution.event_shape == (4, 4, 2)
    # uint8 images are dequantised, with noise, first.
    noisy = model.dequantization(_images())
    np.testing.assert_allclose(model.log_prob(_images()), model.log_prob(noisy), rtol=1e-5)
    assert np.all(np.abs(model.log_prob(_images() / LEVELS) - model.log_prob(_images())) > 1e-3)


def test_the_distributions_own_samples_are_scored_and_encoded(model):
    """A few of their pixels lie a little outside of [0, 1], and some at the very ends."""
    distribution = model.distribution
    x = distribution.sample(64, seed=(0, 1))
    assert np.min(x) < 0 and np.max(x) > 1
    np.testing.assert_allclose(model.log_prob(x), distribution.log_prob(x), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(model.decode(model.encode(x)), x, atol=1e-3)
    ends = distribution.bijector.forward(tf.fill([1, 4, 4, 2], 1e4))
    assert np.isfinite(model.log_prob(ends)).all() and np.isfinite(model.encode(ends)).all()


def test_bits_per_dim_is_of_the_discrete_image(model):
    expected = -model.log_prob(_images()) / (32 * math.log(2)) + 4
    np.testing.assert_allclose(model.bits_per_dim(_images()), expected, rtol=1e-6)


def test_score_depends_on_neither_batch_nor_position(model):
    images = _images()
    whole = model.bits_per_dim(images)
    np.testing.assert_allclose(model.bits_per_dim(images[::-1]), whole[::-1], rtol=1e-6)
    for i in (0, 3):
        np.testing.assert_allclose(model.bits_per_dim(images[i : i + 1])[0], whole[i], rtol=1e-6)


def test_importance_weighted_bound(model):
    """log of the mean density over draws, each by hand; K = 1 is the usual score."""
    images = _images()
    draws = [
        model.distribution.log_prob(model.dequantization(images, draw=draw)) for draw in range(4)
    ]
    assert np.abs(draws[1] - draws[0]).min() > 1e-3
    expected = np.log(np.mean(np.exp(np.float64(draws)), axis=0))
    np.testing.assert_allclose(model.log_prob(images, samples=4), expected, rtol=1e-5)
    np.testing.assert_allclose(model.log_prob(images, samples=1), model.log_prob(images))
    bits = -expected / (32 * math.log(2)) + 4
    np.testing.assert_allclose(model.bits_per_dim(images, samples=4), bits, rtol=1e-5)
    # Jensen: it is above the mean of the bounds that it is made of.
    assert np.all(expected > np.mean(draws, axis=0))


def test_importance_weighted_bound_at_its_edges(model, refuses):
    x = _floats()
    np.testing.assert_allclose(model.log_prob(x, samples=5), model.log_prob(x))
    assert model.log_prob(_images(0), samples=3).shape == (0,)
    refuses(model.log_prob, _images(), samples=0, match="samples=0")
    refuses(model.bits_per_dim, _images() + 1, samples=2, match=r"0\.\.15")


def test_variables_are_those_of_the_distribution(deep, identities):
    for kind in ("trainable_variables", "variables"):
        own = set(identities(getattr(deep, kind)))
        of_distribution = set(identities(getattr(deep.distribution, kind)))
        if kind == "variables":
            own -= set(identities(deep.dequantization.variables + deep._bits_per_dim.variables))
            own -= set(identities(deep._loss.variables))
        assert own == of_distribution
    assert len(deep.trainable_variables) == len(set(identities(deep.trainable_variables)))


def test_each_conditioner_is_in_the_graph_once(deep, count_operations):
    """A network of one block has six convolutions; there are four couplings."""
    x = tf.constant(_floats())

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            log_prob = deep.distribution.log_prob(x)
        return tape.gradient(log_prob, [x, *deep.distribution.trainable_variables])

    operations = count_operations(gradient, x)
    assert operations["Conv2D"] == 24
    assert operations["Conv2DBackpropInput"] == operations["Conv2DBackpropFilter"] == 24
    sampled = count_operations(lambda: deep.distribution.experimental_sample_and_log_prob(2))
    assert sampled["Conv2D"] == 24


def test_starts_as_the_logit_alone():
    """s = t = 0, and batch normalizations have seen nothing."""
    model = tfnvp.ImageRealNVP((4, 4, 1), 1, filters=4, residual_blocks=1)
    x = _floats(shape=(4, 4, 1))
    z = model.encode(x)
    p = 0.05 + 0.9 * x
    np.testing.assert_allclose(z, np.log(p / (1 - p)), rtol=1e-3, atol=1e-3)


def test_architecture_is_that_of_the_paper():
    model = tfnvp.ImageRealNVP((8, 8, 3), 3, filters=4, residual_blocks=1)
    filters = [layer.filters for layer in model._flow_layers if hasattr(layer, "filters")]
    # At each scale three checkerboards and three channel couplings of twice the filters.
    assert sorted(filters) == sorted(3 * [4] + 3 * [8] + 3 * [8] + 3 * [16] + 4 * [16])


@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_the_slopes_of_the_log_prob(tiny_model, training):
    """Along random directions, since many operations here have a gradient of their own."""
    distribution = tiny_model((4, 4, 2), num_scales=2, levels=LEVELS, dtype="float64").distribution
    model = tfnvp.FlowModel(distribution, dtype="float64")

    @tf.function
    def log_prob(x):
        return tf.reduce_sum(model(x, training=training))

    @tf.function
    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = log_prob(x)
        return tape.gradient(value, [x, *[v.value for v in model.trainable_variables]])

    random = np.random.default_rng(2)
    x = tf.constant(random.uniform(0.1, 0.9, size=(5, 4, 4, 2)))
    of_x, *of_variables = gradients(x)

    def check(name, gradient, log_prob_at):
        direction = random.normal(size=gradient.shape)
        direction *= 1e-6 / np.linalg.norm(direction)
        slope = float(log_prob_at(direction) - log_prob_at(-direction)) / 2
        expected = np.sum(gradient * direction)
        tolerance = 1e-5 * 1e-6 * (1 + np.linalg.norm(gradient))
        np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=tolerance, err_msg=name)

    check("x", of_x, lambda step: log_prob(x + step))
    for variable, gradient in zip(model.trainable_variables, of_variables, strict=True):
        before = variable.numpy()

        def log_prob_at(step, variable=variable, before=before):
            variable.assign(before + step)
            return log_prob(x)

        check(variable.path, gradient, log_prob_at)
        variable.assign(before)


# Precision.


def _round_trip_error(model):
    x = _floats(16)
    z = model.encode(x)
    assert z.dtype == tf.float32 and z.shape == x.shape
    return np.abs(model.decode(z) - x).max()


def test_encode_and_decode_meet_again(deep):
    assert _round_trip_error(deep) < 1e-4


def test_encode_and_decode_meet_again_under_a_mixed_policy(tiny_model):
    model = tiny_model((4, 4, 2), num_scales=2, levels=LEVELS, dtype="mixed_bfloat16")
    assert _round_trip_error(model) < 1e-4
    # Elsewhere conditioners still compute in bfloat16.
    computing = {layer.compute_dtype for layer in model._flatten_layers() if "conv" in layer.name}
    assert computing == {"bfloat16"}


@pytest.mark.parametrize("bad", [_floats()[:, :2], np.full((4, 4, 4, 2), np.nan, "float32")])
def test_a_refused_fit_leaves_a_model_that_trains(bad, refuses):
    model = tfnvp.ImageRealNVP((4, 4, 2), 1, filters=4, residual_blocks=1)
    model.compile(optimizer="adam")
    before = [v.numpy() for v in model.trainable_variables]
    refuses(model.fit, bad, verbose=0, match="must have")
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    model.fit(_floats(), verbose=0)
    assert any(
        (v.numpy() != b).any() for v, b in zip(model.trainable_variables, before, strict=True)
    )


def test_no_rows_are_no_rows(model):
    assert model.log_prob(_images(0)).shape == (0,)
    assert model.encode(_floats(0)).shape == model.decode(_floats(0)).shape == (0, 4, 4, 2)


def test_latents_of_a_wrong_shape_are_refused(model, refuses):
    message = r"z must have the shape \[batch, 4, 4, 2\], got \(3, 4, 4, 1\)"
    refuses(model.decode, np.zeros((3, 4, 4, 1), "float32"), match=message)


def test_levels_are_decoded_exactly(model):
    """A uint8 image is encoded as the middle of its levels."""
    decoded = model.decode(model.encode(_images())) * LEVELS
    np.testing.assert_allclose(decoded, _images() + 0.5, atol=1e-2)


def test_mixed_precision_is_close_to_full(tiny_model, model):
    """The model's seed gives both the same weights."""
    mixed = tiny_model((4, 4, 2), levels=LEVELS, dtype="mixed_bfloat16")
    assert all("bfloat16" not in str(v.dtype) for v in mixed.variables)
    difference = np.abs(mixed.bits_per_dim(_images()) - model.bits_per_dim(_images()))
    assert mixed.log_prob(_images()).dtype == tf.float32
    assert 0 < difference.max() < 0.03
    np.testing.assert_allclose(mixed.encode(_floats()), model.encode(_floats()), atol=1e-4)


def test_float64_is_float64_throughout(tiny_model, model):
    double = tiny_model((4, 4, 2), levels=LEVELS, dtype="float64")
    x = _floats().astype("float64")
    assert double.log_prob(x).dtype == double.sample(1).dtype == tf.float64
    np.testing.assert_allclose(double.log_prob(x), model.log_prob(_floats()), rtol=1e-4)
    np.testing.assert_allclose(double.decode(double.encode(x)), x, atol=1e-10)


# Samples.


def test_samples_are_images(model):
    samples = model.sample(7, seed=1)
    assert samples.shape == (7, 4, 4, 2) and samples.dtype == tf.float32
    assert np.min(samples) >= 0 and np.max(samples) <= 1
    assert model.sample(0).shape == (0, 4, 4, 2)
    # Without clipping the range is a little wider.
    unclipped = model.distribution.sample(200, seed=1)
    assert np.min(unclipped) < 0 and np.max(unclipped) > 1


def test_samples_of_a_seed_come_again(model):
    samples = model.sample(7, seed=1)
    np.testing.assert_array_equal(model.sample(7, seed=1), samples)
    np.testing.assert_allclose(model.sample(3, seed=1), samples[:3], atol=1e-5)
    assert np.any(model.sample(7, seed=2) != samples)
    assert np.any(model.sample(7) != model.sample(7))


def test_temperature_draws_latents_to_the_mean(model):
    mean = np.clip(model.decode(np.zeros((1, 4, 4, 2))), 0, 1)
    cold = model.sample(2, temperature=0.0)
    np.testing.assert_allclose(cold, np.repeat(mean, 2, axis=0), atol=1e-5)
    distance = [np.std(model.sample(50, temperature=t, seed=1)) for t in (0.2, 0.6, 1.0)]
    assert distance[0] < distance[1] < distance[2]


# Other sizes.


def test_the_same_weights_at_another_size(deep, identities):
    larger = deep.distribution_for((6, 8, 2))
    assert larger.event_shape == (6, 8, 2)
    assert identities(larger.variables) == identities(deep.distribution.variables)
    assert deep.distribution_for() is deep.distribution
    assert larger.log_prob(_floats(3, (6, 8, 2))).shape == (3,)
    samples = deep.sample(2, image_shape=(6, 8, 2), seed=1)
    assert samples.shape == (2, 6, 8, 2)
    np.testing.assert_array_equal(deep.sample(2, image_shape=(6, 8, 2), seed=1), samples)
    np.testing.assert_array_equal(
        deep.distribution_for((4, 4, 2)).log_prob(_floats()), deep.distribution.log_prob(_floats())
    )


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((5, 4, 2), r"multiples of 2 for num_scales=2, got image_shape=\(5, 4, 2\)"),
        ((4, 6, 3), r"2 channels, .*got image_shape=\(4, 6, 3\)"),
        ((4, 4), r"\(height, width, channels\), got image_shape=\(4, 4\)"),
        ((0, 4, 2), "positive integer, got each size of image_shape=0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(deep, refuses, shape, match):
    refuses(deep.distribution_for, shape, match=match)
    refuses(deep.sample, 1, image_shape=shape, match=match)


# Training and evaluation.


def test_training_lowers_the_loss_of_discrete_images():
    """Images of one grey each take less than the 4 bits that independent values would."""
    keras.utils.set_random_seed(0)
    model = tfnvp.ImageRealNVP((4, 4, 2), 1, filters=8, residual_blocks=1, levels=LEVELS)
    before = [np.array(v) for v in model.trainable_variables]
    grey = np.random.default_rng(0).integers(0, LEVELS, size=(64, 1, 1, 1)).astype("uint8")
    images = np.broadcast_to(grey, (64, 4, 4, 2))
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    history = model.fit(images, batch_size=64, epochs=25, verbose=0).history["bits_per_dim"]
    assert history[0] > 3.8 and history[-1] < 2.8
    for variable, value in zip(model.trainable_variables, before, strict=True):
        # A bias before a batch normalization makes no difference in training.
        idle = variable.name == "bias" and "output_conv" not in variable.path
        assert np.array_equal(variable, value) == idle, variable.path
    evaluated = model.evaluate(images, verbose=0, return_dict=True)["bits_per_dim"]
    assert evaluated < 3, "inference uses what training has gathered"


def test_evaluation_is_reproducible_and_right_for_uneven_batches(model):
    images = _images(10)
    expected = np.mean(model.bits_per_dim(images))
    scores = [
        model.evaluate(images, batch_size=size, verbose=0, return_dict=True) for size in (4, 4, 7)
    ]
    assert scores[0] == scores[1]
    for score in scores:
        np.testing.assert_allclose(score["bits_per_dim"], expected, rtol=2e-6)
    # The regularization of the weight-norm scales is in the loss alone.
    penalty = float(sum(model.losses))
    assert penalty > 1e-4
    np.testing.assert_allclose(scores[0]["loss"], expected + penalty, rtol=2e-6)


def test_labels_beside_the_images_are_left_aside(model):
    images = _images()
    batches = tf.data.Dataset.from_tensors((images, np.arange(5)))
    assert model.evaluate(batches, verbose=0) == model.evaluate(images, verbose=0)


# Saving.


def test_saved_whole_it_scores_the_same_to_the_bit(deep, tmp_path):
    deep.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert isinstance(again, tfnvp.ImageRealNVP)
    assert again.get_config() == deep.get_config()
    np.testing.assert_array_equal(again.log_prob(_images()), deep.log_prob(_images()))


def test_saved_weights_are_the_same_to_the_bit(model, tmp_path):
    model.save_weights(tmp_path / "m.weights.h5")
    config = model.get_config()
    again = type(model).from_config(config)
    assert np.all(again.log_prob(_images()) != model.log_prob(_images()))
    again.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(again.log_prob(_images()), model.log_prob(_images()))


@keras.saving.register_keras_serializable(package="tests")
class OneScale(tfnvp.ImageRealNVP):
    """A user's subclass with arguments of its own."""

    def __init__(self, size, **kwargs):
        super().__init__((size, size, 1), 1, filters=4, residual_blocks=1, **kwargs)
        self.size = size

    def get_config(self):
        ours = {"image_shape", "num_scales", "filters", "residual_blocks"}
        rest = {k: v for k, v in super().get_config().items() if k not in ours}
        return {**rest, "size": self.size}


def test_a_users_subclass_is_saved_whole(tmp_path, randomize):
    model = randomize(OneScale(2, levels=LEVELS, dtype="mixed_bfloat16"))
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert isinstance(again, OneScale) and again.dtype_policy.name == "mixed_bfloat16"
    images = _images(4, (2, 2, 1))
    np.testing.assert_array_equal(again.log_prob(images), model.log_prob(images))


# What is refused.

# By name where shapes are known before, or as TensorFlow finds it once it has traced other shapes.
_SHAPE = r"(images must have the shape \[batch, 4, 4, 2\], got \(|shape \[\?,4,4,2\], got \[)"
_RANGE = (
    r"float images must have values in \[0, 1\], from -0\.0556 to 1\.0556 at most, and no NaN, "
    r"got values from, to "
)
BAD_IMAGES = {
    "rank": (np.zeros((4, 4, 2), "uint8"), _SHAPE),
    "channels": (np.zeros((3, 4, 4, 1), "uint8"), _SHAPE),
    "size": (np.zeros((3, 6, 4, 2), "float32"), _SHAPE),
    "odd size": (np.zeros((3, 5, 5, 2), "uint8"), _SHAPE),
    "dtype": (np.zeros((3, 4, 4, 2), "int32"), r"uint8 with values 0\.\.15 or float .*dtype int32"),
    "strings": (np.full((3, 4, 4, 2), "a"), "got dtype string"),
    "level": (_images(levels=18), r"uint8 images must have values 0\.\.15, got up to 17"),
    "above": (_floats() + 0.5, _RANGE + r"0\.5 1\.5"),
    "below": (_floats() - 0.25, _RANGE + r"-0\.25 0\.75"),
    "nan": (np.where(_floats() == 0, np.nan, _floats()).astype("float32"), _RANGE),
}


class OneCoupling(tfnvp.ImageRealNVP):
    """As ImageRealNVP in what it takes, and quickly traced."""

    def build_distribution(self):
        mask = tfnvp.masks.ChannelHalves(0)
        coupling = tfnvp.bijectors.AffineCoupling(mask, keras.layers.Dense(2))
        return self._over(self.image_shape, coupling)


@pytest.fixture(scope="module")
def one_coupling():
    model = OneCoupling((4, 4, 2), 1, filters=1, residual_blocks=1, levels=LEVELS)
    model.compile(optimizer="sgd")
    return model


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images_are_refused(one_coupling, refuses, kind):
    """In one line, in every way that images come in, also from within Keras' loops."""
    images, match = BAD_IMAGES[kind]
    for function in (one_coupling.log_prob, one_coupling.bits_per_dim, one_coupling.encode):
        refuses(function, images, match=match)
    batches = tf.data.Dataset.from_tensor_slices(images).batch(64)
    for function in (one_coupling.fit, one_coupling.evaluate, one_coupling.predict):
        refuses(function, batches, verbose=0, match=match)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"image_shape": (6, 6, 1), "num_scales": 3}, r"multiples of 4 for num_scales=3, got .*6"),
        ({"image_shape": (4, 4)}, r"must be \(height, width, channels\), got image_shape=\(4, 4\)"),
        ({"image_shape": (4, 4, 0)}, "positive integer, got .*=0"),
        ({"num_scales": 0}, "num_scales must be a positive integer, got num_scales=0"),
        ({"filters": -3}, "filters must be a positive integer, got filters=-3"),
        ({"residual_blocks": 1.0}, r"residual_blocks must be a positive integer, got .*=1\.0"),
        ({"levels": 300}, "levels must be an integer from 2 to 256, got levels=300"),
        ({"alpha": 0.5}, r"alpha must be in \[0, 0\.5\), got alpha=0\.5"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got momentum=1\.0"),
    ],
)
def test_bad_arguments_are_named(refuses, arguments, match):
    sizes = {"image_shape": (4, 4, 1), "num_scales": 1, "filters": 4, "residual_blocks": 1}
    refuses(tfnvp.ImageRealNVP, **{**sizes, **arguments}, match=match)


def test_unknown_preset_lists_the_known_ones(refuses):
    refuses(
        tfnvp.ImageRealNVP.from_preset, "digit", match="unknown preset 'digit'; known: .*digits"
    )


def test_preset_with_a_change():
    model = tfnvp.ImageRealNVP.from_preset("digits", filters=4, residual_blocks=1)
    assert model.image_shape == (8, 8, 1) and model.levels == 17 and model.filters == 4
