"""The page of the command line: each command, with what its own parser says of its options."""

import os
import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PATH = "reference/command-line.md"
HEAD = """# The command line

What `tfnvp COMMAND --help` says of each command; `python -m train` in a checkout is `tfnvp train`.
[Use the command line](../command-line.md) shows them at work.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    # TensorFlow's lines at its import are not of the site.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import typer

    from tfnvp import cli

    group = typer.main.get_command(cli.app)
    context = group.context_class(group, info_name="tfnvp")
    parts = [HEAD, _text(group.help)]
    for name, command in group.commands.items():
        parts += _section(command, command.context_class(command, context, name))
    files.append(File.generated(config, PATH, content="\n\n".join(parts)))
    return files


def _section(command: Any, context: Any) -> list[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    records = (parameter.get_help_record(context) for parameter in command.get_params(context))
    options = "\n".join(f"- `{name}` {text}" for name, text in records)
    return [f"## {context.command_path}", f"    {usage}", _text(command.help), options]


def _text(docstring: str) -> str:
    """Makes a command's docstring Markdown: its example is a line of code."""
    return re.sub(r"^Example: ", "Example:\n\n    ", docstring, flags=re.MULTILINE)
