"""The requests with which TF Serving gets a version ready before it says that it is available."""

import warnings
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

    Without the extra `serving` none are written, which a warning says.
    """
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError:
        why = "no warm-up requests are written, for which the extra `serving` is needed: "
        remedy = "pip install '.[serving]' in the checkout of tfnvp"
        warnings.warn(why + remedy, stacklevel=4)
        return
    path = directory / _WARM_UP
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name in names:
            for rows in _ROWS:
                request = predict_pb2.PredictRequest()
                request.model_spec.name = model_name
                request.model_spec.signature_name = name
                for key, value in served.example(name).items():
                    request.inputs[key].CopyFrom(_repeated(value, rows))
                log = prediction_log_pb2.PredictionLog()
                log.predict_log.request.CopyFrom(request)
                writer.write(log.SerializeToString(deterministic=True))


def _repeated(row: np.ndarray, rows: int) -> Any:
    """The proto of a row [1, ...] as many times as asked for."""
    if not np.all(row == row.ravel()[0]):
        return tf.make_tensor_proto(np.repeat(row, rows, axis=0))
    # A proto of fewer values than its shape has ends in as many of the last as there is room for.
    proto = tf.make_tensor_proto(row.ravel()[:1])
    proto.tensor_shape.CopyFrom(tf.TensorShape([rows, *row.shape[1:]]).as_proto())
    return proto
