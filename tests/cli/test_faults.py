"""Whatever is wrong with files and options is one line that names them, and status 2."""

import json
import resource
import zipfile

import numpy as np
import pytest
from helpers.commands import assert_one_line, run
from PIL import Image

import tfnvp


@pytest.fixture(scope="module")
def model(randomize):
    return randomize(tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=(4,)), seed=1)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    return tfnvp.export_saved_model(model, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def images(tiny_model, tmp_path_factory):
    """A .keras file of a model of images, and the directory of its SavedModel."""
    directory = tmp_path_factory.mktemp("images")
    model = tiny_model((4, 4, 1), num_classes=3, label_dropout=0.1, conditional_base=True)
    model.save(directory / "model.keras")
    return directory / "model.keras", tfnvp.export_saved_model(model, directory / "served")


@pytest.fixture
def vectors(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.ones((2, 2), "float32"))
    return path


def test_a_damaged_keras_file_is_named_or_unharmed(saved, vectors, tmp_path):
    whole, path = saved.read_bytes(), tmp_path / "damaged.keras"
    right = run("score", saved, vectors).output
    random = np.random.default_rng(0)
    refused = 0
    for place in random.integers(0, len(whole), 40):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(place) % 8
        path.write_bytes(damaged)
        result = run("score", path, vectors)
        if result.exit_code:
            refused += 1
            assert_one_line(result, path)
        else:  # It is a time or so, which no one reads.
            assert result.output == right
    assert refused > 30


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_keras_file_that_is_cut_off_says_so(share, saved, vectors, tmp_path):
    whole, path = saved.read_bytes(), tmp_path / "cut.keras"
    path.write_bytes(whole[: int(share * len(whole))])
    assert_one_line(
        run("score", path, vectors), f"{path} is no .keras file, or one that is cut off"
    )


def test_another_archive_is_named(vectors, tmp_path):
    path = tmp_path / "another.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "mine")
    assert_one_line(run("score", path, vectors), f"{path} cannot be loaded")


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "half of the variables": lambda path: half(path / "variables/variables.data-00000-of-00001"),
    "no variables": lambda path: (path / "variables/variables.data-00000-of-00001").unlink(),
    "half of their index": lambda path: half(path / "variables/variables.index"),
    "half of the graph": lambda path: half(path / "saved_model.pb"),
    "an empty graph": lambda path: (path / "saved_model.pb").write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_saved_model_is_named(damage, served, vectors, tmp_path):
    path = tmp_path / "1"
    for file in served.rglob("*"):
        if file.is_file():
            (path / file.relative_to(served)).parent.mkdir(parents=True, exist_ok=True)
            (path / file.relative_to(served)).write_bytes(file.read_bytes())
    assert run("score", path, vectors).exit_code == 0
    DAMAGE[damage](path)
    assert_one_line(run("score", path, vectors), path)


def a_terabyte(path):
    """Writes a .npy file of some bytes, whose header tells of a terabyte."""
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**37, 2)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(80))


def two_arrays(path):
    np.savez(path, a=np.ones(2), b=np.ones(2))


def torn(path):
    np.savez(path, np.random.default_rng(0).normal(size=(100, 2)))
    half(path)


