"""The command `score` tells how unusual pictures are, and shows where."""

import csv
import json
import os
import shutil
import warnings

import numpy as np
import pytest
from helpers.commands import assert_one_line, run
from helpers.few_couplings import FewCouplings
from PIL import Image

import tfnvp
from tfnvp import anomaly, plotting
from tfnvp.cli import score


@pytest.fixture(scope="module")
def model(randomize):
    return randomize(FewCouplings((8, 8, 1), 1, filters=4, residual_blocks=1, levels=17))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("unusual") / "model.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    """A directory of the four pictures, the last two of them in one below it."""
    directory = tmp_path_factory.mktemp("folder")
    (directory / "more").mkdir()
    names = ["0.png", "1.png", "more/2.png", "more/3.png"]
    for name, path in zip(names, pictures[0], strict=True):
        (directory / name).write_bytes(path.read_bytes())
    return directory, [str(directory / name) for name in names]


@pytest.fixture(scope="module")
def expected(model, pictures):
    """The scores and p-values of the pictures, by Python, which the command is to find."""
    held_out = np.concatenate(list(tfnvp.data.load("digits", "validation", 200)))
    detector = anomaly.Detector(model, held_out)
    p_values = detector.p_values(pictures[1])
    figures = {"log_prob": model.log_prob(pictures[1]).numpy(), **detector.scores(pictures[1])}
    return figures | {f"p_{name}": values for name, values in p_values.items()}


def read(path):
    """The header of a CSV file, its first column, and its numbers."""
    header, *rows = csv.reader(path.open())
    return header, [row[0] for row in rows], np.array([row[1:] for row in rows], float)


def test_a_folder_is_scored_beside_a_data_set(saved, folder, expected, tmp_path):
    directory, names = folder
    args = ["score", saved, directory, "--dataset", "digits"]
    records = [json.loads(line) for line in run(*args, "--json").output.splitlines()]
    assert [record.pop("input") for record in records] == names
    for name, values in expected.items():
        np.testing.assert_allclose([r[name] for r in records], values, rtol=1e-4, atol=1e-4)
    assert all(list(record) == list(expected) for record in records)
    result = run(*args, "--to", tmp_path / "scores.csv")
    assert (result.exit_code, result.output) == (0, "")
    header, inputs, numbers = read(tmp_path / "scores.csv")
    assert (header, inputs) == (["input", *expected], names)
    np.testing.assert_allclose(numbers.T, list(expected.values()), rtol=1e-4, atol=1e-4)
    means = run(*args).output.splitlines()[-1].split("\t")
    assert means[0] == "mean of 4"
    of_all = [values.mean() for values in expected.values()]
    np.testing.assert_allclose(np.array(means[1:], float), of_all, rtol=1e-3, atol=1e-3)


def test_a_sheet_has_the_most_unusual_beside_their_maps(
    model, saved, folder, pictures, expected, tmp_path
):
    directory, names = folder
    sheet = tmp_path / "sheet.png"
    args = ["score", saved, directory, "--dataset", "digits", "--top", 3, "--to", sheet]
    result = run(*args)
    assert (result.exit_code, result.output) == (0, f"{sheet}\n{tmp_path / 'sheet.csv'}\n")
    worst = np.argsort(-expected["joint"])[:3]
    assert list(worst) != list(np.argsort(-expected["bits_per_dim"])[:3]), "bits rank otherwise"
    header, inputs, numbers = read(tmp_path / "sheet.csv")
    assert (header, inputs) == (["input", *expected], [names[i] for i in worst])
    joint = numbers[:, list(expected).index("joint")]
    np.testing.assert_allclose(joint, expected["joint"][worst], rtol=1e-3)
    images = pictures[1][worst]
    labels = [f"{rank}: {names[i].rpartition('/')[2]}" for rank, i in enumerate(worst, 1)]
    maps = anomaly.latent_map(model, images)
    drawn = plotting.pixels(plotting.beside_maps(images / 16, maps, labels))
    assert np.abs(np.asarray(Image.open(sheet)).astype(int) - drawn).max() <= 2

    # Files that are there already are replaced by force alone, the table too.
    before = (tmp_path / "sheet.csv").read_text()
    sheet.unlink()
    assert_one_line(run(*args), f"{tmp_path / 'sheet.csv'} is there already: --force replaces it")
    assert not sheet.exists() and (tmp_path / "sheet.csv").read_text() == before
    assert run(*args, "--force").exit_code == 0 and sheet.exists()


def test_without_a_data_set_there_are_bits_alone(model, saved, folder, pictures, tmp_path):
    to = tmp_path / "sheet.png"
    assert run("score", saved, folder[0], "--top", 2, "--to", to).exit_code == 0
    header, inputs, numbers = read(tmp_path / "sheet.csv")
    bits = model.bits_per_dim(pictures[1]).numpy()
    worst = np.argsort(-bits)[:2]
    assert header == ["input", "log_prob", "bits_per_dim"]
    assert inputs == [folder[1][i] for i in worst]
    np.testing.assert_allclose(numbers[:, 1], bits[worst], rtol=1e-4)
    assert Image.open(to).size[0] > 100


def test_rows_of_a_data_set_have_a_sheet_too(saved, tmp_path):
    to = tmp_path / "sheet.png"
    args = ["--dataset", "digits", "-n", 5, "--split", "train", "--top", 2]
    assert run("score", saved, *args, "--to", to).exit_code == 0
    _, inputs, _ = read(tmp_path / "sheet.csv")
    assert len(inputs) == 2 and all(name.startswith("digits/train/") for name in inputs)


def test_labels_are_of_both(randomize, folder, pictures, tmp_path):
    flow = FewCouplings((8, 8, 1), 1, 4, 1, levels=17, num_classes=10, label_dropout=0.1)
    randomize(flow).save(tmp_path / "model.keras")
    args = ["score", tmp_path / "model.keras", folder[0], "--dataset", "digits", "--json"]
    records = [json.loads(line) for line in run(*args, "--labels", "3,5").output.splitlines()]
    ((images, labels),) = tfnvp.data.load("digits", "validation", 200, labels=True)
    detector = anomaly.Detector(flow, images, labels)
    expected = detector.p_values(pictures[1], [3, 5, 3, 5])
    found = [record["p_typicality"] for record in records]
    np.testing.assert_allclose(found, expected["typicality"], atol=1e-2)
    bits = flow.bits_per_dim(pictures[1], [3, 5, 3, 5])
    np.testing.assert_allclose([record["bits_per_dim"] for record in records], bits, rtol=1e-4)


def test_other_pictures_of_a_directory_are_passed_over_with_a_warning(saved, folder, tmp_path):
    (tmp_path / "mine").mkdir()
    for name in ("a.webp", "b.webp"):
        (tmp_path / "mine" / name).touch()
    refused = run("score", saved, tmp_path / "mine")
    assert_one_line(refused, "no PNG or JPEG file in", "but 2 .webp")
    Image.new("L", (8, 8)).save(tmp_path / "mine" / "c.png")
    with pytest.warns(UserWarning, match="passed over 2 .webp in .*mine: PNG and JPEG files are"):
        assert run("score", saved, tmp_path / "mine").output.startswith(f"{tmp_path}/mine/c.png\t")


def test_a_broken_file_of_a_directory_is_passed_over_and_a_named_one_refused(
    saved, folder, tmp_path
):
    mixed, broken = tmp_path / "mixed", tmp_path / "broken"
    shutil.copytree(folder[0], mixed)
    broken.mkdir()
    cut = broken / "cut.png"
    cut.write_bytes((mixed / "0.png").read_bytes()[:60])
    shutil.copy(cut, mixed / "cut.png")
    with pytest.warns(UserWarning, match=r"skipped 1 of 5 images that could not be read: .*cut.p"):
        found = run("score", saved, mixed, "--json").output.splitlines()
    alone = run("score", saved, folder[0], "--json").output.splitlines()
    bits = [[json.loads(line)["bits_per_dim"] for line in lines] for lines in (found, alone)]
    assert len(bits[0]) == 4 and bits[0] == bits[1]
    assert_one_line(run("score", saved, cut), "cut.png")
    assert_one_line(run("score", saved, broken), "holds no picture that can be read", "cut.png")


def test_a_directory_is_held_out_in_place_of_a_set(model, saved, folder, tmp_path):
    held_out = tmp_path / "held out"
    held_out.mkdir()
    images = np.random.default_rng(1).integers(0, 256, (20, 8, 8)).astype("uint8")
    for i, image in enumerate(images):
        Image.fromarray(image).save(held_out / f"{i:02}.png")
    args = ["score", saved, folder[0], "--held-out", held_out, "--json"]
    found = [json.loads(line) for line in run(*args).output.splitlines()]
    known = tfnvp.data.read_images(sorted(held_out.iterdir()), (8, 8, 1), 17)
    shown = tfnvp.data.read_images(folder[1], (8, 8, 1), 17)
    expected = anomaly.Detector(model, known).p_values(shown)
    for name, values in expected.items():
        np.testing.assert_allclose([row[f"p_{name}"] for row in found], values, atol=1e-6)
    refused = {"/nosuch": "must be a directory of pictures, got /nosuch"}
    for directory, message in refused.items():
        assert_one_line(run("score", saved, folder[0], "--held-out", directory), message)
    for option, value in {"--dataset": "digits", "--labels": "3"}.items():
        message = f"{option} cannot stand beside --held-out; got {value}"
        assert_one_line(run(*args, option, value), message)


def test_names_of_files_may_be_any(saved, folder, tmp_path):
    directory = tmp_path / "names"
    directory.mkdir()
    names = [b"cost_$5^$.png", b"caf\xe9.png", "文.png".encode()]
    for name in names:
        shutil.copy(folder[1][0], os.fsencode(directory) + b"/" + name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        to = tmp_path / "sheet.png"
        assert run("score", saved, directory, "--top", 3, "--to", to).exit_code == 0
    rows = (tmp_path / "sheet.csv").read_bytes().splitlines()[1:]
    assert sorted(row.split(b",")[0].split(b"/")[-1] for row in rows) == sorted(names)


def test_what_has_no_density_comes_first(saved, folder, monkeypatch):
    bits = np.array([1.0, np.nan, 3.0, 2.0], "float32")
    monkeypatch.setattr(score.metrics, "bits_per_dim", lambda *args: bits)
    found = run("score", saved, folder[0], "--top", 4, "--json").output.splitlines()
    order = [folder[1].index(json.loads(line)["input"]) for line in found]
    assert order == [1, 2, 3, 0]


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    return tfnvp.export_saved_model(model, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def of_256(randomize, tmp_path_factory):
    path = tmp_path_factory.mktemp("of_256") / "model.keras"
    randomize(FewCouplings((8, 8, 1), 1, filters=4, residual_blocks=1)).save(path)
    return path


REFUSED = {
    "sheet of a SavedModel": (
        "{served} {folder} --top 2 --to {new}.png",
        "score --top --to sheet.png needs more than a SavedModel's signatures",
    ),
    "beside a set": (
        "{served} {folder} --dataset digits",
        "score of files beside --dataset needs more than a SavedModel's signatures",
    ),
    "split": (
        "{saved} {folder} --dataset digits --split train",
        "--split is for a --dataset that is scored: beside files, 1000 of its validation",
    ),
    "count": ("{saved} {folder} --dataset digits -n 3", "-n is for a --dataset that is scored"),
    "vectors": ("{saved} {folder} --dataset moons", "moons is of vectors, this is a model of im"),
    "other size": (
        "{saved} {folder} --dataset photos",
        "photos has images (32, 32, 3) of 256 levels, this is a model of images (8, 8, 1) of 17",
    ),
    "other levels": (
        "{of_256} {folder} --dataset digits",
        "digits has images (8, 8, 1) of 17 levels, this is a model of images (8, 8, 1) of 256",
    ),
    "labels": ("{saved} {folder} --dataset digits --labels 1", "labels must be None"),
    "no such": ("{saved} /nosuch --dataset digits", "/nosuch"),
    "kind of file": ("{saved} {folder} --to {new}.jpg", "'.jpg'; known: .png, .npy, .npz, .csv"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_one_line(name, saved, served, of_256, folder, tmp_path):
    args, message = REFUSED[name]
    places = {"saved": saved, "served": served, "folder": folder[0], "new": tmp_path / "new"}
    places["of_256"] = of_256
    assert_one_line(run("score", *args.format(**places).split()), message)
    assert list(tmp_path.iterdir()) == []
