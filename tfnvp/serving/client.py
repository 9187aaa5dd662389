"""A client for models that TF Serving serves; needs the extra `serving` for gRPC."""

import base64
import http.client
import json
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

Version = int | str | None
Arrays = dict[str, np.ndarray]

_FIRST_PAUSE = 0.1  # The first retry waits so many seconds, each further one twice as long.
_CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}


class ServingError(RuntimeError):
    """An error that the server, or the way to it, gave for an answer.

    Attributes:
        code: gRPC's name of the kind of error, such as "INVALID_ARGUMENT".
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Client:
    """Calls a served model, by gRPC or REST.

    Args:
        url: "grpc://host:8500" or "http://host:8501".
        model: the model's name on the server.
        version: a version's number, or a label such as "stable"; None for the server's choice.
        timeout: seconds that a call may take, retries included.
        retries: how often a call that was UNAVAILABLE (no connection, a full batch queue, a model
            being loaded) is tried again, after pauses that double. No other is: it would fail
            again, or the time is up.

    Raises:
        ValueError: for another kind of URL, a timeout that is not positive, or negative retries.
        ServingError: by each call, with the server's message.

    Example:
        >>> client = tfnvp.serving.Client("http://localhost:8501", model="digits", retries=0)
        >>> client.sample([1, 2, 3])
        Traceback (most recent call last):
        tfnvp.serving.client.ServingError: UNAVAILABLE: ...
    """

    def __init__(
        self, url: str, model: str, version: Version = None, timeout: float = 10.0, retries: int = 4
    ) -> None:
        scheme, _, address = url.rstrip("/").partition("://")
        if scheme not in ("grpc", "http", "https") or not address:
            raise ValueError(f"url must be grpc://host:port or http://host:port, got {url!r}")
        if not timeout > 0:
            raise ValueError(f"timeout must be positive, in seconds, got timeout={timeout!r}")
        if retries < 0:
            raise ValueError(f"retries must be 0 or more, got retries={retries!r}")
        transport = _Grpc if scheme == "grpc" else _Rest
        self._transport = transport(address if scheme == "grpc" else url, model, version)
        self._timeout = timeout
        self._retries = retries

    def log_prob(self, x: ArrayLike | Sequence[bytes]) -> np.ndarray:
        """log p(x).

        Args:
            x: images uint8 [B, H, W, C], vectors float [B, D], or a list of PNG or JPEG files, each
                `bytes`.

        Returns:
            A float32 array [B], nats.
        """
        return self._scores(x)["log_prob"]

    def bits_per_dim(self, x: ArrayLike | Sequence[bytes]) -> np.ndarray:
        """-log2 p(x) a dimension, for images plus log2(levels); argument as in `log_prob`."""
        return self._scores(x)["bits_per_dim"]

    def encode(self, x: ArrayLike) -> np.ndarray:
        """Latents of images or vectors: a float32 array of their shape."""
        return self._call("encode", **_data(x))["latents"]

    def decode(self, latents: ArrayLike) -> np.ndarray:
        """The images (uint8) or vectors of latents: an array of their shape."""
        return self._data_out("decode", latents=np.asarray(latents, np.float32))

    def sample(self, seeds: ArrayLike, temperature: ArrayLike = 1.0) -> np.ndarray:
        """Draws samples.

        Args:
            seeds: integers [B]; a sample depends on its own seed alone.
            temperature: 0 or more, one number or [B].

        Returns:
            Images uint8 [B, H, W, C], or vectors float32 [B, D].
        """
        seeds = np.asarray(seeds, np.int64)
        temperature = np.broadcast_to(np.asarray(temperature, np.float32), seeds.shape)
        return self._data_out("sample", seed=seeds, temperature=temperature)

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def _scores(self, x: ArrayLike | Sequence[bytes]) -> Arrays:
        if isinstance(x, (list, tuple)) and x and isinstance(x[0], bytes):
            return self._call("score_encoded", image_bytes=np.array(x, object))
        return self._call("log_prob", **_data(x))

    def _data_out(self, signature: str, **inputs: np.ndarray) -> np.ndarray:
        ((name, value),) = self._call(signature, **inputs).items()
        return value.astype(np.uint8 if name == "images" else np.float32)

    def _call(self, signature: str, **inputs: np.ndarray) -> Arrays:
        deadline = time.monotonic() + self._timeout
        for attempt in range(self._retries + 1):
            try:
                left = deadline - time.monotonic()
                return self._transport.predict(signature, inputs, max(left, 1e-3))
            except ServingError as error:
                # Pauses are random, so that clients do not all come back at once.
                pause = _FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.0)
                late = time.monotonic() + pause > deadline
                if error.code != "UNAVAILABLE" or attempt == self._retries or late:
                    raise
                time.sleep(pause)


def _data(x: ArrayLike) -> Arrays:
    x = np.asarray(x)
    return {"images": x} if x.dtype == np.uint8 else {"vectors": x.astype(np.float32)}


class _Grpc:
    """Calls by gRPC."""

    def __init__(self, address: str, model: str, version: Version) -> None:
        try:
            import grpc
            from tensorflow_serving.apis import prediction_service_pb2_grpc
        except ImportError as missing:
            raise ImportError(
                "grpc:// needs the extra `serving`: pip install '.[serving]' in tfnvp's checkout"
            ) from missing
        # Images and latents are larger than the 4 MB that gRPC allows unless told.
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(address, unlimited)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._error = grpc.RpcError
        self._model, self._version = model, version

    def predict(self, signature: str, inputs: Arrays, timeout: float) -> Arrays:
        """Calls a signature, at most for `timeout` seconds."""
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._model
        request.model_spec.signature_name = signature
        if isinstance(self._version, str):
            request.model_spec.version_label = self._version
        elif self._version is not None:
            request.model_spec.version.value = self._version
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        try:
            response = self._stub.Predict(request, timeout=timeout)
        except self._error as error:
            raise ServingError(error.code().name, error.details()) from None
        return {name: tf.make_ndarray(value) for name, value in response.outputs.items()}

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()


class _Rest:
    """Calls by REST, a connection each."""

    def __init__(self, url: str, model: str, version: Version) -> None:
        place = ""
        if version is not None:
            kind = "labels" if isinstance(version, str) else "versions"
            place = f"/{kind}/{urllib.parse.quote(str(version))}"
        self._url = f"{url.rstrip('/')}/v1/models/{urllib.parse.quote(model)}{place}:predict"

    def predict(self, signature: str, inputs: Arrays, timeout: float) -> Arrays:
        """Calls a signature, at most for `timeout` seconds."""
        columns = {name: _as_json(value) for name, value in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                outputs = json.load(response)["outputs"]
        except urllib.error.HTTPError as error:
            code = _CODES.get(error.code, f"HTTP {error.code}")
            raise ServingError(code, _message(error.read())) from None
        except TimeoutError:
            raise ServingError("DEADLINE_EXCEEDED", f"no answer in {timeout:.3g} s") from None
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            code = "DEADLINE_EXCEEDED" if isinstance(reason, TimeoutError) else "UNAVAILABLE"
            raise ServingError(code, f"{self._url}: {reason}") from None
        if not isinstance(outputs, dict):  # REST does not name a single output.
            data = "vectors" if np.ndim(outputs) == 2 else "images"
            outputs = {"latents" if signature == "encode" else data: outputs}
        return {name: np.asarray(value, np.float32) for name, value in outputs.items()}

    def close(self) -> None:
        """Does nothing: each call has closed its own connection."""


def _as_json(value: np.ndarray) -> list:
    if value.dtype == object:
        return [{"b64": base64.b64encode(item).decode()} for item in value]
    return value.tolist()


def _message(body: bytes) -> str:
    try:
        return json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")
