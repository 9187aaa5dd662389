"""Tables in CSV files: a header of column names, and rows of numbers."""

import csv
import os
from collections.abc import Iterable, Sequence

import numpy as np

from tfnvp import atomic_file
from tfnvp.checks import is_number, one_line
from tfnvp.columns import check_finite


def read_csv(path: str | os.PathLike) -> tuple[list[str], np.ndarray]:
    """Reads a table of numbers.

    Args:
        path: a CSV file whose first line names the columns.

    Returns:
        The names, and float64 [N, D].

    Raises:
        ValueError: for a file that is not there, is no table, or has no header or no rows, a row
            of another length than the header, or a value that is no finite number, naming file,
            row and column.
    """
    try:
        # Excel begins its files with a mark of their encoding, which is no part of a name.
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise ValueError(f"{path} cannot be read: {reason}") from error
    if len(lines) < 2:
        raise ValueError(f"{path} must have a header and rows, got {len(lines)} lines")
    names, *rows = lines
    # Years and the like are names, too.
    if all(map(is_number, names)) and not all(name.strip().isdigit() for name in names):
        raise ValueError(f"{path} must begin with the columns' names, got numbers: {names[0]}, ...")
    table = np.empty((len(rows), len(names)))
    for i, row in enumerate(rows):
        if len(row) != len(names):
            raise ValueError(
                f"{path} must have {len(names)} values a row, as its header, got {len(row)} in "
                f"row {i}"
            )
        for j, value in enumerate(row):
            try:
                table[i, j] = float(value)
            except ValueError:
                raise ValueError(
                    f"{path} must hold numbers, got {value!r} in row {i}, column {names[j]!r}"
                ) from None
    check_finite(table, names=names, what=path)
    return names, table


def write_csv(
    path: str | os.PathLike, names: Sequence[str], rows: Iterable[Sequence[str | float]]
) -> None:
    """Writes rows of numbers and texts under a header, whole or not at all.

    Numbers are the same when they are read again, and file names whose bytes are no text, too.
    """
    options = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
    with atomic_file.writing(path) as written, written.open("w", **options) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for row in rows:
            writer.writerow([_written(value) for value in row])


def _written(value: str | float) -> str:
    return value if isinstance(value, str) else repr(float(value)).removesuffix(".0")
