"""Files and directories that appear whole or not at all, also where writing them fails midway."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a place to write to, which takes the place of `path` when the block ends well.

    The place has the name of `path`, for writers that look at suffixes, and stands in a hidden
    directory beside it, on the same disk. A file of that name is replaced, and so is a symbolic
    link, but not what it points to. If the block raises, `path` is as it was.

    Yields:
        A `pathlib.Path` where nothing is yet: the block makes a file or a directory there.

    Raises:
        OSError: if `path` cannot be written, or is a directory that holds something.

    Example:
        >>> import pathlib, tempfile
        >>> from tfnvp import atomic_file
        >>> path = pathlib.Path(tempfile.mkdtemp(), "notes.txt")
        >>> with atomic_file.writing(path) as written:
        ...     characters = written.write_text("whole")
        >>> path.read_text()
        'whole'
    """
    path = Path(path)
    options = {"prefix": ".writing-", "dir": path.parent, "ignore_cleanup_errors": True}
    with tempfile.TemporaryDirectory(**options) as room:
        written = Path(room, path.name)
        yield written
        # The rename may reach the disk before the data does, unless the data is sent there first.
        for file in [written, *written.rglob("*")]:
            if file.is_file():
                with file.open("rb+") as data:
                    os.fsync(data.fileno())
        os.replace(written, path)
