"""The programs in docs/ run as they stand, and show what their page says."""

import re
from pathlib import Path

import numpy as np
import pytest

import tfnvp

DOCS = Path(__file__).parents[1] / "docs"


def programs(page):
    """The blocks of a page by the section that they are in; the first is before any."""
    sections = re.split(r"^## (.*)$", (DOCS / page).read_text(), flags=re.MULTILINE)
    titles = ["", *sections[1::2]]
    blocks = ["\n".join(re.findall(r"```python\n(.*?)```", s, re.DOTALL)) for s in sections[::2]]
    return dict(zip(titles, blocks, strict=True))


PROGRAMS = programs("inside-tensorflow.md")


@pytest.fixture(scope="module")
def after():
    """after(title): the names that the page has once the section of that title has run."""
    names = {}
    left = list(PROGRAMS)

    def after(title):
        while title in left:
            exec(PROGRAMS[left.pop(0)], names)
        return names

    return after


def test_variational_inference_comes_near_the_target(after):
    losses = after("Variational inference by reverse KL")["losses"]
    # -log of the integral of the target's exponential, which is 2 * 2 pi.
    least = -np.log(4 * np.pi)
    assert losses[0] > least + 0.5 and abs(np.mean(losses[-30:]) - least) < 0.2


def test_chains_through_the_flow_are_of_the_target(after):
    names = after("HMC with the flow as preconditioner")
    states = np.reshape(names["states"], (-1, 2))
    assert np.mean(names["accepted"]) > 0.6
    np.testing.assert_allclose(np.mean(states, axis=0), [0, 2], atol=0.4)
    assert abs(np.std(states[:, 0]) - 2) < 0.4


def test_a_mixture_over_labels(after):
    names = after("A mixture over labels")
    parts, x = names["of_each"], names["x"].numpy()[:5]
    assert parts.batch_shape == [3] and parts[1].batch_shape == [] and parts[:2].batch_shape == [2]
    by_hand = np.exp(parts.log_prob(x[:, None])) @ np.array([0.2, 0.3, 0.5])
    np.testing.assert_allclose(np.exp(names["mixture"].log_prob(x)), by_hand, rtol=1e-4)


def test_score_and_hessian(after):
    names = after("Score and Hessian")
    x, step = names["points"], 1e-2 * names["direction"]
    slope = (names["density"].log_prob(x + step) - names["density"].log_prob(x - step)) / 2
    expected = np.sum(names["score"](x) * step, axis=1)
    np.testing.assert_allclose(slope, expected, rtol=0.1, atol=5e-3)
    hessian = names["hessian"](x).numpy()
    np.testing.assert_allclose(hessian, np.swapaxes(hessian, 1, 2), rtol=1e-3, atol=1e-3)


def test_what_is_outside(after):
    names = after("What is outside")
    assert np.isneginf(names["far"]).all()
    assert np.all(names["learned"] > 0.1)


def test_the_table_of_devices_names_tests_that_are_there():
    page = (DOCS / "devices.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    assert len(rows) == 9 and all(len(row) in (4, 5) and all(row) for row in rows)
    for cell in (cell for row in rows[1:] for cell in row[1:]):
        path, _, test = cell.strip("*`").partition("::")
        source = (DOCS.parent / "tests" / path).read_text()
        assert f"def {test}(" in source if test else source
        assert cell.startswith("*") == (f"slow\ndef {test}(" in source)


def test_unusual_pictures_by_the_program_of_their_page():
    names = {}
    exec(programs("anomalies.md")[""], names)
    assert set(names["scores"]) == set(names["p_values"]) == set(tfnvp.anomaly.SCORES)
    # With 200 images held out.
    assert all(p.min() >= 1 / 201 and p.max() <= 1 for p in names["p_values"].values())
    assert names["maps"].shape == (20, 8, 8)
