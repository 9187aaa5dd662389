"""Moments of batch normalizations are of the weights that are scored."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers.few_couplings import FewCouplings

import tfnvp
from tfnvp.layers import RunningMoments
from tfnvp.models.fresh_moments import running_moments

tfb, tfd = tfp.bijectors, tfp.distributions
RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal([1, -2], [2, 0.5], size=(48, 2, 2, 2))


class Normalised(tfnvp.FlowModel):
    """A batch normalization, whose moments are those of the data, and a shift that is learned."""

    def build_distribution(self):
        self.moments = RunningMoments(dtype="float64")
        self.moments.build((None, 2, 2, 2))
        base = tfd.Sample(tfd.Normal(tf.zeros([], "float64"), 1), [2, 2, 2])
        normalization = tfnvp.bijectors.BatchNormalization(moments=self.moments)
        self.shift = keras.layers.Dense(2, use_bias=False, dtype="float64")
        self.shift.build((None, 1))
        context = tf.ones([1], "float64")
        shift = tfnvp.bijectors.ContextShift(self.shift, context, event_ndims=3)
        return tfd.TransformedDistribution(base, tfb.Chain([normalization, shift]))


@pytest.fixture
def fast():
    """A model whose weights change fast, grey images, and how it is trained on them."""
    keras.utils.set_random_seed(0)
    model = FewCouplings((4, 4, 2), 1, filters=8, residual_blocks=1, levels=16)
    grey = np.random.default_rng(0).integers(0, 16, size=(64, 1, 1, 1)).astype("uint8")
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    options = {"batch_size": 64, "epochs": 15, "verbose": 0}
    return model, np.broadcast_to(grey, (64, 4, 4, 2)), options


@pytest.mark.filterwarnings("error:.*lag behind")
def test_validation_is_as_good_as_training_where_weights_change_fast(fast):
    model, images, options = fast
    watched = {"callbacks": [tfnvp.callbacks.WarnOfDrift(images)]}
    history = model.fit(images, validation_data=images, **options, **watched).history
    beyond = np.array(history["val_bits_per_dim"]) - history["bits_per_dim"]
    assert beyond.max() < 0.15, beyond
    # In a loop of one's own they lag behind, and are taken by hand.
    for _ in range(10):
        trained = model.train_on_batch(images, return_dict=True)["bits_per_dim"]
    assert model.bits_per_dim(images).numpy().mean() > trained + 0.5
    model.refresh_moments(images, batch_size=64)
    assert model.bits_per_dim(images).numpy().mean() < trained + 0.15


def test_a_drift_is_warned_of_where_running_averages_are_kept(fast):
    model, images, options = fast
    drift = tfnvp.callbacks.WarnOfDrift(images)
    with pytest.warns(UserWarning, match=r"^epoch \d+: the same rows .* lag behind the weights"):
        model.fit(images, **options, callbacks=[tfnvp.callbacks.FreshMoments(None), drift])
    assert drift.drift > 0.1
    # Looking changes nothing.
    before = model.get_weights()
    with pytest.warns(UserWarning, match="lag behind"):
        drift.on_epoch_end(0)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_drift_of_a_conditional_model_is_that_of_its_labels(randomize):
    """They are classes, as `log_prob` takes them."""
    sizes = {"num_scales": 1, "filters": 4, "residual_blocks": 1, "levels": 16}
    model = randomize(FewCouplings((4, 4, 2), **sizes, num_classes=3))
    model.compile(optimizer="sgd")
    x = np.random.default_rng(0).integers(0, 16, size=(12, 4, 4, 2)).astype("uint8")
    labels = np.arange(12) % 3
    drift = tfnvp.callbacks.WarnOfDrift(x, labels, limit=1e9)
    drift.set_model(model)
    drift.on_epoch_end(0)
    far = drift.drift
    model.refresh_moments((x, labels), batch_size=12)
    drift.on_epoch_end(1)
    assert abs(far) > 0.1 > abs(drift.drift)


def test_a_drift_that_is_no_number_is_warned_of():
    model = Normalised(dtype="float64")
    model.build()
    model.shift.kernel.assign([[np.nan, 0]])
    drift = tfnvp.callbacks.WarnOfDrift(ROWS)
    drift.set_model(model)
    with pytest.warns(UserWarning, match="the same rows have nan bits/dim"):
        drift.on_epoch_end(0)


def test_bad_limits_of_a_drift_are_refused(refuses):
    refuses(tfnvp.callbacks.WarnOfDrift, ROWS, limit=0, match="limit must be above 0")


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_batches_count_alike(momentum):
    layer = RunningMoments(momentum, dtype="float64")
    layer(100 + ROWS, training=True)
    batches = np.split(ROWS, [5, 20])
    for count, batch in enumerate(batches):
        layer.weigh_all_alike(count)
        layer(batch, training=True)
    mean = np.mean([batch.mean(axis=(0, 1, 2)) for batch in batches], axis=0)
    variance = np.mean([batch.var(axis=(0, 1, 2)) for batch in batches], axis=0)
    np.testing.assert_allclose(layer.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(layer.variance, variance, rtol=1e-12)
    assert float(layer.batches) == pytest.approx(3)


class Sequence(keras.utils.PyDataset):
    """The rows in batches of 16."""

    num_batches = 3

    def __getitem__(self, index):
        return (ROWS[16 * index : 16 * index + 16],)


BATCHED = tf.data.Dataset.from_tensor_slices(ROWS).batch(16)
KINDS = {
    "array": lambda: ROWS,
    "weighted": lambda: (ROWS, None, np.ones(48)),
    "data set": lambda: BATCHED,
    "of pairs": lambda: BATCHED.map(lambda x: (x, None, tf.ones(16, "float64"))),
    "without labels": lambda: BATCHED.map(lambda x: (x, None)),
    "generator": lambda: ((batch.numpy(),) for batch in BATCHED),
    "PyDataset": Sequence,
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_data_of_fit_is_taken(kind):
    model = Normalised(dtype="float64")
    model.build()
    model.moments(50 + ROWS, training=True)
    model.refresh_moments(KINDS[kind](), batch_size=16)
    np.testing.assert_allclose(model.moments.mean, ROWS.mean(axis=(0, 1, 2)), rtol=1e-9)
    # Nothing is assigned where the data has ended.
    assert float(model.moments.batches) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_fit_leaves_the_moments_of_all_of_its_batches(kind):
    """Where the running average would be of the last ones above all."""
    model = Normalised(dtype="float64")
    model.compile(optimizer="sgd", run_eagerly=True)
    data = KINDS[kind]()
    x, _, weights = data if isinstance(data, tuple) else (data, None, None)
    size = {"batch_size": 16} if isinstance(x, np.ndarray) else {}
    model.fit(x, sample_weight=weights, shuffle=False, verbose=0, **size)
    np.testing.assert_allclose(model.moments.mean, ROWS.mean(axis=(0, 1, 2)), rtol=1e-6)


def test_batches_of_which_no_row_counts_are_none():
    """They neither count nor keep alive what the averages were."""
    weights = np.repeat([0.0, 1, 0, 1], [16, 16, 4, 12])
    model = Normalised(dtype="float64")
    model.build()
    model.moments(50 + ROWS, training=True)
    rows = tf.data.Dataset.from_tensor_slices((ROWS, weights)).batch(16)
    model.refresh_moments(rows.map(lambda x, weights: (x, None, weights)))
    mean = (ROWS[16:32].mean(axis=(0, 1, 2)) + ROWS[36:].mean(axis=(0, 1, 2))) / 2
    np.testing.assert_allclose(model.moments.mean, mean, rtol=1e-9)
    # Where there is none, as in a training of which no row counts, the averages stay.
    model.refresh_moments((ROWS, None, 0 * weights), batch_size=16)
    np.testing.assert_allclose(model.moments.mean, mean, rtol=1e-9)


def test_a_list_of_keras_callbacks_stays_the_callers():
    """Each `fit` takes the moments of its own data."""
    model = Normalised(dtype="float64")
    model.compile(optimizer="sgd", run_eagerly=True)
    model.build()
    mine = keras.callbacks.CallbackList(add_history=True, model=model)
    for shift in (0, 100):
        model.fit(shift + ROWS, batch_size=16, verbose=0, callbacks=mine)
        mean = shift + ROWS.mean(axis=(0, 1, 2))
        np.testing.assert_allclose(model.moments.mean, mean, rtol=1e-3)
    assert len(mine.callbacks) == 1


SORTED = np.arange(8 * 5000, dtype="float64").reshape(5000, 2, 2, 2)


class SortedSequence(keras.utils.PyDataset):
    """Sorted rows in batches of 10, each of which has rows from all over."""

    num_batches = 500

    def __getitem__(self, index):
        return (SORTED[index::500] + 1000 * index,)


@pytest.mark.parametrize("data", [SORTED, SORTED[::-1], SortedSequence()])
def test_sorted_rows_are_as_any_others(data):
    """A sample of them comes from all over, and so does each of its batches."""
    model = Normalised(dtype="float64")
    model.refresh_moments(data, batch_size=32)
    rows = (
        data if isinstance(data, np.ndarray) else np.concatenate([data[i][0] for i in range(500)])
    )
    deviation = rows.std(axis=(0, 1, 2))
    error = (model.moments.mean - rows.mean(axis=(0, 1, 2))) / deviation
    assert np.abs(error).max() < 0.15
    if isinstance(data, np.ndarray):
        np.testing.assert_allclose(np.sqrt(model.moments.variance), deviation, rtol=0.05)


def test_validation_rows_are_left_out():
    x = np.concatenate([ROWS, 1000 + ROWS])
    model = Normalised(dtype="float64")
    model.compile(optimizer="sgd", run_eagerly=True)
    model.fit(x, batch_size=16, validation_split=0.5, verbose=0)
    np.testing.assert_allclose(model.moments.mean, ROWS.mean(axis=(0, 1, 2)), rtol=1e-6)


def test_moments_are_of_averaged_weights_where_these_are_validated(monkeypatch):
    """The callback comes after the one that swaps them in, and before those that look."""
    order = []
    swap = keras.callbacks.SwapEMAWeights()
    look = keras.callbacks.LambdaCallback(on_test_begin=lambda logs: order.append("look"))
    monkeypatch.setattr(swap, "on_test_begin", lambda logs=None: order.append("swap"))
    monkeypatch.setattr(swap, "on_test_end", lambda logs=None: None)
    model = Normalised(dtype="float64")
    monkeypatch.setattr(model, "refresh_moments", lambda data: order.append("refresh"))
    model.compile(optimizer=keras.optimizers.SGD(use_ema=True), run_eagerly=True)
    model.fit(ROWS, validation_data=ROWS, verbose=0, callbacks=[swap, look])
    assert order == ["swap", "refresh", "look"]


def test_models_without_batch_normalization_have_nothing_to_refresh():
    model = tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=(4,))
    before = model.get_weights()
    assert not running_moments(model)
    model.refresh_moments(np.ones((4, 2), "float32"))
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_bad_data_is_refused(refuses):
    model = Normalised(dtype="float64")
    refuses(model.refresh_moments, ROWS[:, :1], match="shape")
    empty = tf.data.Dataset.from_tensor_slices(ROWS).batch(16).take(0)
    refuses(model.refresh_moments, empty, match="a batch of rows, got none")
