"""Runs the chapters of the lecture as notebooks, and puts their output and pictures into the pages.

    python docs/lecture/build.py [PAGE ...]
    python docs/lecture/build.py --notebooks DIRECTORY [PAGE ...]

A page is jupytext's markdown: its python blocks are the cells. What a cell prints stands after it
in a block of text, and what it draws in an image; both are replaced by those of this run, which is
of full size. With `--notebooks` nothing runs, and each page becomes a notebook, without output.
"""

import argparse
import base64
import re
import time
from pathlib import Path

import jupytext
import nbformat

HERE = Path(__file__).parent
PAGES = sorted(HERE.glob("en/*.md")) + sorted(HERE.glob("ru/*.md"))
IMAGES = HERE.parent / "images" / "lecture"
#: A cell with what it printed and drew.
CELL = re.compile(
    r"(```python\n.*?```\n)(\n```text\n.*?```\n)?(\n!\[[^\]]*\]\([^)]*\)\n)?", re.DOTALL
)


def notebook(page: Path) -> nbformat.NotebookNode:
    """Makes a notebook of a page, without the output of cells, which it will have of its own."""
    text = CELL.sub(lambda match: match[1], page.read_text())
    made = jupytext.reads(text, fmt="md")
    made.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    return made


def write_notebooks(directory: Path, pages: list[Path] = PAGES) -> None:
    """Writes the pages as notebooks into DIRECTORY/LANGUAGE, with the figures that they import."""
    for page in pages:
        path = directory / page.parent.name / f"{page.stem}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook(page), path)
    (directory / "figures").mkdir(exist_ok=True)
    for module in (HERE / "figures").glob("*.py"):
        (directory / "figures" / module.name).write_text(module.read_text())


def build(page: Path) -> float:
    """Runs a page and renews its output and pictures; returns the seconds that the cells took."""
    from nbclient import NotebookClient

    made = notebook(page)
    began = time.perf_counter()
    NotebookClient(made, timeout=300, resources={"metadata": {"path": str(page.parent)}}).execute()
    seconds = time.perf_counter() - began
    cells = iter([cell for cell in made.cells if cell.cell_type == "code"])
    page.write_text(
        CELL.sub(lambda match: _renewed(match, next(cells).outputs, page), page.read_text())
    )
    return seconds


def _renewed(match: re.Match, outputs: list, page: Path) -> str:
    """A cell, followed by what it has just printed and drawn."""
    printed = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
    after = f"\n```text\n{printed.rstrip()}\n```\n" if printed else ""
    for output in outputs:
        for kind, data in output.get("data", {}).items():
            if kind.startswith("image/"):
                shown = re.search(
                    r"!\[([^\]]*)\]\(.*?([\w-]+)\.\w+\)", match[3] or "![](figure.png)"
                )
                name = f"{page.parent.name}/{shown[2]}.{kind.removeprefix('image/')}"
                (IMAGES / name).parent.mkdir(parents=True, exist_ok=True)
                (IMAGES / name).write_bytes(base64.b64decode(data))
                after += f"\n![{shown[1]}](../../images/lecture/{name})\n"
    return match[1] + after


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--notebooks", type=Path, metavar="DIRECTORY")
    parser.add_argument("pages", type=Path, nargs="*", metavar="PAGE")
    arguments = parser.parse_args()
    pages = arguments.pages or PAGES
    if arguments.notebooks:
        write_notebooks(arguments.notebooks, pages)
        return
    for page in pages:
        print(f"{page.parent.name}/{page.name}: {build(page.resolve()):.0f} s", flush=True)


if __name__ == "__main__":
    main()
