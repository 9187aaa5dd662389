"""Everything that `fit` and `evaluate` are given is used, or refused by name."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.few_couplings import FewCouplings

import tfnvp

pytestmark = pytest.mark.usefixtures("eagerly")
SHAPES = {"images": (4, 4, 1), "vectors": (3,)}


def _model(kind, **options):
    if kind == "images":
        model = FewCouplings((4, 4, 1), 1, 4, 1, **options)
    else:
        model = tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=(8,), **options)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    return model


@pytest.fixture(scope="module", params=SHAPES)
def case(request):
    shape = SHAPES[request.param]
    x = np.random.default_rng(0).uniform(0.1, 0.9, (8, *shape)).astype("float32")
    return _model(request.param), x


def _batches(*parts):
    return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0]).batch(4)


def test_keras_has_nothing_to_say_of_the_order_of_a_data_set(case):
    model, x = case
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(_batches(x), verbose=0)
    with pytest.warns(UserWarning, match="`shuffle=True` was passed, but will be ignored"):
        model.fit(_batches(x), shuffle=True, verbose=0)


def test_labels_that_are_not_used_are_refused(case, refuses):
    model, x = case
    match = "y must be None, for the model is not conditional: .*num_classes"
    for y in (np.arange(8), x):
        for method in (model.train_on_batch, model.test_on_batch):
            refuses(method, x, y, match=match)
        for method in (model.fit, model.evaluate):
            refuses(method, x, y, verbose=0, match=match)
            refuses(method, x=x, y=y, verbose=0, match=match)
        refuses(model.fit, x, validation_data=(x, y), verbose=0, match=match)


def test_a_loss_and_metrics_are_refused(case, refuses):
    model, _ = case
    for name, value in (
        ("loss", "mse"),
        ("metrics", ["mse"]),
        ("weighted_metrics", ["mse"]),
        ("loss_weights", [1.0]),
    ):
        refuses(model.compile, "adam", **{name: value}, match=f"^{name} must be None.* got {name}=")
    refuses(model.compile, "adam", "mse", match="^loss must be None")


def test_a_loaded_model_is_compiled_as_it_was(case, tmp_path):
    model, _ = case
    model.save(tmp_path / "m.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        again = keras.models.load_model(tmp_path / "m.keras")
    assert again.compiled and type(again.optimizer) is type(model.optimizer)
    assert again.get_compile_config() == model.get_compile_config()


def test_features_are_refused_and_the_one_to_take_is_named(case, refuses):
    """By its shape."""
    model, x = case
    features = {"id": np.arange(8), "picture": x}
    match = r"got a dict of 'id', 'picture': take one, x\['picture'\], or .*map\(lambda d: d\['pi"
    for data in (features, _batches(features), _batches(features, np.arange(8))):
        for method in (model.fit, model.evaluate, model.predict):
            refuses(method, data, verbose=0, match=match)
    for method in (model.log_prob, model.encode, model.train_on_batch):
        refuses(method, features, match=match)


def test_rows_that_are_not_batched_are_refused(case, refuses):
    model, x = case
    match = r"\[batch, .* a single row: batch it, x\[None\] or data_set\.batch\(64\)"
    for data in (_batches(x).unbatch(), _batches(x, np.arange(8)).unbatch()):
        for method in (model.fit, model.evaluate, model.predict):
            refuses(method, data, verbose=0, match=match)
        refuses(model.fit, _batches(x), validation_data=data, verbose=0, match=match)
    for method in (model.log_prob, model.encode):
        refuses(method, x[0], match=match)
    if isinstance(model, tfnvp.VectorRealNVP):
        refuses(model.adapt, _batches(x).unbatch(), match=match)


def test_it_is_said_once_that_labels_are_left_aside(case):
    model, x = case
    model = type(model).from_config(model.get_config())
    model.compile(optimizer="sgd")
    data = _batches(x, np.arange(8))
    with pytest.warns(UserWarning, match="labels of the data set are left aside"):
        labelled = model.evaluate(data, verbose=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*left aside")
        model.fit(data, verbose=0)
        assert model.evaluate(data, verbose=0) != labelled
        model.predict(data, verbose=0)


def test_data_of_which_nothing_is_ignored_is_not_remarked_upon(case):
    model, x = case
    conditional = type(model).from_config(model.get_config() | {"num_classes": 8})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*left aside")
        for one, data in ((model, _batches(x)), (conditional, _batches(x, np.arange(8)))):
            one.compile(optimizer="sgd")
            one.evaluate(data, verbose=0)


# Data of which the figures would say nothing.


@pytest.mark.parametrize(
    ("kind", "steps"),
    [("array", 15), ("data set", 16), ("labelled", 15), ("validation", 16)],
)
def test_float_images_that_are_pixels_are_remarked_upon_once(kind, steps):
    model = _model("images", levels=16)
    pixels = np.random.default_rng(0).integers(0, 16, (8, 4, 4, 1))
    x = (pixels / steps).astype("float32")
    data = {"array": x, "labelled": _batches(x, np.arange(8))}.get(kind, _batches(x))
    match = rf"multiples of 1 / {steps}: .* pass uint8 images, np\.rint\(x \* {steps}\)"
    noise = np.random.default_rng(1).uniform(0.1, 0.9, x.shape).astype("float32")
    with pytest.warns(UserWarning, match=match):
        if kind == "validation":
            model.fit(noise, validation_data=data, verbose=0)
        else:
            model.evaluate(data, verbose=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*multiples of")
        model.evaluate(data, verbose=0)
    # The way out.
    np.testing.assert_array_equal(np.rint(x * steps).astype("uint8"), pixels)


@pytest.mark.parametrize(("scale", "offset"), [(300.0, 0.0), (0.01, 1000.0)])
def test_vectors_of_a_scale_far_from_one_are_remarked_upon_until_adapted_to(scale, offset):
    model = _model("vectors")
    x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
    x[:, 1] = x[:, 1] * scale + offset
    with pytest.warns(UserWarning, match=r"dimension 1 of the data .* call model\.adapt\(x\)"):
        model.fit(_batches(x), verbose=0)
    adapted = _model("vectors")
    adapted.adapt(x)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*far from one")
        model.fit(x, verbose=0)
        adapted.fit(x, verbose=0)


def test_integers_of_a_scale_far_from_one_are_remarked_upon():
    years = np.random.default_rng(0).integers(1950, 2020, (50, 3))
    with pytest.warns(UserWarning, match=r"dimension 0 of the data .* call model\.adapt\(x\)"):
        _model("vectors").fit(years, verbose=0)


def test_ordinary_data_is_not_remarked_upon(case):
    """uint8, floats between the levels, standardised vectors, one row, a column that is zero."""
    model, x = case
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(multiples of|far from one)")
        model.fit(x, validation_data=(x, None, np.ones(8)), verbose=0)
        model.evaluate(_batches(x), verbose=0)
        if isinstance(model, tfnvp.ImageRealNVP):
            model.evaluate(np.rint(x * 255).astype("uint8"), verbose=0)
        else:
            model.evaluate(100 * x[:1], verbose=0)
            model.evaluate(x * np.float32([1, 0, 1]), verbose=0)
