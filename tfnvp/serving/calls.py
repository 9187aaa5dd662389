"""A client's calls, before they are sent and after they are answered: nothing here waits."""

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike

from tfnvp.checks import one_line
from tfnvp.serving.errors import ServingError, foreign

Arrays = dict[str, np.ndarray]

MOST_ROWS = 256  # A request has no more, and is a few batches of a server's.
# Nor does it have more bytes of files, or numbers, unless a single row does: JSON of a million
# takes up to seconds on a busy machine, and no timeout ends that.
_MOST_BYTES, _MOST_NUMBERS = 16_000_000, 1 << 20
# An answer has no more bytes: JSON writes a float in up to 25, and a row's error is a line.
_ROW, _NUMBER, _UNKNOWN = 4096, 32, 1 << 28
_FILE = (bytes, bytearray, memoryview)
_FIRST_PAUSE = 0.1  # The first retry waits so many seconds, each further one twice as long.


@dataclass(frozen=True)
class Call:
    """A signature's inputs, and what is expected of its outputs.

    Attributes:
        signature: its name.
        inputs: arrays by name, as many rows each.
        output: the name of the output that is asked for; None for the data, whatever its name.
        row_shape: the shape of a row of that output; None if it is not known beforehand.
    """

    signature: str
    inputs: Arrays
    output: str | None
    row_shape: tuple[int, ...] | None

    def parts(self) -> Iterator["Call"]:
        """The requests that the call is sent as, of a limited size each; none for no rows."""
        rows = len(self)
        arrays = self.inputs.values()
        files = sum(len(file) for x in arrays if x.dtype == object for file in x)
        numbers = sum(x.size for x in arrays if x.dtype != object)
        requests = max(files / _MOST_BYTES, numbers / _MOST_NUMBERS, rows / MOST_ROWS, 1)
        most = max(1, int(rows / requests))
        for first in range(0, rows, most):
            inputs = {name: x[first : first + most] for name, x in self.inputs.items()}
            yield Call(self.signature, inputs, self.output, self.row_shape)

    @property
    def most_answer_bytes(self) -> int:
        """The bytes beyond which no answer in JSON can be one to this request."""
        if self.row_shape is None:
            return _UNKNOWN
        return _ROW + len(self) * (_ROW + _NUMBER * math.prod(self.row_shape))

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def answer_of(self, outputs: Arrays) -> tuple[np.ndarray, dict[int, str]]:
        """The output that is asked for, and what is wrong with rows, of what a server sent.

        Raises:
            ServingError: for outputs that the signature does not have.
        """
        outputs = dict(outputs)
        errors = self._errors(outputs.pop("error", None))
        if self.output is None:
            if len(outputs) != 1:
                raise foreign(f"one output of data is expected, got {', '.join(outputs) or 'none'}")
            ((name, x),) = outputs.items()
        else:
            name = self.output
            if name not in outputs:
                raise foreign(f"it has no {name}, but {', '.join(outputs) or 'nothing'}")
            x = outputs[name]
        if x.dtype.kind not in "fiu":
            raise foreign(f"{name} must be numbers, got dtype {x.dtype}")
        # Data of events that are no vectors need not have the shape of its latents.
        known = self.row_shape is not None and name != "data"
        wanted = (len(self), *(self.row_shape if known else x.shape[1:]))
        if x.shape != wanted:
            raise foreign(f"{name} must have the shape {wanted}, got {x.shape}")
        if name == "images":
            if not np.all((x >= 0) & (x <= 255) & (x == np.floor(x))):
                raise foreign("images must be integers of 0 to 255")
            return x.astype(np.uint8), errors
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        finite = np.isfinite(x).reshape(len(x), -1).all(axis=1)
        for row in np.flatnonzero(~finite):
            if int(row) not in errors:
                raise foreign(f"{name} of row {row} is not finite, and there is no error of it")
        return x, errors

    def joined(self, parts: Sequence[tuple[np.ndarray, dict[int, str]]]) -> np.ndarray:
        """The answer to the call, of the answers to its parts.

        Raises:
            ServingError: if rows could not be answered; it has the answers to the others.
        """
        if not parts:
            return np.zeros((0, *(self.row_shape or ())), np.float32)
        answers = np.concatenate([x for x, _ in parts])
        rows, first = {}, 0
        for x, errors in parts:
            rows |= {first + row: error for row, error in errors.items()}
            first += len(x)
        if rows:
            row, error = next(iter(rows.items()))
            more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
            raise ServingError(
                "INVALID_ARGUMENT", f"row {row}: {error}{more}", rows=rows, answers=answers
            )
        return answers

    def _errors(self, errors: np.ndarray | None) -> dict[int, str]:
        if errors is None:  # A strict export has none, for it fails the call.
            return {}
        texts = [x.decode(errors="replace") if isinstance(x, bytes) else x for x in errors.ravel()]
        if errors.shape != (len(self),) or not all(isinstance(text, str) for text in texts):
            raise foreign(f"error must be {len(self)} texts, got shape {errors.shape}")
        return {row: text for row, text in enumerate(texts) if text}


