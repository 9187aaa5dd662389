"""Docstrings say in their first line what a thing is or does, and comments are sentences."""

import ast
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("tfnvp", "train", "benchmarks", "tests", "examples", "docs/lecture")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
CLUMSY = r"(?:Of|As|What)\b"


def comments(source):
    """The comments of a file; lines of one that follow each other are joined."""
    found, last = [], None
    for token in tokenize.generate_tokens(iter(source.splitlines(keepends=True)).__next__):
        if token.type == tokenize.COMMENT:
            text, line = token.string.lstrip("#: "), token.start[0]
            alone = token.line.lstrip().startswith("#")
            if alone and last == line - 1:
                found[-1] += f" {text}"
            else:
                found.append(text)
            last = line if alone else None
    return found


def clumsy_sentences(text):
    return re.findall(rf"(?:^|(?<=[.:;?!] )){CLUMSY}.*", text)


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_first_lines_begin_with_what_a_thing_is_or_does(path):
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, DOCUMENTED)]
    first_lines = [(ast.get_docstring(node) or "").partition("\n")[0] for node in nodes]
    assert [line for line in first_lines if re.match(CLUMSY, line)] == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_sentences_of_comments_begin_with_their_subject(path):
    assert [s for comment in comments(path.read_text()) for s in clumsy_sentences(comment)] == []


def test_clumsy_sentences_are_found_wherever_a_comment_has_them():
    source = "#: Of, yes\nx = 1  # As: no\n# A first line, and\n# more. What is?\n# Offers; Asks\n"
    assert comments(source) == [
        "Of, yes",
        "As: no",
        "A first line, and more. What is? Offers; Asks",
    ]
    found = [s for comment in comments(source) for s in clumsy_sentences(comment)]
    assert found == ["Of, yes", "As: no", "What is? Offers; Asks"]
