"""The version that is cited is the one that is there, and what changed in it is told."""

import re
from pathlib import Path

import pytest

import tfnvp

ROOT = Path(__file__).parents[1]


def test_version_and_day_are_those_of_the_changelog():
    yaml = pytest.importorskip("yaml", reason="pyyaml is not installed")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = re.findall(
        r"^## (\d\S*) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert (tfnvp.__version__, str(cited["date-released"])) == released[0]
    assert cited["version"] == tfnvp.__version__
    # Every reader of the format needs these.
    assert {"cff-version", "message", "title", "authors"} < set(cited)
