"""Calls by gRPC, with and without an event loop."""

import asyncio
import math
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from tfnvp._environment import extra
from tfnvp.serving.calls import Arrays, Call
from tfnvp.serving.errors import ServingError, foreign, is_of_a_neighbour
from tfnvp.serving.place import Place

# Images and latents are larger than the 4 MB that gRPC allows unless told.
_OPTIONS = (
    ("grpc.max_receive_message_length", 1 << 30),
    ("grpc.max_send_message_length", 1 << 30),
)
# The numbers that protos have for dtypes.
_FLOAT, _UINT8, _TEXT = (dtype.as_datatype_enum for dtype in (tf.float32, tf.uint8, tf.string))


class _Stub:
    """The channel, requests and answers, which both ways share."""

    def __init__(self, place: Place) -> None:
        try:
            import grpc
            from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
        except ImportError as missing:
            raise ImportError(f"grpc:// needs grpc, of {extra('serving')}") from missing
        kind = grpc.ChannelCredentials
        if not isinstance(place.credentials, (kind, type(None))):
            got = type(place.credentials).__name__
            raise ValueError(f"credentials must be grpc.ChannelCredentials, got {got}")
        self._grpc, self._place = grpc, place
        self._request, self._stub_class = (
            predict_pb2.PredictRequest,
            prediction_service_pb2_grpc.PredictionServiceStub,
        )
        # gRPC takes names in small letters alone.
        self._metadata = [(name.lower(), x) for name, x in (place.headers or {}).items()]
        self._channel = None

    def _connected(self, kind: ModuleType) -> Any:
        """The stub over a channel of a kind, which the first call makes."""
        if self._channel is None:
            place = self._place
            if place.by_tls:
                credentials = place.credentials or self._grpc.ssl_channel_credentials()
                self._channel = kind.secure_channel(place.address, credentials, _OPTIONS)
            else:
                self._channel = kind.insecure_channel(place.address, _OPTIONS)
            self._stub = self._stub_class(self._channel)
        return self._stub

    def _request_of(self, call: Call) -> Any:
        import tensorflow as tf

        request = self._request()
        request.model_spec.name = self._place.model
        request.model_spec.signature_name = call.signature
        version = self._place.version
        if isinstance(version, str):
            request.model_spec.version_label = version
        elif version is not None:
            request.model_spec.version.value = int(version)
        for name, value in call.inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(np.ascontiguousarray(value)))
        return request

    def _error(self, error: Exception) -> ServingError:
        code, message = error.code().name, error.details() or "no message"
        again = code == "UNAVAILABLE" or is_of_a_neighbour(message)
        return ServingError(code, message, again=again)


class Grpc(_Stub):
    """Calls by gRPC for callers without an event loop."""

    def predict(self, call: Call, timeout: float) -> Arrays:
        """Calls a signature, at most for `timeout` seconds."""
        stub, request = self._connected(self._grpc), self._request_of(call)
        try:
            response = stub.Predict(request, timeout=timeout, metadata=self._metadata)
        except self._grpc.RpcError as error:
            raise self._error(error) from error
        except ValueError as error:  # gRPC says so of a channel that is closed.
            raise ServingError("CANCELLED", str(error)) from error
        return _outputs(response)

    def close(self) -> None:
        """Closes the channel."""
        if self._channel is not None:
            self._channel.close()


class AsyncGrpc(_Stub):
    """Calls by gRPC in the caller's event loop."""

    _is_closed = False

    async def predict(self, call: Call, timeout: float) -> Arrays:
        """Calls a signature, at most for `timeout` seconds."""
        stub, request = self._connected(self._grpc.aio), self._request_of(call)
        try:
            response = await stub.Predict(request, timeout=timeout, metadata=self._metadata)
        except self._grpc.RpcError as error:
            raise self._error(error) from error
        except asyncio.CancelledError as error:
            if not self._is_closed:
                raise  # The caller's own task was cancelled.
            raise ServingError("CANCELLED", "the client is closed") from error
        return _outputs(response)

    async def close(self) -> None:
        """Closes the channel."""
        self._is_closed = True
        if self._channel is not None:
            await self._channel.close()


def _outputs(response: Any) -> Arrays:
    return {name: _array(name, tensor) for name, tensor in response.outputs.items()}


def _array(name: str, tensor: Any) -> np.ndarray:
    """The array of a tensor's proto, which must hold as many values as its shape says.

    TensorFlow fills up what is missing, so that some bytes that declare a huge shape would take all
    memory.
    """
    wanted = {"images": _UINT8, "error": _TEXT}.get(name, _FLOAT)
    if tensor.dtype != wanted:
        raise foreign(f"{name} has the dtype {tensor.dtype} and not {wanted}")
    is_text = tensor.dtype == _TEXT
    values, dtype = {
        _FLOAT: (tensor.float_val, np.dtype(np.float32)),
        _UINT8: (tensor.int_val, np.dtype(np.uint8)),
        _TEXT: (tensor.string_val, np.dtype(object)),
    }[wanted]
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_content and not is_text:
        content = tensor.tensor_content
        count = len(content) / dtype.itemsize
    else:
        content, count = None, len(values)
    if tensor.tensor_shape.unknown_rank or min(shape, default=0) < 0 or count != math.prod(shape):
        raise foreign(f"{name} declares the shape {shape} and holds {count:g} values")
    try:
        np.broadcast_to(0, shape)
    except ValueError as error:
        raise foreign(f"{name} declares a shape that no array has: {error}") from error
    if content is not None:
        return np.frombuffer(content, dtype).reshape(shape)
    if dtype == np.uint8:
        return np.array(values, np.int64).reshape(shape)  # Its range is yet to be looked at.
    return np.array(list(values), dtype).reshape(shape)
