"""The manners of the command in a terminal: errors of one line, and what it is doing."""

import contextlib
import json
import math
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import typer
from typer.core import TyperGroup

from tfnvp.checks import one_line


class Commands(TyperGroup):
    """Commands whose errors are one line, with exit status 2, where the user can mend them."""

    def invoke(self, ctx: typer.Context) -> Any:
        """Runs the command of a command line."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("tfnvp: ended by Ctrl-C", file=sys.stderr)
            raise typer.Exit(128 + signal.SIGINT) from None
        except BrokenPipeError:
            raise  # Whoever read the output has gone, and hears nothing of it.
        except (MemoryError, tf.errors.ResourceExhaustedError) as error:
            # TensorFlow's first line says how much, and in braces where in a graph.
            first = re.sub(r"\{\{.*?\}\} *", "", str(error).partition("\n")[0])
            message = f"out of memory: {first}"
        # An ImportError names the extra that is missing.
        except (ValueError, OSError, ImportError) as error:
            message = one_line(error)
        print(f"tfnvp: {message}", file=sys.stderr)
        raise typer.Exit(2)


def print_json(record: dict[str, Any]) -> None:
    """Prints JSON, in which a number that JSON does not have is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    print(json.dumps(plain(record), allow_nan=False))


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
