"""The command `tfnvp`: trains models, and shows what they know in pictures and figures.

MODEL is a .keras file, the name of a model that ships (see `tfnvp presets`), or the directory of a
SavedModel's version, with which a command does what its signatures suffice for. All but
`extrapolate` take models of vectors too: vectors are read from .csv, .npy and .npz files, and
written to .npy and .npz files.
"""

from typing import Annotated

import typer

from tfnvp._version import __version__
from tfnvp.cli import describe, draw, explore, export, score, serve, terminal, versions
from tfnvp.training import command

app = typer.Typer(
    cls=terminal.Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Rich would take "[default: 0]" of a help for a style, and leave it out; it cuts off names too.
    rich_markup_mode=None,
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"tfnvp {__version__}")
        raise typer.Exit


@app.callback(help=__doc__)
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print it")
    ] = False,
) -> None:
    pass


_COMMANDS = (command.train, score.evaluate, draw.sample, draw.interpolate, draw.extrapolate)
_COMMANDS += (draw.reconstruct, score.score, export.export, describe.presets, describe.info)
_COMMANDS += (explore.explore, serve.serve, versions.promote, versions.rollback)
for _command in _COMMANDS:
    app.command()(_command)


def main() -> None:
    """The entry point of the installed command."""
    command.show_warnings_of("tfnvp")
    app(prog_name="tfnvp")
