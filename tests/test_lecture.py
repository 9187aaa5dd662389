"""The lecture's chapters run from top to bottom, and are the same in English and in Russian."""

import ast
import contextlib
import importlib.util
import io
import re
import sys
from pathlib import Path

import pytest

LECTURE = Path(__file__).parents[1] / "docs" / "lecture"
SPEC = importlib.util.spec_from_file_location("lecture_build", LECTURE / "build.py")
build = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(build)

CHAPTERS = [path.name for path in sorted(LECTURE.glob("en/*.md"))]
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def cells(page):
    return [cell.source for cell in build.notebook(page).cells if cell.cell_type == "code"]


@pytest.fixture
def run(monkeypatch, eagerly):
    """run(page): runs the cells of a page at reduced size, and returns what each has printed."""

    def run(page):
        monkeypatch.setenv("LECTURE_REDUCED", "1")
        monkeypatch.chdir(page.parent)
        monkeypatch.setattr(sys, "path", list(sys.path))
        names, printed = {}, []
        for source in cells(page):
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(source, names)
            printed.append(output.getvalue())
        return printed

    return run


@pytest.mark.parametrize(
    "page",
    [f"en/{name}" for name in CHAPTERS]
    + [pytest.param(f"ru/{name}", marks=pytest.mark.slow) for name in CHAPTERS],
)
def test_a_chapter_runs_and_prints_what_its_page_shows(run, page):
    """Its cells assert the mathematics. Where a size was reduced, the numbers are others."""
    text = (LECTURE / page).read_text()
    shown = [re.sub(r"^\n```text\n|\n```\n$", "", m[2] or "") for m in build.CELL.finditer(text)]
    printed = [output.rstrip() for output in run(LECTURE / page)]
    assert [bool(output) for output in printed] == [bool(output) for output in shown]
    if "figures.size(" not in text:
        assert [NUMBER.sub("#", output) for output in printed] == [
            NUMBER.sub("#", output) for output in shown
        ]
        for now, then in zip(printed, shown, strict=True):
            numbers = [[float(n) for n in NUMBER.findall(output)] for output in (now, then)]
            assert numbers[0] == pytest.approx(numbers[1], rel=0.05, abs=1e-5)


class TakeStrings(ast.NodeTransformer):
    """Takes the strings out of a program, of an f-string what stands between its values."""

    def __init__(self):
        self.found = []

    def visit_JoinedStr(self, node):
        literals = [part for part in node.values if isinstance(part, ast.Constant)]
        self.found.append("".join(part.value for part in literals))
        node.values = [part for part in node.values if part not in literals]
        return self.generic_visit(node)

    def visit_Constant(self, node):
        if isinstance(node.value, str):
            self.found.append(node.value)
            node.value = ""
        return node


def strings_apart(source):
    """A program without its strings, and the strings in order."""
    taking = TakeStrings()
    return ast.dump(taking.visit(ast.parse(source))), taking.found


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_both_languages_run_one_program(chapter):
    """Strings may differ where the Russian one is in Russian; and the language is set."""
    english, russian = (cells(LECTURE / language / chapter) for language in ("en", "ru"))
    assert len(english) == len(russian) > 3
    for one, other in zip(english, russian, strict=True):
        (program, strings), (same, translated) = strings_apart(one), strings_apart(other)
        assert program == same
        for text, translation in zip(strings, translated, strict=True):
            in_russian = re.search(r"[\u0430-\u044f]", translation)
            assert text == translation or in_russian or (text, translation) == ("en", "ru")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_both_languages_have_the_same_parts(chapter):
    def parts(language):
        text = (LECTURE / language / chapter).read_text()
        marks = re.findall(rf"^(#+ |```\w*$|!\[.*/{language}/(.*)\)$|\$\$)", text, re.MULTILINE)
        return [picture or mark for mark, picture in marks]

    assert parts("en") == parts("ru")


def test_pages_show_what_cells_draw_and_nothing_else():
    shown = set()
    for page in build.PAGES:
        for match in build.CELL.finditer(page.read_text()):
            # The last line but for brackets is that of a picture.
            draws = ast.parse(match[1].removeprefix("```python\n").removesuffix("```\n")).body[-1]
            is_picture = isinstance(draws, ast.Expr) and ast.unparse(draws).startswith("figures.")
            is_picture = is_picture and "figures.speak" not in ast.unparse(draws)
            assert is_picture == bool(match[3]), match[1]
            if match[3]:
                (path,) = re.findall(r"\((.*)\)\n$", match[3])
                shown.add((page.parent / path).resolve())
    assert shown == {path for path in build.IMAGES.rglob("*") if path.is_file()}
    assert sum(path.stat().st_size for path in shown) < 3e6


def test_notebooks_have_cells_and_no_output(tmp_path):
    import nbformat

    build.write_notebooks(tmp_path)
    written = sorted(tmp_path.rglob("*.ipynb"))
    assert len(written) == len(build.PAGES) == 14
    for path in written:
        made = nbformat.read(path, as_version=4)
        nbformat.validate(made)
        text = "".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
        assert "```text" not in text and "../../images" not in text
    assert (tmp_path / "figures" / "words.py").exists()
