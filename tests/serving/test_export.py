"""The files that an export writes; test_cpp_runtime.py has what it answers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow.core.protobuf import saved_model_pb2

import tfnvp

tfb, tfd = tfp.bijectors, tfp.distributions
LEVELS = 17


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model((4, 4, 1), num_scales=2, levels=LEVELS)


def test_versions_count_up_and_appear_whole(vector_model, vector_directory, monkeypatch):
    model, directory = vector_model, vector_directory.parent

    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(tf.saved_model, "save", fail)
        tfnvp.export_saved_model(model, directory)
    assert [path.name for path in directory.iterdir()] == ["1"]
    (directory / "7").mkdir()
    assert tfnvp.export_saved_model(model, directory).name == "8"


def test_another_model_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"FlowModel, as .* got str"):
        tfnvp.export_saved_model("digits", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_the_card_tells_what_the_model_is(model, tmp_path):
    card = {"preset": "digits", "bits_per_dim": {"test": 2.0}}
    path = tfnvp.export_saved_model(model, tmp_path, ["encode"], card=card)
    written = json.loads((path / "assets" / "model_card.json").read_text())
    assert card.items() <= written.items()
    assert written["served"]["version"] == 1
    assert written["served"]["images"] == "uint8, 0..16; PNG and JPEG files 0..255"
    assert written["served"]["signatures"] == {"encode": {"images": "uint8 ['rows', 4, 4, 1]"}}
    assert set(tf.saved_model.load(str(path)).signatures) == {"encode"}
    with pytest.raises(ValueError, match="has no signature log_prob: give the"):
        tfnvp.serving.SavedModel(path)


@pytest.mark.parametrize("kind", ["images", "vectors"])
def test_kernels_in_bfloat16_halve_the_file_and_score_about_the_same(
    kind, tiny_model, randomize, tmp_path
):
    random = np.random.default_rng(0)
    if kind == "images":
        model = tiny_model((4, 4, 1), filters=32, levels=LEVELS)
        x = random.integers(0, LEVELS, (5, 4, 4, 1), dtype=np.uint8)
    else:
        model = randomize(tfnvp.VectorRealNVP(8, num_couplings=2, hidden_units=(128, 128)))
        # Far out, where random weights send rows of another kind, rounding costs more.
        x = model.sample(5, seed=0)
    sizes, scores = [], []
    for low in (False, True):
        path = tfnvp.export_saved_model(
            model, tmp_path / str(low), ["log_prob"], bfloat16_weights=low
        )
        sizes.append((path / "variables" / "variables.data-00000-of-00001").stat().st_size)
        served = tf.saved_model.load(str(path)).signatures["log_prob"]
        scores.append(served(**{kind: tf.constant(x)})["bits_per_dim"].numpy())
    assert 0.45 < sizes[1] / sizes[0] < 0.55
    assert 0 < abs(scores[0] - scores[1]).max() < 0.05


@pytest.mark.slow
def test_saved_model_cli_shows_and_runs_an_export(vector_model, vector_directory, tmp_path):
    def cli(*arguments):
        program = Path(sys.executable).with_name("saved_model_cli")
        command = [program, arguments[0], "--dir", vector_directory, *arguments[1:]]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    shown = cli("show", "--all")
    for name in ("serving_default", "log_prob", "encode", "decode", "sample"):
        assert f"signature_def['{name}']" in shown
    told = "inputs['vectors'] tensor_info:\n        dtype: DT_FLOAT\n        shape: (-1, 3)\n"
    assert told in shown
    np.save(tmp_path / "vectors.npy", np.ones((2, 3), "float32"))
    inputs = f"vectors={tmp_path / 'vectors.npy'}"
    run = cli("run", "--tag_set", "serve", "--signature_def", "log_prob", "--inputs", inputs)
    printed = run.split("Result for output key log_prob:\n")[1].splitlines()[0]
    expected = vector_model.log_prob(np.ones((2, 3), "float32"))
    np.testing.assert_allclose(np.fromstring(printed.strip("[]"), sep=" "), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"signatures": ["score"]}, "unknown signature 'score'; known: log_prob"),
        ({"signatures": []}, "got none"),
        ({"signatures": "log_prob"}, "signatures must be a list of names, got"),
        ({"card": {"x": object()}}, "card must be a dictionary that JSON can hold"),
        ({"card": [1]}, "card must be a dictionary that JSON can hold"),
        ({"image_size": (5, 4)}, "multiples of 2"),
        ({"image_size": "all"}, "'any' or None"),
    ],
)
def test_options_that_do_not_fit_are_named(model, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        tfnvp.export_saved_model(model, tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_a_strict_export_fails_the_request_for_a_row(model, tmp_path):
    path = tfnvp.export_saved_model(model, tmp_path, ["log_prob", "sample"], strict=True)
    served = tf.saved_model.load(str(path)).signatures
    images = np.zeros((2, 4, 4, 1), "uint8")
    answer = served["log_prob"](images=tf.constant(images))
    assert set(answer) == {"log_prob", "bits_per_dim"}
    np.testing.assert_allclose(answer["log_prob"], model.log_prob(images), rtol=1e-5)
    images[1] = 20
    wrong = [
        ("log_prob", {"images": images}, r"\[images must have values 0..16, got up to 20\]"),
        ("sample", {"seed": [1, 2], "temperature": [1.0, -2.0]}, r"0 or more, got -2\]"),
    ]
    dtypes = {"seed": tf.int64}
    for name, inputs, message in wrong:
        inputs = {key: tf.constant(x, dtypes.get(key)) for key, x in inputs.items()}
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            served[name](**inputs)
    with pytest.raises(ValueError, match="images must have values"):
        tfnvp.serving.SavedModel(path).log_prob(images)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    room = tmp_path_factory.mktemp("export")
    return tfnvp.export_saved_model(model, room, ["log_prob", "sample"])


def test_the_loaded_export_names_a_row_that_it_cannot_answer(exported):
    images = np.zeros((2, 4, 4, 1), "uint8")
    images[1] = 30
    with pytest.raises(ValueError, match=r"row 1: images must have values 0..16, got up to 30"):
        tfnvp.serving.SavedModel(exported).log_prob(images)


def test_warm_up_has_requests_of_1_8_and_64_rows_that_are_answered(exported):
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")

    served = tf.saved_model.load(str(exported)).signatures
    file = exported / "assets.extra" / "tf_serving_warmup_requests"
    rows = []
    for record in tf.data.TFRecordDataset(str(file)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        # To the byte it is as the published protos write it.
        assert log.SerializeToString(deterministic=True) == record.numpy()
        request = log.predict_log.request
        inputs = {key: tf.make_ndarray(x) for key, x in request.inputs.items()}
        name = request.model_spec.signature_name
        answer = served[name](**{key: tf.constant(x) for key, x in inputs.items()})
        assert not any(answer["error"].numpy())
        rows.append((name, len(answer["error"])))
    assert rows == [(name, count) for name in ("log_prob", "sample") for count in (1, 8, 64)]
    assert file.stat().st_size < 2000


# Any other flow.


class Laplacian(tfnvp.FlowModel):
    """Vectors whose latents are not normal."""

    def build_distribution(self):
        mask = tfnvp.masks.ChannelHalves(0, event_ndims=1)
        coupling = tfnvp.bijectors.AffineCoupling(mask, tfnvp.layers.DenseNetwork(2, [8]))
        base = tfd.Independent(tfd.Laplace(tf.ones(4), 0.7), 1)
        return tfd.TransformedDistribution(base, coupling)


class NoMean(tfnvp.FlowModel):
    """Data [2, 2, 3] whose latents have no mean."""

    def build_distribution(self):
        mixing = tfnvp.bijectors.InvertibleConv1x1()
        base = tfd.Independent(tfd.Cauchy(tf.ones([2, 2, 3]), 0.7), 3)
        return tfd.TransformedDistribution(base, mixing)


def test_any_flow_model_is_exported_by_its_event_shape(randomize, tmp_path):
    model = Laplacian(num_classes=2, conditional_base=True)
    model.build()
    randomize(model)
    path = tfnvp.export_saved_model(model, tmp_path)
    served = tf.saved_model.load(str(path)).signatures
    x = tf.random.stateless_normal([5, 4], seed=(1, 2))
    labels = tf.constant([0, 1, 1, 0, 1], tf.int64)
    scores = served["log_prob"](vectors=x, label=labels)
    np.testing.assert_allclose(scores["log_prob"], model.log_prob(x, labels), rtol=1e-5)
    np.testing.assert_allclose(scores["bits_per_dim"], model.bits_per_dim(x, labels), rtol=1e-5)
    far = served["log_prob"](
        vectors=tf.tensor_scatter_nd_update(x, [[1]], [1e30 + x[1]]), label=labels
    )
    told = "vectors are too far from what the model was trained on: numbers overflow"
    assert [text.decode() for text in far["error"].numpy()] == ["", told, "", "", ""]
    assert np.isnan(far["log_prob"][1]) and np.isnan(far["bits_per_dim"][1])
    np.testing.assert_allclose(np.delete(far["log_prob"], 1), np.delete(scores["log_prob"], 1))
    latents = served["encode"](vectors=x, label=labels)["latents"]
    np.testing.assert_allclose(latents, model.encode(x, labels), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        served["decode"](latents=latents, label=labels)["vectors"], x, atol=1e-5
    )
    seeds, temperatures = tf.range(5, dtype=tf.int64), tf.constant([0.0, 0.0, 1.0, 1.0, 0.5])
    drawn = served["sample"](seed=seeds, temperature=temperatures, label=labels)["vectors"].numpy()
    again = served["sample"](seed=seeds[2:3], temperature=temperatures[2:3], label=labels[2:3])[
        "vectors"
    ]
    np.testing.assert_allclose(again[0], drawn[2], rtol=1e-5)
    # At temperature 0 there is the mean alone, of each label's base.
    means = [model.distribution_for(labels=y).distribution.mean() for y in (0, 1)]
    for row in (0, 1):
        expected = model.decode(means[row][None], row)[0]
        np.testing.assert_allclose(drawn[row], expected, rtol=1e-4, atol=1e-5)
    loaded = tfnvp.serving.SavedModel(path)
    assert (loaded.data, loaded.event_shape) == ("vectors", (4,))
    np.testing.assert_allclose(loaded.log_prob(x, labels), scores["log_prob"])
    with pytest.raises(ValueError, match="call its signature `sample`"):
        loaded.sample(3, labels=0)


def test_a_flow_whose_base_has_no_mean_is_sampled_at_temperature_1_alone(randomize, tmp_path):
    model = NoMean()
    model.build()
    randomize(model)
    path = tfnvp.export_saved_model(model, tmp_path, ["log_prob", "sample"])
    served = tf.saved_model.load(str(path)).signatures
    x = tf.random.stateless_normal([3, 2, 2, 3], seed=(1, 2))
    scores = served["log_prob"](data=x)["log_prob"]
    np.testing.assert_allclose(scores, model.log_prob(x), rtol=1e-5)
    answer = served["sample"](
        seed=tf.constant([1, 2], tf.int64), temperature=tf.constant([1.0, 0.5])
    )
    errors = [text.decode() for text in answer["error"].numpy()]
    assert errors == ["", "temperature must be 1, for the base distribution has no mean, got 0.5"]
    assert answer["data"].numpy()[0].any() and not answer["data"].numpy()[1].any()


# Vectors.


@pytest.fixture(scope="module")
def vector_model(randomize):
    flow = randomize(tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=(4,), dtype="float64"))
    flow.adapt(_vectors())
    return flow


@pytest.fixture(scope="module")
def vector_directory(vector_model, tmp_path_factory):
    return tfnvp.export_saved_model(vector_model, tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def vector_signatures(vector_directory):
    return tf.saved_model.load(str(vector_directory)).signatures


def _vectors():
    return np.random.RandomState(0).normal([5.0, 0.0, -2.0], [3.0, 1.0, 0.5], (6, 3))


def _float32(x):
    return tf.constant(x, tf.float32)


def test_vectors_go_in_and_out_in_float32_with_a_batch_dimension(vector_directory):
    expected = {
        "serving_default": ({"vectors": 2}, {"log_prob": 1, "bits_per_dim": 1}),
        "log_prob": ({"vectors": 2}, {"log_prob": 1, "bits_per_dim": 1}),
        "encode": ({"vectors": 2}, {"latents": 2}),
        "decode": ({"latents": 2}, {"vectors": 2}),
        "sample": ({"seed": 1, "temperature": 1}, {"vectors": 2}),
    }
    saved = saved_model_pb2.SavedModel.FromString(
        (vector_directory / "saved_model.pb").read_bytes()
    )
    signatures = dict(saved.meta_graphs[0].signature_def)
    signatures.pop("__saved_model_init_op")
    assert set(signatures) == set(expected)
    for name, (inputs, outputs) in expected.items():
        error = signatures[name].outputs.pop("error")
        assert error.dtype == tf.string and [dim.size for dim in error.tensor_shape.dim] == [-1]
        for specs, ranks in (
            (signatures[name].inputs, inputs),
            (signatures[name].outputs, outputs),
        ):
            assert {key: len(spec.tensor_shape.dim) for key, spec in specs.items()} == ranks
            for key, spec in specs.items():
                assert [dim.size for dim in spec.tensor_shape.dim] in ([-1], [-1, 3])
                assert spec.dtype == (tf.int64 if key == "seed" else tf.float32)


def test_vectors_are_scored_as_by_the_model(vector_model, vector_signatures):
    x = _float32(_vectors())
    for name in ("serving_default", "log_prob"):
        served = vector_signatures[name](vectors=x)
        np.testing.assert_allclose(served["log_prob"], vector_model.log_prob(x), rtol=1e-6)
        np.testing.assert_allclose(served["bits_per_dim"], vector_model.bits_per_dim(x), rtol=1e-6)
    latents = vector_signatures["encode"](vectors=x)["latents"]
    np.testing.assert_allclose(latents, vector_model.encode(x), rtol=1e-5)
    decoded = vector_signatures["decode"](latents=latents)["vectors"]
    np.testing.assert_allclose(decoded, x, rtol=1e-5, atol=1e-5)
    assert vector_signatures["log_prob"](vectors=x[:0])["log_prob"].shape == (0,)


def test_a_sampled_vector_depends_on_its_own_seed_alone(vector_model, vector_signatures):
    def sample(seeds, temperatures):
        seed, temperature = tf.constant(seeds, tf.int64), _float32(temperatures)
        return vector_signatures["sample"](seed=seed, temperature=temperature)["vectors"].numpy()

    many = sample([7, 8, 2**40, 7], [1.0, 1.0, 1.0, 0.0])
    np.testing.assert_allclose(sample([8], [1.0])[0], many[1], rtol=1e-5)
    assert np.all(sample([0], [1.0])[0] != many[2]), "the upper half of a seed counts too"
    np.testing.assert_allclose(many[3], vector_model.decode(np.zeros((1, 3)))[0], rtol=1e-5)
    # A sample is as far from the mean latent as the temperature says.
    hot, cold = (vector_model.encode(sample([3], [t])) for t in (1.0, 0.5))
    np.testing.assert_allclose(cold, 0.5 * hot, rtol=1e-4, atol=1e-5)
