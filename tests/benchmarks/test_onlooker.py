"""Benchmarks that look at a model in training leave it as it was, and pages have their figures."""

import itertools
import json
from pathlib import Path

import keras
import numpy as np
import pytest

import tfnvp
from benchmarks import learning_curves, moments

ROOT = Path(__file__).parents[2]
IMAGES = np.random.default_rng(0).integers(0, 16, (32, 4, 4, 1), dtype=np.uint8)


def curve():
    looks = learning_curves.Curve({"recipe": "none"}, 8, 4, IMAGES, [IMAGES[:16]])
    looks.due = 16
    return looks


def figures():
    return moments.Figures({"recipe": "none"}, IMAGES, IMAGES[:16], 8, 2)


@pytest.mark.parametrize("onlooker", [curve, figures])
def test_training_goes_on_as_if_nobody_had_looked(onlooker, tiny_model, capsys):
    trained = []
    for callbacks in ([], [onlooker()]):
        keras.utils.set_random_seed(0)  # It is of the noise.
        model = tiny_model()
        model.compile(tfnvp.optimizers.Adam(1e-2))
        callbacks.append(tfnvp.callbacks.FreshMoments(None))
        model.fit(IMAGES, batch_size=8, shuffle=False, verbose=0, callbacks=callbacks)
        trained.append([variable.numpy() for variable in model.variables])
    for alone, watched in zip(*trained, strict=True):
        np.testing.assert_array_equal(alone, watched)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2 and all(line["recipe"] == "none" for line in lines)
    scored = [value for line in lines for name, value in line.items() if "validation" in name]
    # The weights of two looks differ, and so do running averages and fresh moments.
    assert len(set(scored)) == len(scored) and np.all(np.isfinite(scored))


def test_the_page_has_the_largest_differences_of_the_lines():
    lines = (ROOT / "benchmarks/results/moments.jsonl").read_text().splitlines()
    page = (ROOT / "docs/results.md").read_text()
    rows = list(moments.table(lines))
    assert len(rows) >= 18
    for row in rows:
        assert row in page


def test_the_page_has_the_gaps_of_whole_recipes():
    lines = (ROOT / "benchmarks/results/validation.jsonl").read_text().splitlines()
    page = (ROOT / "docs/results.md").read_text()
    lines = [line for line in map(json.loads, lines) if "recipe" in line]
    assert len({line["recipe"] for line in lines}) == 3
    for last, line in itertools.pairwise(lines):
        if "largest_gap" in line:
            assert line["largest_gap"] < 0.15
            figures = f"{last['train']:.2f} | {last['validation']:.2f}"
            end = f" | {line['epochs']} | {line['largest_gap']:.3f} | {figures} |"
            (row,) = (row for row in page.splitlines() if row.endswith(end))
            assert row.startswith(f"| `{line['recipe']}` |")


def test_the_page_has_the_last_figures_of_the_curves():
    lines = (ROOT / "benchmarks/results/learning_curves.jsonl").read_text().splitlines()
    page = (ROOT / "docs/results.md").read_text()
    last = {line["recipe"]: line for line in map(json.loads, lines)}
    assert tuple(last) == learning_curves.RECIPES
    for name, line in last.items():
        figures = f"{line['filters']} | {line['parameters']:,} | {line['images']:,}"
        assert f"| `{name}` | {figures} | {line['validation']:.2f} |" in page


def test_curves_of_both_data_sets_are_drawn(tmp_path):
    lines = [
        json.dumps({"recipe": name, "images": images, "validation": 5 - images / 4000})
        for name in learning_curves.RECIPES
        for images in (1024, 2048)
    ]
    (tmp_path / "lines.jsonl").write_text("\n".join(lines))
    learning_curves.plot([tmp_path / "lines.jsonl"], tmp_path / "curves.png")
    picture = keras.utils.img_to_array(keras.utils.load_img(tmp_path / "curves.png"))
    # Two panels have curves of two colours each.
    for panel in np.split(picture, 2, axis=1):
        colours = {tuple(colour) for colour in panel.reshape(-1, 3).astype(int)}
        assert {(31, 119, 180), (255, 127, 14)} <= colours
