"""The command `tfnvp`, run in the tests' own process."""

import functools
import zlib
from pathlib import Path

from typer.testing import CliRunner

from tfnvp.cli import app, loading


def run(*args):
    """Runs the command; gives its status, and what it has printed."""
    return CliRunner().invoke(app, [str(arg) for arg in args])


def assert_one_line(result, *parts):
    """Asserts that a command was refused in one line, in which the parts occur."""
    assert result.exit_code == 2, (result.output, result.exception)
    assert len(result.output.splitlines()) == 1, result.output
    for part in parts:
        assert str(part) in result.output


def load_once(name):
    """`loading.load`, by which a model that one command has traced is there for the next."""
    path = Path(name)
    files = [path, *sorted(path.rglob("*"))] if path.parts[1:] and path.exists() else []
    # A test may write a file of the same size twice in a tick of the clock.
    contents = ((str(f), zlib.crc32(f.read_bytes())) for f in files if f.is_file())
    return _load(str(name), tuple(contents))


_load_anew = loading.load


@functools.cache
def _load(name, state):
    """Loads a model whose files have these contents."""
    return _load_anew(name)
