"""The faults of a request's rows: each row is told of its own, and the others are answered."""

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

Tensors = dict[str, tf.Tensor]
SCORES = ("log_prob", "bits_per_dim")


class Faults:
    """The faults of a request's rows, of which each is told its own.

    A server puts the rows of several callers into one run of the graph, where an assertion would
    fail them all for the fault of one.

    Args:
        rows: how many there are, one at least, int32 [].
        strict: whether a fault fails the run after all, as an InvalidArgument.
        texts: whether there are texts, which other runtimes than TensorFlow's cannot make.

    Attributes:
        none: whether a row has no fault so far, bool [rows].
    """

    def __init__(self, rows: tf.Tensor | int, strict: bool = False, texts: bool = True) -> None:
        self.none = tf.fill([rows], True)
        self._errors = tf.fill([rows], "") if texts and not strict else None
        self._strict = strict
        self._asserted = []

    def kept(self, x: tf.Tensor, good: tf.Tensor, message: str, *shown: tf.Tensor) -> tf.Tensor:
        """Passes rows on, with zeros or empty strings in place of those that are not good.

        Args:
            x: [rows, ...].
            good: whether a row is, bool [rows].
            message: what is said of a row that is not, unless something was said of it before.
            *shown: what ends the message: numbers [rows], or sizes [rows, 2].
        """
        told = None
        if self._strict or self._errors is not None:
            told = tf.strings.join([message, *map(_text, shown)], separator=" ")
            told = tf.broadcast_to(told, tf.shape(good))
        if self._strict:
            first = tf.argmin(tf.cast(good, tf.int32))
            # The fault that is told of is the first one, as it is without `strict`.
            with tf.control_dependencies(self._asserted):
                asserted = tf.debugging.Assert(tf.reduce_all(good), [tf.gather(told, first)])
            self._asserted = [asserted]
            with tf.control_dependencies(self._asserted):
                return tf.identity(x)
        if self._errors is not None:
            self._errors = tf.where(good | ~self.none, self._errors, told)
        self.none &= good
        return _where(good, x, tf.zeros([], x.dtype))

    def finite(self, x: tf.Tensor, message: str) -> tf.Tensor:
        """Passes on rows of which all numbers are finite, see `kept`."""
        # The operation IsFinite is TensorFlow's alone; nothing but NaN and infinity fails this.
        finite = tf.abs(x) < tf.constant(math.inf, x.dtype)
        return self.kept(x, tf.reduce_all(finite, axis=list(range(1, x.shape.rank))), message)

    def answered(self, outputs: Tensors) -> Tensors:
        """The outputs with `error` beside them; of rows with faults, scores are NaN, data zeros.

        Without texts all numbers that can be are NaN, which no answer is.
        """
        if self._strict:
            return outputs
        filled = {}
        for name, x in outputs.items():
            # Zero might be a score.
            told = name in SCORES or (self._errors is None and x.dtype.is_floating)
            filled[name] = _where(self.none, x, tf.cast(math.nan if told else 0, x.dtype))
        return filled if self._errors is None else {**filled, "error": self._errors}


def attempted(
    function: Callable[..., Sequence[tf.Tensor]],
    args: Sequence[tf.Tensor],
    otherwise: Sequence[tf.Tensor],
) -> tuple[tf.Tensor, ...]:
    """Calls a function in the graph, whose operations may fail without failing the run.

    A tf.data pipeline that ignores errors is the one place in which a graph can go on after them.

    Returns:
        Whether nothing failed, bool []; and what the function returns, or `otherwise`.
    """
    call = tf.data.Dataset.from_tensors(tuple(args)).map(lambda *x: (True, *function(*x)))
    call = call.ignore_errors()
    call = call.concatenate(tf.data.Dataset.from_tensors((False, *otherwise)))
    return call.take(1).get_single_element()


def _text(shown: tf.Tensor) -> tf.Tensor:
    text = tf.strings.as_string(shown, shortest=shown.dtype.is_floating)
    return tf.strings.reduce_join(text, axis=1, separator=" x ") if text.shape.rank == 2 else text


def _where(rows: tf.Tensor, x: tf.Tensor, otherwise: tf.Tensor) -> tf.Tensor:
    """Takes rows of x where `rows` holds."""
    return tf.where(tf.reshape(rows, [-1] + [1] * (x.shape.rank - 1)), x, otherwise)
