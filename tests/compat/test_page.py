"""docs/compatibility.md says what setup.cfg allows, and which versions were tried."""

import itertools
import re
import sys
from pathlib import Path

import pytest
from compat import __main__ as compat
from packaging.specifiers import SpecifierSet

PAGE = compat.PAGE.read_text()


def rows(heading):
    """The rows of the table whose first cell is a heading, as lists of cells."""
    lines = PAGE.split(f"| {heading} |")[1].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_ranges_are_those_of_setup_cfg():
    assert rows("what") == [list(row) for row in compat.ranges()]
    assert len(rows("what")) == 6


def test_each_set_is_within_the_ranges_and_their_ends_are_tried():
    ranges = {name: SpecifierSet(versions) for name, versions in rows("what")}
    sets = {
        name: dict(zip(("Python", *compat.LIBRARIES), versions, strict=True))
        for name, *versions in rows("set")
    }
    assert list(sets) == list(compat.SETS)
    for versions in sets.values():
        for name, allowed in ranges.items():
            assert versions[name] in allowed
    oldest = sets["oldest"]
    for name in ("tensorflow", "keras", "tensorflow-probability", "Python"):
        lowest = re.search(r">= ?([\d.]+)", str(ranges[name]))[1]
        assert f"{oldest[name]}.".startswith(f"{lowest}."), name


def test_the_tests_that_are_run_are_there():
    for path in itertools.chain(*compat.TESTS.values(), compat.SHORT):
        assert Path(compat.ROOT, "tests", path.partition("::")[0]).is_file()


@pytest.mark.parametrize(
    ("missing", "reason"),
    [("uv", "environments are made with uv"), ("Python", "uv has no Python 3.99: ")],
)
def test_the_oldest_set_is_left_out_where_it_cannot_be_made(
    missing, reason, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(sys, "argv", ["compat", "--short"])
    monkeypatch.setattr(compat, "ROOT", tmp_path)
    if missing == "uv":
        monkeypatch.setattr(compat.shutil, "which", lambda *args, **kwargs: None)
    monkeypatch.setitem(compat.SETS, "oldest", ("3.99", []))
    compat.main()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"the oldest versions are not tried: {reason}")
