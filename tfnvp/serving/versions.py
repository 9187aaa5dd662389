"""Which versions a server has under which labels: its models.config, edited whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tfnvp import atomic_file
from tfnvp._environment import extra
from tfnvp.checks import one_line
from tfnvp.serving.place import is_text
from tfnvp.serving.saved_model_graph import versions_in

STABLE, PREVIOUS = "stable", "previous"


class Moved(NamedTuple):
    """The move of a label, and what it took away.

    Attributes:
        version: the version that has the label now.
        before: the one that had it before; None if none had.
        gone: the labels that were taken away, with their versions, which are no longer there.
    """

    version: int
    before: int | None
    gone: dict[str, int]


def promote(
    config: str | os.PathLike,
    models: str | os.PathLike,
    name: str,
    version: int,
    label: str = STABLE,
) -> Moved:
    """Gives a label to a version, which a server then loads and keeps.

    All labelled versions are named in the policy `specific`, so that no later export pushes one of
    them out. The version that was `stable` gets the label `previous`, for `rollback`. Labels of
    versions that are no longer there are taken away.

    Args:
        config: the file models.config that the server reads.
        models: the directory of the models, each a directory of versions.
        name: the model's.
        version: its number.
        label: the label that clients ask for.

    Returns:
        The version, the one that had the label before, and the labels that were taken away.

    Raises:
        ValueError: for a file that is no configuration, or has no such model, or a version that is
            not there.
        OSError: if the file cannot be read or written.
    """
    if not is_text(label) or set(label) & set("/:"):
        raise ValueError(f"label must be a text without / and :, got label={label!r}")
    if label == PREVIOUS:
        raise ValueError(f"label must be another than {PREVIOUS}, which is where rollback goes to")
    with _edited(config, models, name) as edited:
        before = edited.labels.get(label)
        edited.check(version)
        if label == STABLE and before not in (None, version):
            edited.labels[PREVIOUS] = before
        edited.labels[label] = version
        gone = edited.take_away_gone()
    return Moved(version, before, gone)


def rollback(config: str | os.PathLike, models: str | os.PathLike, name: str) -> Moved:
    """Makes the version `stable` again that was so before; a second call takes that back.

    Arguments and errors are those of `promote`.

    Returns:
        The version that is `stable` now, the one that was, and the labels that were taken away.
    """
    with _edited(config, models, name) as edited:
        if not {STABLE, PREVIOUS} <= set(edited.labels):
            raise ValueError(
                f"{config} has no version of {name} to go back to: tfnvp promote has moved none"
            )
        now, before = edited.labels[PREVIOUS], edited.labels[STABLE]
        edited.check(now)
        edited.labels[STABLE], edited.labels[PREVIOUS] = now, before
        gone = edited.take_away_gone()
    return Moved(now, before, gone)


@contextlib.contextmanager
def _edited(config: str | os.PathLike, models: str | os.PathLike, name: str) -> Iterator["_Config"]:
    """Gives a configuration, and writes it where the block ends well; others wait meanwhile."""
    import fcntl  # Windows has none, and nothing else here needs it.

    directory = os.open(Path(config).resolve().parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        edited = _Config(config, models, name)
        yield edited
        edited.write()
    finally:
        os.close(directory)


class _Config:
    """A models.config, and one model's labels in it."""

    def __init__(self, path: str | os.PathLike, models: str | os.PathLike, name: str) -> None:
        try:
            from google.protobuf import text_format
            from tensorflow_serving.config import model_server_config_pb2
        except ImportError as missing:
            raise ImportError(f"versions are kept by protos, of {extra('serving')}") from missing
        # The file is edited that a link points to, and not the link.
        self._path, self._format = Path(path).resolve(), text_format
        try:
            text = self._path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no models.config: {one_line(error)}") from error
        # The text format drops comments; those at the start say what the file is.
        lines = text.splitlines(keepends=True)
        count = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
        self._comment = "".join(lines[:count])
        self._config = model_server_config_pb2.ModelServerConfig()
        try:
            text_format.Parse(text, self._config)
        except text_format.ParseError as error:
            raise ValueError(f"{path} is no models.config: {one_line(error)}") from error
        known = {model.name: model for model in self._config.model_config_list.config}
        if name not in known:
            raise ValueError(f"{path} has no model {name!r}; it has: {', '.join(known) or 'none'}")
        self._model = known[name]
        self.labels = dict(self._model.version_labels)
        # The server's base_path is its own; the last part of it is the directory here.
        self._versions = Path(models, Path(self._model.base_path).name)

    def check(self, version: int) -> None:
        """Raises a ValueError unless a version's directory holds a SavedModel."""
        if not self._is_there(version):
            has = ", ".join(map(str, versions_in(self._versions))) or "none"
            raise ValueError(f"version {version} is not in {self._versions}, which has: {has}")

    def _is_there(self, version: int) -> bool:
        return (self._versions / str(version) / "saved_model.pb").is_file()

    def take_away_gone(self) -> dict[str, int]:
        """Takes away, and returns, the labels of versions that are no longer there."""
        gone = {label: x for label, x in self.labels.items() if not self._is_there(x)}
        self.labels = {label: x for label, x in self.labels.items() if label not in gone}
        return gone

    def write(self) -> None:
        """Writes the file, with the labelled versions for those that are loaded."""
        kept: Any = self._model.version_labels
        kept.clear()
        kept.update(self.labels)
        self._model.model_version_policy.Clear()
        versions = sorted(set(self.labels.values()))
        self._model.model_version_policy.specific.versions.extend(versions)
        with atomic_file.writing(self._path) as written:
            text = self._comment + self._format.MessageToString(self._config)
            written.write_text(text, encoding="utf-8")
            # The server may run as another user.
            shutil.copymode(self._path, written)
