"""The unusual pictures of the benchmark are what they are called, and the page has its figures."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import tfnvp
from benchmarks import anomalies

# The scores, in the order of the page's columns.
COLUMNS = ("joint", "bits_over_png", "bits_per_dim", "typicality", "score_norm")
ROOT = Path(__file__).parents[2]
CHANGED = [name for name in anomalies.CHANGES if name not in ("digits", "flat", "noise")]


def images(shape=(12, 28, 28, 1), levels=256):
    return np.random.default_rng(0).integers(0, levels, shape).astype("uint8")


@pytest.mark.parametrize("name", anomalies.CHANGES)
@pytest.mark.parametrize(("shape", "levels"), [((3, 28, 28, 1), 256), ((3, 8, 8, 3), 17)])
def test_all_are_images_of_the_models_kind(name, shape, levels):
    usual = images(shape, levels)
    changed = anomalies.CHANGES[name](usual, levels, np.random.default_rng(1))
    assert changed.shape == usual.shape and changed.dtype == np.uint8 and changed.max() < levels
    assert all(np.any(a != b) for a, b in zip(usual, changed, strict=True))


def test_changes_by_hand():
    usual = images()
    changed = {
        name: anomalies.CHANGES[name](usual, 256, np.random.default_rng(1)) for name in CHANGED
    }
    np.testing.assert_array_equal(changed["inverted"].astype(int) + usual, 255)
    assert changed["shifted"][0, 9, 10, 0] == usual[0, 2, 3, 0]
    assert changed["shifted"][0, 3, 2, 0] == usual[0, 24, 23, 0]
    mean = usual[:, 9:20, 9:20].mean()
    assert changed["blurred"][:, 9:20, 9:20].std() < 0.5 * usual.std()
    assert abs(changed["blurred"][:, 9:20, 9:20].mean() - mean) < 3
    inside = (usual > 100) & (usual < 155)
    assert abs((changed["noisy"].astype(float) - usual)[inside].std() - 32) < 2
    first, second = (
        sorted(x[5].reshape(4, 7, 4, 7).swapaxes(1, 2).reshape(16, 49).tolist())
        for x in (usual, changed["patches"])
    )
    assert first == second
    flat = anomalies.flat(usual, 256, np.random.default_rng(1))
    assert np.all(flat == flat[:, :1, :1]) and len(np.unique(flat)) > 5
    # At twice the size, 2 x 2 pixels stand where one did.
    digits = anomalies.digits(images((12, 16, 16, 1)), 256, None)
    means = digits.reshape(12, 8, 2, 8, 2).mean(axis=(2, 4))
    small = np.stack(list(tfnvp.data.load("digits", "test").take(12).as_numpy_iterator()))
    assert digits.max() == 255 and np.corrcoef(means.ravel(), small.ravel())[0, 1] > 0.95


def test_areas_are_of_the_scores(tiny_model):
    model = tiny_model((8, 8, 1), levels=17)
    (record,) = anomalies.records(model, "digits", ["inverted"], images=30, held_out=20)
    held_out, usual = (
        anomalies.read("digits", "validation", 20),
        anomalies.read("digits", "test", 30),
    )
    detector = tfnvp.anomaly.Detector(model, held_out)
    both = detector.scores(np.concatenate([usual, 16 - usual]))
    assert (record["usual"], record["unusual"], record["held_out"]) == (30, 30, 20)
    for name, scores in both.items():
        assert record[name] == pytest.approx(roc_auc_score([0] * 30 + [1] * 30, scores), abs=1e-3)


def test_each_row_of_figures_is_a_line_of_the_results():
    lines = (ROOT / "benchmarks/results/anomalies.jsonl").read_text().splitlines()
    rows = set()
    for line in map(json.loads, lines):
        figures = [f"{line[name]:.2f}" for name in COLUMNS]
        rows.add(f"| {line['model']} | {line['against']} | {' | '.join(figures)} |")
    page = (ROOT / "docs/anomalies.md").read_text().partition("## Figures")[2]
    header, *shown = [row for row in page.splitlines() if row.startswith("| ")]
    assert header == f"| model | against | {' | '.join(f'`{name}`' for name in COLUMNS)} |"
    assert len(shown) == len(rows) > 10 and set(shown) == rows
