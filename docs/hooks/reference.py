"""The pages of the reference: a page for each public module, with every public name of it.

Sources are read and not imported, so that the list of a module's names is what `__all__` says, or,
where it has none, what the module defines under names without an underscore.
"""

from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
# Where the source of a module is elsewhere than its public name says.
SOURCES = {"tfnvp.presets": "tfnvp.models.presets"}


def public_names(package: griffe.Module, module: str) -> list[str]:
    """The names of a module that are documented on its page: what is itself a module is not."""
    source = SOURCES.get(module, module)
    node = package if source == "tfnvp" else package[source.removeprefix("tfnvp.")]
    names = node.exports or [name for name, member in node.members.items() if member.is_public]
    return [str(name) for name in names if not _is_module(node.members.get(str(name)))]


def public_modules(package: griffe.Module) -> list[str]:
    """`tfnvp`, the modules that it exports, and `tfnvp.models`, where `fit_in_time` is."""
    exported = (str(name) for name in package.exports)
    modules = [name for name in exported if name not in public_names(package, "tfnvp")]
    return ["tfnvp", *sorted(f"tfnvp.{name}" for name in [*modules, "models"])]


def _is_module(member: griffe.Object | griffe.Alias | None) -> bool:
    # `tfnvp.sklearn` is imported when it is asked for, so that `tfnvp` has no member of the name.
    return member is None or member.is_module


def on_files(files: Files, config: MkDocsConfig) -> Files:
    package = griffe.load("tfnvp", search_paths=[ROOT])
    rows = []
    for module in public_modules(package):
        source = SOURCES.get(module, module)
        node = package if source == "tfnvp" else package[source.removeprefix("tfnvp.")]
        parts = [f"# {module}", node.docstring.value]
        parts += [f"::: {source}.{name}" for name in public_names(package, module)]
        _add(files, config, module, "\n\n".join(parts))
        first_line = node.docstring.value.partition("\n")[0]
        rows.append(f"| [`{module}`]({module}.md) | {first_line} |")
    lines = ["# Reference", "", "Every public name, from its docstring.", "", "| module | |"]
    _add(files, config, "index", "\n".join([*lines, "|---|---|", *rows]))
    return files


def _add(files: Files, config: MkDocsConfig, name: str, content: str) -> None:
    files.append(File.generated(config, f"reference/{name}.md", content=content))