def altered(path):
    np.savez(path, np.zeros((100, 2)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def vast_in_archive(path):
    a_terabyte(path.with_name("arr_0.npy"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(path.with_name("arr_0.npy"), "arr_0.npy")


BROKEN = {
    "torn.npz": torn,
    "altered.npz": altered,
    "terabyte.npy": a_terabyte,
    "terabyte.npz": vast_in_archive,
    "empty.npy": lambda path: path.touch(),
    "empty.npz": lambda path: path.touch(),
    "text.npy": lambda path: path.write_text("1, 2\n"),
    "words.npy": lambda path: np.save(path, np.array([["a", "b"]])),
    "objects.npy": lambda path: np.save(path, np.array([[{}, {}]]), allow_pickle=True),
    "two.npz": two_arrays,
    "binary.csv": lambda path: path.write_bytes(bytes(range(256))),
    "vast.csv": lambda path: path.write_text("a,b\n" + "1" * 200_000 + ",1\n"),
    "nan.csv": lambda path: path.write_text("a,b\n1,nan\n"),
    "empty.csv": lambda path: path.touch(),
    "absent.csv": lambda path: None,
    "directory.npy": lambda path: path.mkdir(),
    "absent.npy": lambda path: None,
}


@pytest.mark.parametrize("name", BROKEN)
def test_vectors_that_cannot_be_read_are_named(name, saved, tmp_path):
    BROKEN[name](tmp_path / name)
    assert_one_line(run("score", saved, tmp_path / name), tmp_path / name)


def test_a_csv_of_scores_is_replaced_by_force_alone(saved, tmp_path):
    source, to = tmp_path / "x.csv", tmp_path / "scores.csv"
    source.write_text("a,b\n1,2\n3,4\n")
    to.write_text("mine")
    args = ["score", saved, source, "--to", to]
    assert_one_line(run(*args), f"{to} is there already: --force replaces it")
    assert run(*args, "--force").exit_code == 0
    assert to.read_text().startswith("a,b,log_prob,unusualness\n1,2,")


@pytest.mark.parametrize("temperature", ["inf", "nan", "-1"])
def test_a_temperature_that_is_none_is_refused(temperature, saved, tmp_path):
    result = run("sample", saved, "--to", tmp_path / "x.npy", "--temperature", temperature)
    assert_one_line(result, "--temperature must be finite and 0 or more, got")


@pytest.mark.parametrize("labels", ["1" * 20, "-" + "9" * 20, "\u00b2", "1.5", "", "1_0"])
@pytest.mark.parametrize("kind", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_labels_that_are_none_are_refused(labels, kind, images, tmp_path):
    result = run("sample", images[kind], "--to", tmp_path / "x.npy", f"--labels={labels}")
    assert_one_line(result, "--labels must be integers of up to 9 digits", labels)


@pytest.mark.parametrize("command", ["sample", "interpolate", "reconstruct", "score"])
def test_a_file_that_is_there_is_replaced_by_force_alone(command, saved, vectors, tmp_path):
    to, pointed_at = tmp_path / "to.npy", tmp_path / "another"
    pointed_at.write_text("mine")
    to.symlink_to(pointed_at)
    inputs = [vectors] if command in ("reconstruct", "score") else []
    args = [command, saved, *inputs, "--to", to]
    assert_one_line(run(*args), f"{to} is there already: --force replaces it")
    pointed_at.unlink()
    assert_one_line(run(*args), f"{to} is there already")  # as a link that leads nowhere
    pointed_at.write_text("mine")
    assert run(*args, "--force").exit_code == 0
    assert not to.is_symlink() and np.isfinite(np.load(to)).all()
    assert pointed_at.read_text() == "mine"
    assert run(*args, "--force").exit_code == 0
    assert_one_line(run(*args[:-1], tmp_path / "to.NPY" / ".."), "suffix")


IDLE = {
    "score -n": ("score", ["FILE", "-n", 3], "-n is for --dataset"),
    "score --split": ("score", ["FILE", "--split", "train"], "--split is for --dataset"),
    "evaluate --split": ("evaluate", ["FILE", "--split", "train"], "--split is for --dataset"),
    "reconstruct -n": ("reconstruct", ["FILE", "-n", 3, "--to", "TO"], "-n is for --dataset"),
    "reconstruct --seed": ("reconstruct", ["FILE", "--seed", 3, "--to", "TO"], "--seed is for"),
    "interpolate --seed": (
        "interpolate", ["--images", *["FILE"] * 4, "--seed", 3, "--to", "TO"], "--seed is for",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IDLE)
def test_an_option_that_would_do_nothing_is_refused(name, saved, vectors, tmp_path):
    command, options, message = IDLE[name]
    to = tmp_path / "new.npy"
    filled = [{"FILE": vectors, "TO": to}.get(option, option) for option in options]
    assert_one_line(run(command, saved, *filled), message)
    assert not to.exists()


def test_where_nothing_can_be_exported_to_is_one_line(saved, tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert_one_line(run("export", saved, "--to", file), f"{file} is a file")
    assert_one_line(run("export", saved, "--to", file / "x"), file)
    saved.with_name("card.json").write_text("{")
    assert_one_line(run("export", saved, "--to", tmp_path), saved.with_name("card.json"))
    saved.with_name("card.json").unlink()


def test_a_full_disk_ends_an_export_in_one_line_and_leaves_nothing(saved, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        result = run("export", saved, "--to", tmp_path / "served")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_one_line(result, tmp_path / "served", "File too large")
    assert list((tmp_path / "served").iterdir()) == []


def test_a_directory_in_digits_of_another_script_is_no_version(saved, tmp_path):
    for name in ("\u00b2", "\u0663", "9" * 30):  # superscript two, Arabic three
        (tmp_path / name).mkdir()
    result = run("export", saved, "--to", tmp_path, "--signature", "log_prob")
    assert (result.exit_code, result.output) == (0, f"{tmp_path / '1'}\n")


def test_one_row_has_no_standard_error(saved, vectors, tmp_path):
    np.save(tmp_path / "one.npy", np.ones((1, 2)))
    figures = json.loads(
        run("evaluate", saved, tmp_path / "one.npy", "--json").output,
        parse_constant=lambda name: pytest.fail(f"{name} is not JSON"),
    )
    assert figures["standard_error"] is None and figures["vectors"] == 1
    assert "nan" not in run("evaluate", saved, tmp_path / "one.npy").output


def test_scores_end_with_their_mean(saved, tmp_path):
    x = np.random.default_rng(0).normal(size=(300, 2))
    np.save(tmp_path / "x.npy", x)
    lines = run("score", saved, tmp_path / "x.npy").output.splitlines()
    *rows, mean = [line.split("\t") for line in lines]
    assert len(rows) == 300 and mean[0] == "mean of 300"
    for column, decimals in ((1, 3), (2, 4)):
        average = np.mean([float(row[column]) for row in rows])
        assert float(mean[column]) == pytest.approx(average, abs=10.0**-decimals)


@pytest.mark.parametrize("labels", [[], ["--labels", "0,2"]])
@pytest.mark.parametrize("options", [[], ["--temperature", "0.5"], ["--seed", "7"]])
def test_seed_and_temperature_mean_the_same_of_images(labels, options, images, tmp_path):
    """A model whose latents have another mean for each class; a SavedModel gives levels."""
    drawn = []
    for i, path in enumerate(images):
        to = tmp_path / f"{i}.npy"
        result = run("sample", path, "--to", to, "-n", 6, *labels, *options)
        assert result.exit_code == 0, result.output
        drawn.append(np.load(to))
    assert drawn[0].std() > 0.05
    np.testing.assert_allclose(drawn[1], drawn[0], atol=0.51 / 16)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_seed_and_temperature_mean_the_same_of_vectors(dtype, randomize, tmp_path):
    model = tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=(4,), dtype=dtype)
    randomize(model, seed=2).save(tmp_path / "model.keras")
    served = tfnvp.export_saved_model(model, tmp_path / "served")
    args = ["-n", 5, "--temperature", "0.7", "--seed", 3, "--to"]
    for i, path in enumerate((tmp_path / "model.keras", served)):
        assert run("sample", path, *args, tmp_path / f"{i}.npy").exit_code == 0
    ours, theirs = (np.load(tmp_path / f"{i}.npy") for i in range(2))
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


def test_a_picture_of_another_kind_is_named(images, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp")
    result = run("score", images[0], tmp_path / "a.webp")
    assert_one_line(result, "not a PNG or JPEG file", tmp_path / "a.webp")


FAULTY = {
    "no array": ("x.npz", lambda path: _zip(path, "a.txt"), "x.npz must hold an array, and a.txt"),
    "no rows": ("x.npy", lambda path: np.save(path, np.zeros((0, 2))), "x.npy must hold vectors"),
    "NaN": (
        "x.npy", lambda path: np.save(path, [[0.0, 1.0], [0.0, np.nan]]),
        "x.npy must be finite, got NaN in row 1, column 1",
    ),
    "too large": ("x.npy", lambda path: np.save(path, [[1e300, 0.0]]), "x.npy must be finite"),
}  # fmt: skip


def _zip(path, name):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, "x")


@pytest.mark.parametrize("kind", ["saved", "served"])
@pytest.mark.parametrize("name", FAULTY)
def test_rows_that_cannot_be_scored_are_named(name, kind, tmp_path, request):
    file, write, message = FAULTY[name]
    write(tmp_path / file)
    for command in ("score", "evaluate"):
        result = run(command, request.getfixturevalue(kind), tmp_path / file)
        assert_one_line(result, message)


@pytest.mark.parametrize("kind", ["saved", "served"])
def test_numbers_that_tensorflow_would_cut_down_are_refused(kind, tmp_path, request):
    path, to = request.getfixturevalue(kind), tmp_path / "to.npy"
    assert_one_line(run("sample", path, "--to", to, "-n", 2**32 + 4), "n must be an integer of 0")
    assert_one_line(run("sample", path, "--to", to, "--seed", 10**25), "seed must be an integer")
    drawn = []
    for seed in (5, 2**32 + 5, 5 - 2**32):
        assert run("sample", path, "--to", to, "--force", "-n", 2, "--seed", seed).exit_code == 0
        drawn.append(np.load(to).tolist())
    assert drawn[0] != drawn[1] != drawn[2] != drawn[0]
