"""Tables on the command line: CSV files train and are scored."""

import csv
import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.commands import run

import tfnvp
from tfnvp.training.recipes import table as table_recipe

NAMES = ["age", "height", "weight"]


def _write(path, rows, names=NAMES, encoding="utf-8"):
    with open(path, "w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([names, *rows])
    return path


@pytest.fixture(scope="module")
def table():
    return np.random.default_rng(0).normal(size=(40, 3)).round(3)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, randomize):
    model = randomize(tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=(8,)))
    model.save(tmp_path_factory.mktemp("model") / "model.keras")
    return model, tmp_path_factory.getbasetemp() / "model0" / "model.keras"


def test_scores_are_written_beside_the_rows(saved, table, tmp_path):
    model, path = saved
    source = _write(tmp_path / "table.csv", table)
    result = run("score", path, source, "--to", tmp_path / "scores.csv")
    assert (result.exit_code, result.output) == (0, "")
    header, *rows = csv.reader((tmp_path / "scores.csv").open())
    assert header == [*NAMES, "log_prob", "unusualness"]
    rows = np.array(rows, float)
    np.testing.assert_array_equal(rows[:, :3], table)
    np.testing.assert_allclose(rows[:, 3], model.log_prob(table), rtol=1e-4)
    np.testing.assert_allclose(rows[:, 4], model.unusualness(table), rtol=1e-4)


def test_the_most_unusual_come_first(saved, table, tmp_path):
    model, path = saved
    source = _write(tmp_path / "table.csv", table)
    result = run("score", path, source, "--top", 12, "--to", tmp_path / "scores.csv")
    assert result.exit_code == 0
    _, *rows = csv.reader((tmp_path / "scores.csv").open())
    unusualness = model.unusualness(table).numpy()
    worst = np.argsort(-unusualness)[:12]
    assert list(worst) != list(np.argsort(model.log_prob(table))[:12]), "log p ranks otherwise"
    np.testing.assert_allclose(np.array(rows, float)[:, :3], table[worst])
    lines = run("score", path, source, "--top", 12).output.splitlines()
    printed = [line.split("\t") for line in lines]
    assert [line[0] for line in printed] == [f"{source}/{i}" for i in worst]
    shown = [float(line[3]) for line in printed]
    np.testing.assert_allclose(shown, unusualness[worst], atol=1e-3)


def test_an_export_goes_by_log_p(saved, table, tmp_path):
    model, _ = saved
    served = tfnvp.export_saved_model(model, tmp_path / "served")
    source = _write(tmp_path / "table.csv", table)
    printed = run("score", served, source, "--top", 3).output.splitlines()
    worst = np.argsort(model.log_prob(table))[:3]
    assert [line.split("\t")[0] for line in printed] == [f"{source}/{i}" for i in worst]


def test_a_table_that_is_not_there_is_named(saved, tmp_path):
    path = tmp_path / "absent.csv"
    result = run("score", saved[1], path)
    assert f"{path} cannot be read: No such file or directory" in result.output


def test_the_mark_that_excel_puts_before_a_file_is_no_part_of_a_name(saved, table, tmp_path):
    source = _write(tmp_path / "table.csv", table, encoding="utf-8-sig")
    assert run("score", saved[1], source, "--to", tmp_path / "scores.csv").exit_code == 0
    assert (tmp_path / "scores.csv").read_text().startswith("age,height,weight,log_prob,")


def test_rows_without_a_header_are_refused(saved, table, tmp_path):
    """Or the first of them would be lost."""
    result = run("score", saved[1], _write(tmp_path / "table.csv", table[1:], names=table[0]))
    assert "must begin with the columns' names, got numbers" in result.output


BAD = {
    "text": ([[1, 2, "x"]], "must hold numbers, got 'x' in row 0, column 'weight'"),
    "short": ([[1, 2, 3], [1, 2]], "must have 3 values a row, as its header, got 2 in row 1"),
    "nan": ([[1, "nan", 3]], "must be finite, got NaN in row 0, column 'height'"),
    "empty": ([], "must have a header and rows, got 1 lines"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_table_of_numbers_is_named(kind, saved, tmp_path):
    rows, message = BAD[kind]
    result = run("score", saved[1], _write(tmp_path / "table.csv", rows))
    assert result.exit_code != 0 and message in str(result.output) + str(result.exception)


def test_a_csv_of_scores_needs_a_csv(saved, table, tmp_path):
    np.save(tmp_path / "x.npy", table)
    result = run("score", saved[1], tmp_path / "x.npy", "--to", tmp_path / "scores.csv")
    assert "needs one input, a .csv file" in str(result.output) + str(result.exception)


def test_a_table_trains_and_its_export_serves_vectors(table, tmp_path, monkeypatch):
    small, made = {"num_couplings": 2, "hidden_units": (8,)}, table_recipe.recipe
    monkeypatch.setattr(
        table_recipe, "recipe", lambda path: dataclasses.replace(made(path), overrides=small)
    )
    rows = np.repeat(table, 3, axis=0) + np.random.default_rng(1).normal(0, 0.1, (120, 3))
    source = _write(tmp_path / "table.csv", rows)
    args = ["--data", source, "--run-dir", tmp_path / "run", "--export-to", tmp_path / "served"]
    result = run("train", "table", *args, "--limit-steps", 4)
    assert result.exit_code == 0, result.output
    assert "test log-likelihood" in result.output
    model = keras.models.load_model(tmp_path / "run" / "model.keras")
    served = tfnvp.serving.SavedModel(tmp_path / "served" / "1")
    np.testing.assert_allclose(served.log_prob(rows[:5]), model.log_prob(rows[:5]), rtol=1e-4)
    # The model keeps its rows of the training, and the export has none of them.
    assert model.nearest_row.rows.shape == (96, 3) and int(model.nearest_row.kept) == 96
    exported = tf.train.list_variables(str(tmp_path / "served" / "1" / "variables" / "variables"))
    assert len(exported) > 10 and [96, 3] not in [shape for _, shape in exported]
