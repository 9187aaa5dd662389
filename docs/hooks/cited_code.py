"""Lines of the library's code on a page: they are read when the site is built.

A line `{{ lines of tfnvp/metrics.py: bits_per_dim }}` gives a function, or a method by the name of
its class, a dot and its own. `from "..." to "..."` after the name gives the lines from the first
that has the one text to the first, there or after it, that has the other. What is not there is an
error of the build.
"""

import ast
import re
import textwrap
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
CITATION = re.compile(
    r"^\{\{ lines of (?P<path>\S+): (?P<name>[\w.]+)"
    r'(?: from "(?P<first>.+)" to "(?P<last>.+)")? \}\}$',
    re.MULTILINE,
)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return cited(markdown)


def cited(markdown: str) -> str:
    """Puts the lines of code into a page."""
    markdown = CITATION.sub(lambda match: _cited(**match.groupdict()), markdown)
    left = re.search(r"^\{\{.*", markdown, re.MULTILINE)
    if left:
        raise PluginError(f"this cites no lines of code: {left[0]}")
    return markdown


def _cited(path: str, name: str, first: str | None, last: str | None) -> str:
    if not (ROOT / path).is_file():
        raise PluginError(f"{path} is not there, which a page cites")
    lines = (ROOT / path).read_text().splitlines()
    start, end = _span(path, name)
    if first is not None:
        start = _line_with(first, lines, start, end, path)
        end = _line_with(last, lines, start, end, path)
    code = textwrap.dedent("\n".join(lines[start - 1 : end]))
    numbers = f"lines {start} to {end}" if end > start else f"line {start}"
    title = f"{path}, {numbers}: {name}"
    return f'```{{.python title="{title}" linenums="{start}"}}\n{code}\n```'


def _span(path: str, name: str) -> tuple[int, int]:
    """The first and the last line of a function or class."""
    node: ast.AST = ast.parse((ROOT / path).read_text())
    for part in name.split("."):
        body = getattr(node, "body", [])
        found = [child for child in body if getattr(child, "name", None) == part]
        if not found:
            raise PluginError(f"{path} has no {name}, which a page cites")
        node = found[0]
    return node.lineno, node.end_lineno


def _line_with(text: str, lines: list[str], start: int, end: int, path: str) -> int:
    for number in range(start, end + 1):
        if text in lines[number - 1]:
            return number
    raise PluginError(f"{path} has no {text!r} in lines {start} to {end}, which a page cites")
