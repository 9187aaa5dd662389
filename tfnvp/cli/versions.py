"""The commands `promote` and `rollback`: which version of a model a server's clients get."""

from pathlib import Path
from typing import Annotated

import typer

from tfnvp.serving import versions

Name = Annotated[str, typer.Argument(metavar="NAME", help="the model's name on the server")]
Config = Annotated[Path, typer.Option(help="the file that the server reads")]
Models = Annotated[Path, typer.Option(help="the directory of the models' directories")]

_CONFIG, _MODELS = Path("serving/models.config"), Path("saved_models")


def promote(
    name: Name,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="its number")],
    label: Annotated[str, typer.Option(help="such as canary")] = versions.STABLE,
    config: Config = _CONFIG,
    models: Models = _MODELS,
) -> None:
    """Gives the label `stable`, or another, to a version; a running server follows within a minute.

    A version that has a label stays loaded, whatever is exported after it.

    Example: tfnvp promote digits 2 --label canary
    """
    _tell(name, label, versions.promote(config, models, name, version, label))


def rollback(name: Name, config: Config = _CONFIG, models: Models = _MODELS) -> None:
    """Makes the version `stable` again that was so before the last promotion.

    Example: tfnvp rollback digits
    """
    _tell(name, versions.STABLE, versions.rollback(config, models, name))


def _tell(name: str, label: str, moved: versions.Moved) -> None:
    print(f"{name}: {label} is version {moved.version}, before it was {moved.before or 'none'}")
    for other, version in moved.gone.items():
        print(f"{name}: the label {other} is taken away, for version {version} is gone")
