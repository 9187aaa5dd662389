"""The pages of the reference: a page for each public module, with every public name of it.

Sources are read and not imported, so that the list of a module's names is what `__all__` says, or,
where it has none, what the module defines under names without an underscore.
"""

from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
# Their methods are those of a base that is not public.
INHERITING = {"tfnvp.FlowModel", "tfnvp.serving.AsyncClient", "tfnvp.serving.Client"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    package = griffe.load("tfnvp", search_paths=[ROOT])
    # `fit_in_time` is in `tfnvp.models`, of which `tfnvp` exports the rest.
    exported = {str(name) for name in package.exports} - set(public_names(package)) | {"models"}
    rows = []
    for module in (package, *(package[name] for name in sorted(exported))):
        path = "tfnvp" if module is package else f"tfnvp.{module.name}"
        blocks = [_block(f"{path}.{name}") for name in public_names(module)]
        _add(files, config, path, "\n\n".join([f"# {path}", module.docstring.value, *blocks]))
        first_line = module.docstring.value.partition("\n")[0]
        rows.append(f"| [`{path}`]({path}.md) | {first_line} |")
    head = (
        "Every public name, from its docstring; [every command](command-line.md), from its parser."
    )
    lines = ["# Reference", "", head, "", "| module | |"]
    _add(files, config, "index", "\n".join([*lines, "|---|---|", *rows]))
    return files


def public_names(module: griffe.Module | griffe.Alias) -> list[str]:
    """The names of a module that its page documents: not those of other modules."""
    names = module.exports or [name for name, member in module.members.items() if member.is_public]
    # `tfnvp.sklearn` is imported when it is asked for, so that `tfnvp` does not import it.
    members = ((str(name), module.members.get(str(name))) for name in names)
    return [name for name, member in members if member is not None and not member.is_module]


def _block(path: str) -> str:
    options = "\n    options: {inherited_members: true, show_bases: false}"
    return f"::: {path}{options if path in INHERITING else ''}"


def _add(files: Files, config: MkDocsConfig, name: str, content: str) -> None:
    files.append(File.generated(config, f"reference/{name}.md", content=content))
