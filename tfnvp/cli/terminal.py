"""The manners of the command in a terminal: errors of one line, and what it is doing."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import typer
from typer.core import TyperGroup


class Commands(TyperGroup):
    """Commands whose errors are one line, with exit status 2, where the user can mend them."""

    def invoke(self, ctx: typer.Context) -> Any:
        """Runs the command of a command line."""
        try:
            return super().invoke(ctx)
        except (ValueError, OSError) as error:
            print(f"tfnvp: {' '.join(str(error).split())}", file=sys.stderr)
            raise typer.Exit(2) from None


@contextlib.contextmanager
def status(doing: str) -> Iterator[None]:
    """Says on a terminal what is being done, for as long as it lasts."""
    if not sys.stderr.isatty():
        yield
        return
    print(f"{doing} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def progress(
    batches: tf.data.Dataset, label: str
) -> contextlib.AbstractContextManager[Iterator[Any]]:
    """A bar on a terminal, which the batches of a data set move as they are taken."""
    return typer.progressbar(
        batches, len(batches), label, file=sys.stderr, hidden=not sys.stderr.isatty()
    )
