"""One file is one picture: in training, to the command, and where it is served."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import pictures
from typer.testing import CliRunner

import tfnvp
from tfnvp.cli import app
from tfnvp.data import image_files
from tfnvp.serving import image_bytes
from tfnvp.serving.faults import Faults


def decode_files(files, shape):
    """The pixels of good files; others are an InvalidArgument."""
    return image_bytes.decode_files(files, shape, Faults(tf.size(files), strict=True))


REFUSED = "cmyk.jpg"  # by the server, for TensorFlow reads it otherwise than Pillow.


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A directory of the files, and their names, sorted."""
    directory = tmp_path_factory.mktemp("corpus")
    files = pictures.corpus()
    assert len(files) >= 60
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory, sorted(files)


@pytest.mark.parametrize("channels", [1, 3])
def test_served_pixels_are_those_of_the_reader(channels, corpus):
    directory, names = corpus
    names = [name for name in names if name != REFUSED]
    files = [(directory / name).read_bytes() for name in names]
    served = tf.function(decode_files)(tf.constant(files), [8, 8, channels]).numpy()
    for name, image in zip(names, served, strict=True):
        expected = image_files.read(directory / name, (8, 8, channels))
        np.testing.assert_array_equal(image, expected, err_msg=name)


MOST_PIXELS = 120


@pytest.fixture(scope="module")
def exported(tiny_model, tmp_path_factory):
    """A model, a .keras file of it, and a SavedModel that takes images of any size."""
    model = tiny_model((8, 8, 3), levels=256)
    directory = tmp_path_factory.mktemp("exported")
    model.save(directory / "model.keras")
    signatures = ["log_prob", "score_encoded", "decode"]
    path = tfnvp.export_saved_model(
        model, directory, signatures, image_size="any", max_pixels=MOST_PIXELS
    )
    return model, directory / "model.keras", path


def test_training_the_command_and_the_server_score_alike(corpus, exported):
    directory, names = corpus
    model, saved, served = exported

    shown = {"shuffle": False, "batch_size": 100}
    sets = [tfnvp.data.load_folder(directory, 8, split, **shown) for split in tfnvp.data.SPLITS]
    train, validation, test = (next(iter(images)) for images in sets)
    order = np.random.RandomState(0).permutation(len(names))
    trained = np.concatenate([model.bits_per_dim(x) for x in (validation, test, train)])
    trained = trained[np.argsort(order)]

    paths = [str(directory / name) for name in names]
    args = ["score", str(saved), *paths, "--json"]
    lines = CliRunner().invoke(app, args).output.splitlines()
    scored = np.array([json.loads(line)["bits_per_dim"] for line in lines])

    files = [(directory / name).read_bytes() for name in names]
    signature = tf.saved_model.load(str(served)).signatures["score_encoded"]
    answers = signature(image_bytes=tf.constant(files))
    left_out = names.index(REFUSED)
    told = {row: text for row, text in enumerate(answers["error"].numpy()) if text}
    assert told == {left_out: b"image_bytes must hold images of grey or RGB, got CMYK"}
    served = np.delete(answers["bits_per_dim"].numpy(), left_out)

    assert scored.std() > 0.1  # The model tells the pictures apart.
    np.testing.assert_allclose(scored, trained, rtol=0, atol=0.01)
    np.testing.assert_allclose(served, np.delete(trained, left_out), rtol=0, atol=0.01)


def test_a_picture_is_turned_before_its_size_is_looked_at():
    """Stored as 4 x 6 pixels, it is upright a picture of 6 x 4."""
    exif = [(b"eXIf", pictures.exif(6))]
    files = tf.constant(
        [
            pictures.png_of_kind(pictures.RGB, 8, False, False, shape=(4, 6), before=exif),
            pictures.with_segments(pictures.jpeg(shape=(4, 6)), b"Exif\0\0" + pictures.exif(8)),
        ]
    )
    decode = tf.function(decode_files)
    assert decode(files, [6, 4, 3]).shape == (2, 6, 4, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="4 x 6 pixels, got 6 x 4"):
        decode(files, [4, 6, 3])


def test_images_of_any_size_have_a_limit(exported):
    """In each signature that takes images or latents, before anything is decoded."""
    _, _, path = exported
    signatures = tf.saved_model.load(str(path)).signatures

    def refused(signature, **data):
        (name,) = data
        message = f"{name} must be images of up to {MOST_PIXELS} pixels, got"
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            signatures[signature](**data)

    file = pictures.jpeg(shape=(10, 12))
    assert np.isfinite(signatures["score_encoded"](image_bytes=tf.constant([file]))["log_prob"])
    with peak() as used:
        for file in (pictures.jpeg(shape=(10, 14)), pictures.vast_jpeg(60_000, 3_000)):
            answer = signatures["score_encoded"](image_bytes=tf.constant([file]))
            assert np.isnan(answer["log_prob"])
            message = f"image_bytes must hold images of up to {MOST_PIXELS} pixels, got "
            assert answer["error"].numpy()[0].decode().startswith(message)
    assert used() < 50
    refused("log_prob", images=tf.zeros([1, 10, 14, 3], tf.uint8))
    refused("decode", latents=tf.zeros([1, 10, 14, 3]))


