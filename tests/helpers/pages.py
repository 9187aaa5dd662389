"""The pages of docs/ as programs: blocks of Python run in order, in an empty directory."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(?P<language>.*)\n(?P<code>(?s:.*?))^```$", re.MULTILINE)


def names():
    """The pages, as paths from docs/."""
    return sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def blocks(page):
    """Pairs of a block's language, such as `python` or `text`, and what is in it."""
    return [match.group("language", "code") for match in BLOCK.finditer((DOCS / page).read_text())]


def programs(page):
    """The blocks of Python of a page by the section that they are in; the first is before any."""
    sections = re.split(r"^## (.*)$", (DOCS / page).read_text(), flags=re.MULTILINE)
    titles = ["", *sections[1::2]]
    code = [
        "\n".join(m["code"] for m in BLOCK.finditer(section) if m["language"] == "python")
        for section in sections[::2]
    ]
    return dict(zip(titles, code, strict=True))


def run(page, *replaced):
    """Runs all of a page's Python and returns its names.

    Each of `replaced` is a pattern and what stands for it: of numbers of epochs, that is, and
    of addresses. The page must have it.
    """
    program = "\n".join(programs(page).values())
    for pattern, replacement in replaced:
        program, count = re.subn(pattern, replacement, program)
        assert count, f"{page} has no {pattern}"
    names = {"__name__": "__main__"}
    exec(compile(program, page, "exec"), names)
    return names
