"""The README keeps its promises: its programs are the examples, what it names is there."""

import dataclasses
import importlib.metadata
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import load_once
from typer.testing import CliRunner

from tfnvp import cli
from tfnvp.cli import loading
from tfnvp.training import recipes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
EXAMPLES = ["image_model", "table_density", "vector_model", "conditional_model", "your_own_flow"]
TABLE = README.split("## What there is")[1].split("\n## ")[0]
# A link's text and what it leads to, unless that is an address.
LINKS = sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README)))


def test_its_programs_are_the_examples():
    """Which tests/examples runs; a file's docstring comes before what the README shows."""
    files = [(ROOT / "examples" / f"{name}.py").read_text() for name in EXAMPLES]
    assert [file.partition('"""\n\n')[2] for file in files] == PROGRAMS


def names_in_the_table():
    """The names that the table's code has, from `tfnvp` down."""
    code = " ".join(re.findall(r"`([^`]+)`", TABLE))
    names = set(re.findall(r"\btfnvp(?:\.\w+)+", code))
    names |= {f"tfnvp.ImageRealNVP.{name}" for name in re.findall(r"\bmodel\.(\w+)", code)}
    names |= {f"tfnvp.{name}" for name in re.findall(r"(?<!\.)\b(\w+RealNVP\.\w+)", code)}
    (bijectors,) = re.findall(r"^\| `tfnvp\.bijectors` \| (.*):", TABLE, re.MULTILINE)
    return sorted(names | {f"tfnvp.bijectors.{name}" for name in re.findall(r"`(\w+)`", bijectors)})


def test_see_it_chains_in_an_empty_directory(tmp_path, monkeypatch):
    """The first command leaves what the others use; here its model is small and takes two steps."""
    get = recipes.get
    small = {"filters": 4, "residual_blocks": 1, "num_scales": 1}
    monkeypatch.setattr(
        recipes, "get", lambda *a, **k: dataclasses.replace(get(*a, **k), overrides=small)
    )
    lines = README.split("## See it")[1].split("\n## ")[0].splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("    tfnvp ")]
    assert len(commands) > 5
    monkeypatch.chdir(tmp_path)
    written = set()
    monkeypatch.setattr(recipes.Recipe, "pictures", lambda self: {})
    monkeypatch.setattr(loading, "load", load_once)
    for program, *args in commands:
        assert program == "tfnvp"
        few = ["--limit-steps", "2"] if args[0] == "train" else []
        result = CliRunner().invoke(cli.app, [*args, *few])
        assert result.exit_code == 0, (args, result.output, result.exception)
        files = {path for path in tmp_path.rglob("*") if path.is_file()}
        if "--to" in args or args[0] == "train":
            assert files - written, args
        written = files


def test_what_its_table_names_is_there_after_import_tfnvp():
    """In a process that imports nothing else."""
    names = names_in_the_table()
    assert {"tfnvp.serving.Client", "tfnvp.presets.card", "tfnvp.bijectors.Squeeze"} < set(names)
    program = "import tfnvp\n" + "\n".join(names)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", LINKS)
def test_what_it_links_to_is_there(path):
    assert (ROOT / path).is_file()


def test_outside_of_the_repository_it_has_no_links_that_lead_nowhere():
    """A package index shows it so: paths are named, and the source distribution has these files."""
    metadata = importlib.metadata.metadata("tfnvp")
    description = metadata["Description"] or metadata.get_payload()
    assert description.startswith("# tfnvp")
    links = re.findall(r"\]\(([^)]*)\)", description)
    assert links and all(link.startswith("https://") for link in links)
    for path in LINKS:
        assert path.endswith(".png") or f"`{path}`" in description