def test_the_limit_is_of_4_megapixels_unless_the_export_names_another(tiny_model, tmp_path):
    model = tiny_model((4, 4, 1))
    for most, told in ((None, "any of up to 4000000 pixels"), (9, "any of up to 9 pixels")):
        path = tfnvp.export_saved_model(model, tmp_path, ["decode"], "any", max_pixels=most)
        card = json.loads((path / "assets" / "model_card.json").read_text())
        assert card["served"]["image_size"] == told
    with pytest.raises(ValueError, match="max_pixels is of image_size='any', got 9 and"):
        tfnvp.export_saved_model(model, tmp_path / "x", image_size=(8, 8), max_pixels=9)


def test_a_vast_png_is_one_line_that_names_it(exported, tmp_path):
    _, saved, _ = exported
    file = tmp_path / "vast.png"
    file.write_bytes(pictures.vast_png(20_000))
    assert file.stat().st_size < 60_000
    CliRunner().invoke(app, ["score", str(saved), "absent.png"])  # loading has its own memory
    with peak() as used:
        result = CliRunner().invoke(app, ["score", str(saved), str(file)])
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "400 megapixels" in result.output and str(file) in result.output
    assert used() < 50


def test_what_inflates_beyond_the_pixels_costs_no_memory(tmp_path):
    values = np.arange(64).reshape(8, 8)
    file = tmp_path / "inflates.png"
    file.write_bytes(pictures.png(values, pictures.GREY, 8, beyond=300_000_000))
    decode = tf.function(decode_files)
    decode(tf.constant([pictures.png(values, pictures.GREY, 8)]), [8, 8, 1])
    with peak() as used:
        read = image_files.read(file, (8, 8, 1))
        (served,) = decode(tf.constant([file.read_bytes()]), [8, 8, 1])
    assert used() < 10
    np.testing.assert_array_equal(read[..., 0], values)
    np.testing.assert_array_equal(served[..., 0], values)


@contextlib.contextmanager
def peak():
    """used(): by how many MB the memory of the process grew at most within the block."""

    def memory(name):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024

    Path("/proc/self/clear_refs").write_text("5")  # The peak is counted anew.
    before, grown = memory("VmRSS"), []
    yield lambda: grown[0]
    grown.append(memory("VmHWM") - before)


def test_alpha_is_kept_for_models_that_have_it():
    for bits in (8, 16):
        file = pictures.png_of_kind(pictures.RGBA, bits, False, False)
        (image,) = decode_files(tf.constant([file]), [8, 8, 4]).numpy()
        values = np.random.default_rng(600 + bits).integers(0, 2**bits, (8, 8, 4))
        np.testing.assert_array_equal(image, values >> bits - 8)


def test_files_have_a_longest_length(monkeypatch):
    monkeypatch.setattr(image_bytes, "_MOST_BYTES", 1000)
    file = pictures.png_of_kind(pictures.RGB, 8, False, False, before=[(b"teSt", bytes(1000))])
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"1000 bytes, got {len(file)}"):
        decode_files(tf.constant([file]), [8, 8, 3])


def test_a_file_of_nothing_but_parts_is_refused():
    chunks = [(b"teSt", b"")] * 4_001
    file = pictures.png_of_kind(pictures.RGB, 8, False, False, before=chunks)
    with pytest.raises(tf.errors.InvalidArgumentError, match="up to 4000 chunks or segments"):
        tf.function(decode_files)(tf.constant([file]), [8, 8, 3])


def test_a_jpeg_of_many_scans_is_refused():
    """Each goes over all pixels, however short it is."""
    file = pictures.jpeg("L", progressive=True)
    last = file.rindex(b"\xff\xda")
    scan = file[last:-2]
    shown = [file[:-2] + scan * more + file[-2:] for more in (0, 90, 200)]
    faults = Faults(3)
    image_bytes.decode_files(tf.constant(shown), [8, 8, 1], faults)
    assert faults.none.numpy().tolist() == [True, True, False]
    told = faults.answered({})["error"].numpy()[2].decode()
    count = file.count(b"\xff\xda") + 200
    assert told == f"image_bytes must hold JPEG files of up to 100 scans, got {count}"