def scores(x: ArrayLike | Sequence[bytes], labels: ArrayLike | None, output: str) -> Call:
    """The call for `log_prob` or `bits_per_dim` of data or files."""
    if isinstance(x, _FILE):
        raise TypeError("x must be a list of files, got one: pass [x]")
    if isinstance(x, np.ndarray) and x.dtype == object and x.ndim == 1:
        x = list(x)
    if isinstance(x, (list, tuple)) and any(isinstance(item, _FILE) for item in x):
        others = {type(item).__name__ for item in x if not isinstance(item, _FILE)}
        if others:
            raise TypeError(f"x must be files alone, each bytes, got {', '.join(sorted(others))}")
        files = np.empty(len(x), object)
        files[:] = [bytes(item) for item in x]
        return Call("score_encoded", _labelled({"image_bytes": files}, labels), output, ())
    return Call("log_prob", _labelled(_data(x), labels), output, ())


def encode(x: ArrayLike, labels: ArrayLike | None) -> Call:
    """The call for the latents of data."""
    data = _data(x)
    ((name, rows),) = data.items()
    # The latents of other models need not have the shape of the data.
    shape = rows.shape[1:] if name == "images" else None
    return Call("encode", _labelled(data, labels), "latents", shape)


def decode(latents: ArrayLike, labels: ArrayLike | None) -> Call:
    """The call for the data of latents."""
    rows = _floats("latents", latents)
    shape = rows.shape[1:] if rows.ndim == 4 else None
    return Call("decode", _labelled({"latents": rows}, labels), None, shape)


def sample(seeds: ArrayLike, temperature: ArrayLike, labels: ArrayLike | None) -> Call:
    """The call for samples, one a seed."""
    given = _array("seeds", seeds)
    whole = given.dtype.kind in "iu" or not given.size
    if given.ndim != 1 or not whole or (given.size and given.max() > np.iinfo(np.int64).max):
        raise ValueError(
            f"seeds must be a list of integers of 64 bits, got dtype {given.dtype} and shape "
            f"{given.shape}"
        )
    factors = _array("temperature", temperature)
    fits = factors.dtype.kind in "fiu" and factors.shape in ((), given.shape)
    with np.errstate(over="ignore"):
        fits = fits and np.all((factors >= 0) & np.isfinite(factors.astype(np.float32)))
    if not fits:
        raise ValueError(
            "temperature must be a finite number of 0 or more, or one for each seed, got "
            f"temperature={temperature!r}"
        )
    inputs = {
        "seed": given.astype(np.int64),
        "temperature": np.broadcast_to(factors.astype(np.float32), given.shape),
    }
    return Call("sample", _labelled(inputs, labels), None, None)


def of_a_row(call: Call) -> Call | None:
    """A call of one row to ask in place of one that has none; None if its answer is known.

    Only the model knows the shape and the dtype of the data of no latents and of no seeds.
    """
    if len(call) or (call.output is not None and call.row_shape is not None):
        return None
    if any(0 in x.shape[1:] for x in call.inputs.values()):
        return None  # An empty list tells nothing of its rows.
    inputs = {name: np.zeros((1, *x.shape[1:]), x.dtype) for name, x in call.inputs.items()}
    if "temperature" in inputs:
        # Some models have no mean, which a temperature of 0 asks for.
        inputs["temperature"] += 1
    return Call(call.signature, inputs, call.output, call.row_shape)


