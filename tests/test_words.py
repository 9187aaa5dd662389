"""Docstrings say in their first line what a thing is or does."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [path for room in ("tfnvp", "train", "benchmarks") for path in (ROOT / room).rglob("*.py")]
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@pytest.mark.parametrize("path", sorted(FILES), ids=lambda path: str(path.relative_to(ROOT)))
def test_first_lines_begin_with_what_a_thing_is_or_does(path):
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, DOCUMENTED)]
    first_lines = [(ast.get_docstring(node) or "").partition("\n")[0] for node in nodes]
    assert [line for line in first_lines if line.split(" ")[0] in {"Of", "As", "What"}] == []
