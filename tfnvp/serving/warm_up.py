"""The requests with which TF Serving gets a version ready before it says that it is available."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfnvp.serving.signatures import Signatures

_WARM_UP = Path("assets.extra", "tf_serving_warmup_requests")
# The first request of some rows is slow, and these are of a caller alone, of some, and of a batch.
_ROWS = (1, 8, 64)


def write_warm_up(
    served: Signatures, names: Sequence[str], model_name: str, directory: Path
) -> None:
    """Writes requests of 1, 8 and 64 rows for each signature into a version's directory.

    They are the protos `PredictionLog` of tensorflow-serving-api, written field by field, so that
    an export is the same without it:
    https://github.com/tensorflow/serving/blob/2.19.1/tensorflow_serving/apis/prediction_log.proto
    """
    path = directory / _WARM_UP
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name in names:
            for rows in _ROWS:
                spec = _field(1, model_name.encode()) + _field(3, name.encode())
                inputs = (
                    _field(1, key.encode()) + _field(2, _repeated(value, rows).SerializeToString())
                    for key, value in sorted(served.example(name).items())
                )
                request = _field(1, spec) + b"".join(_field(2, entry) for entry in inputs)
                writer.write(_field(6, _field(1, request)))


def _field(number: int, content: bytes) -> bytes:
    """A field of a proto that is a text or another proto: its number, its length, its content."""
    length, rest = b"", len(content)
    while rest > 127:
        length, rest = length + bytes([128 | rest & 127]), rest >> 7
    return bytes([number << 3 | 2]) + length + bytes([rest]) + content


def _repeated(row: np.ndarray, rows: int) -> Any:
    """The proto of a row [1, ...] as many times as asked for."""
    if not np.all(row == row.ravel()[0]):
        return tf.make_tensor_proto(np.repeat(row, rows, axis=0))
    # A proto of fewer values than its shape has ends in as many of the last as there is room for.
    proto = tf.make_tensor_proto(row.ravel()[:1])
    proto.tensor_shape.CopyFrom(tf.TensorShape([rows, *row.shape[1:]]).as_proto())
    return proto