class Patience:
    """The time that a call may take with all that it is sent as, and its further tries.

    Args:
        timeout: seconds from now.
        retries: how many further tries there are.
    """

    def __init__(self, timeout: float, retries: int) -> None:
        self._timeout, self._retries, self._tries = timeout, retries, 0
        self._end = time.monotonic() + timeout

    def left(self) -> float:
        """The seconds that are left.

        Raises:
            ServingError: if there are none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise self._late()
        return left

    def _late(self) -> ServingError:
        return ServingError("DEADLINE_EXCEEDED", f"no answer in {self._timeout:.3g} s")

    def pause(self, error: ServingError) -> float:
        """The seconds to wait before the next try.

        Raises:
            ServingError: the error that is given, if there is to be no other try.
        """
        if error.code == "DEADLINE_EXCEEDED" and time.monotonic() >= self._end:
            # The transport knows only what was left of the time.
            raise self._late() from error
        # Pauses are random, so that clients do not all come back at once.
        pause = _FIRST_PAUSE * 2**self._tries * random.uniform(0.5, 1.0)
        pause = max(pause, error.wait)
        self._tries += 1
        late = time.monotonic() + pause > self._end
        if not error.again or self._tries > self._retries or late:
            raise error
        return pause


def _data(x: ArrayLike) -> Arrays:
    """The input of data, whose name follows from its dtype and rank."""
    array = _array("x", x)
    if array.dtype.kind in "SUO":
        raise ValueError(
            "x must be numbers, or a list of files, each the bytes that are in it, got dtype "
            f"{array.dtype}"
        )
    if array.dtype == np.uint8:
        if array.ndim != 4:
            one = ": pass x[None]" if array.ndim == 3 else ""
            raise ValueError(
                f"x must be uint8 images [B, height, width, channels], got {array.shape}{one}"
            )
        return {"images": array}
    if array.ndim == 4 and array.dtype.kind in "iu":
        raise ValueError(f"x must be uint8 where it is images, got dtype {array.dtype}")
    if array.ndim == 1 and not array.size:
        return {"vectors": np.zeros((0, 0), np.float32)}
    rows = _floats("x", array)
    return {"vectors" if rows.ndim == 2 else "data": rows}


def _array(name: str, value: ArrayLike) -> np.ndarray:
    try:
        return np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{name} must be an array of numbers: {one_line(error)}") from error


def _floats(name: str, x: ArrayLike) -> np.ndarray:
    array = _array(name, x)
    if array.dtype.kind not in "fiu" or not array.ndim:
        raise ValueError(
            f"{name} must be numbers with rows first, got dtype {array.dtype} and shape "
            f"{array.shape}"
        )
    with np.errstate(over="ignore"):
        rows = array.astype(np.float32)
    if not np.all(np.isfinite(rows)):
        row = int(np.argwhere(~np.isfinite(rows))[0][0])
        raise ValueError(f"{name} must be finite in float32, got NaN or infinity in row {row}")
    return rows


def _labelled(inputs: Arrays, labels: ArrayLike | None) -> Arrays:
    """The inputs with a label for each row beside them, if there are labels."""
    if labels is None:
        return inputs
    rows = len(next(iter(inputs.values())))
    array = _array("labels", labels)
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"labels must be integers of 64 bits, got {array.max()}")
    if array.dtype.kind in "iu" and array.shape in ((), (rows,)):
        return {**inputs, "label": np.broadcast_to(array.astype(np.int64), (rows,))}
    if array.dtype.kind == "f" and array.ndim and array.shape[:-1] in ((), (rows,)):
        vectors = _floats("labels", array)
        return {**inputs, "label": np.broadcast_to(vectors, (rows, vectors.shape[-1]))}
    raise ValueError(
        f"labels must be classes, integers [{rows}] or one for all, or contexts, floats [{rows}, "
        f"size] or one for all, got dtype {array.dtype} and shape {array.shape}"
    )


def check_limits(timeout: float, retries: int) -> None:
    """Raises a ValueError unless a call can take so long, and be tried again so often."""
    if isinstance(timeout, bool) or not isinstance(timeout, Real):
        raise ValueError(f"timeout must be a number of seconds, got timeout={timeout!r}")
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout must be positive, in seconds, got timeout={timeout!r}")
    if isinstance(retries, bool) or not isinstance(retries, Integral) or retries < 0:
        raise ValueError(f"retries must be 0 or more, got retries={retries!r}")
