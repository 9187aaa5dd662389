"""Under XLA data is checked before a step sees it, and batches have one size."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.few_couplings import FewCouplings

import tfnvp
from tfnvp.models.host_checks import check_on_the_host, dataset_of

pytestmark = pytest.mark.filterwarnings("ignore:.*shuffle=True")
RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(11, 2)).astype("float32")
LABELS = np.arange(11) % 3
PIXELS = RANDOM.integers(0, 17, (11, 4, 4, 1)).astype("uint8")


def _wrong(array, value):
    wrong = array.copy()
    wrong[9] = value
    return wrong


def _vectors(**options):
    return tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=(4,), **options)


def _labelled():
    return _vectors(num_classes=3)


def _images(**options):
    return FewCouplings((4, 4, 1), 1, 4, 1, levels=17, **options)


# A model, data with something wrong in the third batch of 4, and what is said of it.
WRONG = {
    "NaN": (_vectors, (_wrong(VECTORS, np.nan),), "vectors must be finite, got NaN"),
    "class 7": (_labelled, (VECTORS, _wrong(LABELS, 7)), "0..2, .* got 7$"),
    "class -5": (_labelled, (VECTORS, _wrong(LABELS, -5)), "got -5$"),
    "pixel": (_images, (_wrong(PIXELS, 200),), r"values 0\.\.16, got up to 200"),
    "intensity": (_images, (_wrong(PIXELS / np.float32(17), 1.5),), "values in .* got .* 1.5"),
    "weight": (_vectors, (VECTORS, None, _wrong(np.ones(11), -1)), "0 or more, got -1"),
}


class Batches(keras.utils.PyDataset):
    """Batches of 4 rows."""

    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def __len__(self):
        return 3

    def on_epoch_begin(self):
        self.begun = True

    def __getitem__(self, index):
        rows = slice(4 * index, 4 * index + 4)
        return tuple(None if part is None else part[rows] for part in self.parts)


def _generator(parts):
    batches = Batches(parts)
    return (batches[i] for i in range(3))


def _data_set(parts):
    return dataset_of(list(parts), 4, shuffle=False)


KINDS = {"data set": _data_set, "generator": _generator, "PyDataset": Batches}


@pytest.fixture(scope="module")
def models():
    """By the name of what is wrong, a model of which steps are compiled by XLA."""
    made = {make: make() for make, *_ in WRONG.values()}
    for model in made.values():
        model.compile(optimizer=keras.optimizers.SGD(0.01), jit_compile=True)
    return {name: made[make] for name, (make, *_) in WRONG.items()}


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_of_arrays_are_refused(name, method, models, refuses):
    (_, parts, message), model = WRONG[name], models[name]
    before = model.get_weights()
    arguments = dict(zip(("x", "y", "sample_weight"), parts, strict=False))
    if method == "predict":
        if arguments.keys() != {"x"}:
            return  # Keras takes neither labels nor weights of arrays here.
        refuses(model.predict, arguments["x"], batch_size=12, verbose=0, match=message)
    else:
        refuses(getattr(model, method), **arguments, batch_size=12, verbose=0, match=message)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_wrong_values_of_any_data_are_refused(kind, method, models, refuses):
    data, model = KINDS[kind]((VECTORS, _wrong(LABELS, 7)[:, np.newaxis][:, 0])), models["class 7"]
    before = model.get_weights()
    refuses(getattr(model, method), data, verbose=0, match="got 7$")
    if method != "fit":  # Two steps were right.
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_wrong_values_of_validation_data_are_refused(models, refuses):
    model, wrong = models["NaN"], _wrong(VECTORS, np.nan)
    for held_out in ((wrong, None), _data_set([wrong, None])):
        refuses(model.fit, VECTORS, validation_data=held_out, verbose=0, match="vectors must be")
    # The last rows are held out.
    refuses(model.fit, wrong, validation_split=0.3, batch_size=12, verbose=0, match="vectors must")


def test_wrong_values_of_single_batches_are_refused(models, refuses):
    model = models["NaN"]
    for method in (model.train_on_batch, model.test_on_batch, model.predict_on_batch):
        refuses(method, _wrong(VECTORS, np.nan), match="vectors must be finite")


@pytest.mark.parametrize("jit_compile", [True, False])
def test_parts_that_do_not_go_together_are_refused(jit_compile, models, refuses):
    model = models["class 7"] if jit_compile else _vectors(num_classes=3)
    model.compile(optimizer=keras.optimizers.SGD(0.01), jit_compile=jit_compile)
    ones, twice = np.ones(22), np.r_[LABELS, LABELS]
    match = "must have a row for each of the 11 rows of x, got 22"
    for method in (model.fit, model.evaluate):
        refuses(method, VECTORS, LABELS, sample_weight=ones, match="sample_weight " + match)
        refuses(method, VECTORS, twice, match="y " + match)
        for kind in KINDS.values():
            parts = (kind((VECTORS, LABELS)), LABELS)
            refuses(method, *parts, match="y must be None where x is a")
            refuses(method, parts[0], sample_weight=ones, match="sample_weight must be None")
    held_out = (VECTORS, LABELS, ones)
    refuses(model.fit, VECTORS, LABELS, validation_data=held_out, match="sample_weight " + match)


def test_data_that_cannot_be_checked_is_refused(models, refuses):
    model = models["NaN"]
    refuses(model.fit, VECTORS, shuffle="batch", match="shuffle must be True or False .*batch")
    refuses(model.fit, VECTORS.tolist(), match="x must be an array, .* got a list")
    refuses(model.fit, _data_set([VECTORS]), validation_split=0.2, match="validation_split needs")
    refuses(model.fit, VECTORS, validation_split=0.99, match="rows on both sides, got 0.99 of 11")


def _made_ready(model, method="fit", **given):
    check_on_the_host(model, method, given)
    return given


@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_batches_have_one_size_and_what_is_added_does_not_count(method, models):
    model = models["class 7"]
    given = _made_ready(model, method, x=VECTORS, y=LABELS, batch_size=4, shuffle=False)
    for _ in range(2):
        batches = list(given["x"])
        assert [tuple(x.shape) for x, _, _ in batches] == [(4, 2)] * 3
        counts = np.concatenate([weights for _, _, weights in batches]) > 0
        assert counts.tolist() == [True] * 11 + [False]
        for place, part in enumerate((VECTORS, LABELS)):
            found = np.concatenate([batch[place] for batch in batches])[counts]
            np.testing.assert_array_equal(found, part)


def test_batches_of_a_generator_have_one_size_too(models):
    given = _made_ready(models["class 7"], x=_generator((VECTORS, LABELS)))
    batches = list(given["x"])
    assert [tuple(x.shape) for x, _, _ in batches] == [(4, 2)] * 3
    counts = np.concatenate([weights for _, _, weights in batches])
    assert counts.tolist() == [1] * 11 + [0]
    np.testing.assert_array_equal(np.concatenate([x for x, _, _ in batches])[:11], VECTORS)


def test_a_pydataset_stays_one(models):
    """Keras shuffles it, and tells it of epochs."""
    data = Batches((VECTORS, LABELS))
    given = _made_ready(models["class 7"], x=data)
    assert given["shuffle"] and given["x"].num_batches == 3
    given["x"].on_epoch_begin()
    assert data.begun
    x, labels = given["x"][2]
    np.testing.assert_array_equal(x, VECTORS[8:])
    np.testing.assert_array_equal(labels, LABELS[8:])
    assert not _made_ready(models["class 7"], x=data, shuffle=False)["shuffle"]


def test_batches_of_one_size_need_no_weights(models):
    batches = list(_made_ready(models["NaN"], x=VECTORS[:8], batch_size=4)["x"])
    assert [[part.shape for part in batch] for batch in batches] == [[(4, 2)]] * 2


def test_arrays_are_shuffled_anew_each_epoch():
    data = dataset_of([np.arange(20), None], 8, shuffle=True)
    one, other = (np.concatenate([x for x, *_ in data]) for _ in range(2))
    assert sorted(one) == sorted(other) == list(range(20))
    assert one.tolist() != other.tolist() != list(range(20))
    # By a seed all orders are those of another such data set.
    orders = [
        [np.concatenate([x for x, *_ in data]).tolist() for _ in range(2)]
        for data in (dataset_of([np.arange(20), None], 8, shuffle=True, seed=3) for _ in range(2))
    ]
    assert orders[0] == orders[1] and orders[0][0] != orders[0][1]


@pytest.mark.parametrize("kind", ["array", "data set", "validation"])
def test_a_cancelled_step_ends_with_what_failed_another_replica(monkeypatch, refuses, kind):
    """The one of two replicas that is cancelled may report first."""
    model = tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=(4,))
    model.compile(optimizer="sgd")
    good = np.zeros((40, 3), "float32")
    bad = good.copy()
    bad[35, 1] = np.nan

    def cancelled(self, x=None, y=None, validation_data=None, callbacks=None):
        raise tf.errors.CancelledError(None, None, "RecvAsync is cancelled.")

    monkeypatch.setattr(keras.Model, "fit", cancelled)
    arguments = {
        "array": {"x": bad},
        "data set": {"x": tf.data.Dataset.from_tensor_slices(bad).batch(8)},
        "validation": {"x": good, "validation_data": (bad,)},
    }[kind]
    refuses(model.fit, **arguments, match="vectors must be finite")
    with pytest.raises(tf.errors.CancelledError):
        model.fit(good)
