"""Exports are loaded where tfnvp is not, as a server does."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

import tfnvp

LEVELS = 17


@pytest.fixture(scope="module")
def model(randomize):
    flow = tfnvp.ImageRealNVP((4, 4, 1), 2, filters=4, residual_blocks=1, levels=LEVELS)
    randomize(flow, seed=0)
    return flow


@pytest.fixture(scope="module")
def directory(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("export") / "tiny"
    assert tfnvp.export_saved_model(model, directory) == directory / "1"
    return directory


@pytest.fixture(scope="module")
def signatures(directory):
    return tf.saved_model.load(str(directory / "1")).signatures


@pytest.fixture(scope="module")
def images():
    return np.random.RandomState(0).randint(0, LEVELS, (5, 4, 4, 1)).astype("uint8")


def test_log_prob_is_the_models_in_a_process_without_tfnvp(model, directory, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    code = f"""
import sys, numpy as np, tensorflow as tf
served = tf.saved_model.load({str(directory / "1")!r}).signatures["serving_default"]
outputs = served(images=tf.constant(np.load({str(tmp_path / "images.npy")!r})))
assert not {{"tfnvp", "tensorflow_probability"}} & set(sys.modules)
np.savez({str(tmp_path / "outputs.npz")!r}, **outputs)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    outputs = np.load(tmp_path / "outputs.npz")
    assert outputs["log_prob"].shape == (5,)
    np.testing.assert_allclose(outputs["log_prob"], model.log_prob(images), rtol=1e-6)
    np.testing.assert_allclose(outputs["bits_per_dim"], model.bits_per_dim(images), rtol=1e-6)


def test_encode_is_the_models_and_decode_its_reverse(model, signatures, images):
    latents = signatures["encode"](images=tf.constant(images))["latents"]
    np.testing.assert_allclose(latents, model.encode(images), atol=1e-5)
    np.testing.assert_array_equal(signatures["decode"](latents=latents)["images"], images)


def test_score_encoded_reads_files_of_256_levels(signatures, images):
    def png(image):
        file = io.BytesIO()
        # 16 levels up from 0: floor(v * 17 / 256) gives the level back.
        Image.fromarray((image[..., 0].astype(int) * 256 // LEVELS + 1).astype("uint8")).save(
            file, format="PNG"
        )
        return file.getvalue()

    encoded = tf.constant([png(image) for image in images])
    scored = signatures["score_encoded"](image_bytes=encoded)["log_prob"]
    expected = signatures["log_prob"](images=tf.constant(images))["log_prob"]
    np.testing.assert_allclose(scored, expected, rtol=1e-6)


def test_a_sample_depends_on_its_own_seed_alone(signatures):
    def sample(seeds, temperature=1.0):
        seed = tf.constant(seeds, tf.int64)
        drawn = signatures["sample"](seed=seed, temperature=tf.fill([len(seeds)], temperature))
        return drawn["images"].numpy().astype(int)

    many = sample([7, 8, 2**40, 7])
    assert many.min() >= 0 and many.max() < LEVELS
    assert abs(sample([8])[0] - many[1]).max() <= 1
    assert abs(many[3] - many[0]).max() <= 1
    assert abs(many[1] - many[0]).max() > 1
    # The upper half of a seed counts too.
    assert abs(sample([2**40])[0] - sample([0])[0]).max() > 1
    cold = sample([1, 2], temperature=0.0)
    np.testing.assert_array_equal(cold[0], cold[1])


@pytest.mark.parametrize(
    ("signature", "inputs", "message"),
    [
        ("log_prob", {"images": tf.fill([1, 4, 4, 1], tf.constant(17, tf.uint8))}, "0..16"),
        ("decode", {"latents": tf.fill([1, 4, 4, 1], float("nan"))}, "latents must be finite"),
        (
            "score_encoded",
            {"image_bytes": [tf.io.encode_png(tf.zeros([5, 4, 1], tf.uint8))]},
            "4 x 4 pixels",
        ),
    ],
)
def test_what_cannot_be_served_is_named(signatures, signature, inputs, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signatures[signature](**{name: tf.convert_to_tensor(v) for name, v in inputs.items()})


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
    with pytest.raises(TypeError, match="ImageRealNVP, got str"):
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


def test_any_size_is_scored_as_its_distribution_does(model, tmp_path):
    path = tfnvp.export_saved_model(
        model, tmp_path, ["log_prob", "encode", "decode"], image_size="any"
    )
    served = tf.saved_model.load(str(path)).signatures
    for size in ((4, 4), (6, 8)):
        images = np.random.RandomState(1).randint(0, LEVELS, (3, *size, 1)).astype("uint8")
        x = model.dequantization(tf.constant(images), training=False)
        expected = model.distribution_for((*size, 1)).log_prob(x)
        scored = served["log_prob"](images=tf.constant(images))
        np.testing.assert_allclose(scored["log_prob"], expected, rtol=1e-5)
        latents = served["encode"](images=tf.constant(images))["latents"]
        np.testing.assert_array_equal(served["decode"](latents=latents)["images"], images)
    with pytest.raises(tf.errors.InvalidArgumentError, match="height and width that 2 divides"):
        served["log_prob"](images=tf.zeros([1, 5, 4, 1], tf.uint8))


def test_kernels_in_bfloat16_halve_the_weights_and_score_about_the_same(randomize, tmp_path):
    sizes, scores = [], []
    model = randomize(tfnvp.VectorRealNVP(8, num_couplings=2, hidden_units=(64, 64)))
    x = np.random.RandomState(0).normal(size=(5, 8)).astype("float32")
    for low in (False, True):
        path = tfnvp.export_saved_model(
            model, tmp_path / str(low), ["log_prob", "encode"], bfloat16_weights=low
        )
        sizes.append((path / "variables" / "variables.data-00000-of-00001").stat().st_size)
        served = tf.saved_model.load(str(path)).signatures["log_prob"]
        scores.append(served(vectors=tf.constant(x))["bits_per_dim"].numpy())
    assert sizes[1] < 0.6 * sizes[0]
    assert 0 < abs(scores[0] - scores[1]).max() < 0.1


def test_without_the_extra_the_warm_up_is_skipped_and_said_so(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.warns(UserWarning, match="extra `serving`"):
        path = tfnvp.export_saved_model(model, tmp_path, ["encode"])
    assert not (path / "assets.extra").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"signatures": ["score"]}, "unknown signature 'score'; known: log_prob"),
        ({"signatures": []}, "got none"),
        ({"image_size": (5, 4)}, "multiples of 2"),
        ({"image_size": "all"}, "'any' or None"),
    ],
)
def test_options_that_do_not_fit_are_named(model, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        tfnvp.export_saved_model(model, tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


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
    # As far from the mean latent as the temperature says.
    hot, cold = (vector_model.encode(sample([3], [t])) for t in (1.0, 0.5))
    np.testing.assert_allclose(cold, 0.5 * hot, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_vectors_that_are_not_finite_are_named(vector_signatures, value):
    for signature, name in (("log_prob", "vectors"), ("encode", "vectors"), ("decode", "latents")):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"{name} must be finite"):
            vector_signatures[signature](**{name: tf.fill([2, 3], value)})
