"""SECURITY.md keeps its promises about files."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def unsafe(source):
    """Finds what runs code out of files in a program: modules it imports, and options it sets."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in UNSAFE)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE:
            yield node.module
        elif isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            if (node.arg, node.value.value) in (("allow_pickle", True), ("safe_mode", False)):
                yield node.arg
        elif isinstance(node, ast.Attribute) and "unsafe_deserialization" in node.attr:
            yield node.attr


@pytest.mark.parametrize("room", ["tfnvp", "train"])
def test_no_file_is_loaded_as_code(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    assert {path.name: found for path in files if (found := list(unsafe(path.read_text())))} == {}


def test_what_would_be_unsafe_is_found():
    source = "import pickle as p\nfrom joblib import load\nf(x, allow_pickle=True)\n"
    source += "g(safe_mode=False)\nkeras.config.enable_unsafe_deserialization()\n"
    assert len(list(unsafe(source))) == 5


def test_the_files_it_names_are_there():
    import re

    named = re.findall(r"`((?:tests|serving)/[\w./-]+)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) >= 5
    assert all((ROOT / name).exists() for name in named)
