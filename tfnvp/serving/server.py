"""A small server of one SavedModel, by TF Serving's REST paths: for development."""

import asyncio
import base64
import binascii
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format

from tfnvp._environment import extra
from tfnvp.checks import one_line
from tfnvp.serving.saved_model_graph import read_saved_model, versions_in

_HTTP = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
}
_MOST_BYTES = 256_000_000  # A longer request is not read on.
_LABELS = ("stable", "canary")  # The one version has both labels that models.config has.


class Refused(Exception):
    """A request that is not answered.

    Args:
        code: gRPC's name of the kind of error.
        message: what is said of it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ServedModel:
    """A version of a SavedModel under a name.

    Args:
        path: the version's directory, whose name is its number.
        name: the model's, for those who ask.

    Raises:
        ValueError: if there is no SavedModel that can be loaded.
    """

    def __init__(self, path: Path, name: str) -> None:
        if set(name) & set("/:"):
            raise ValueError(
                f"name must have neither / nor :, as paths have them, got name={name!r}"
            )
        self.name = name
        self.version = int(path.name) if path.name.isdigit() else 1
        if versions := versions_in(path):
            raise ValueError(
                f"{path} holds versions of a model and is none: name one, such as "
                f"{path / str(versions[-1])}"
            )
        try:
            self._functions = tf.saved_model.load(str(path)).signatures
            saved = read_saved_model(path)
        except Exception as error:  # TensorFlow has many types, for each file that may be damaged.
            message = f"the SavedModel in {path} cannot be loaded: {one_line(error)}"
            raise ValueError(message) from error
        definitions = saved.meta_graphs[0].signature_def
        self.signatures = {name: definitions[name] for name in self._functions}

    def find(self, name: str, version: int | str | None) -> None:
        """Raises `Refused` for another model or version; labels are `stable` and `canary`."""
        if name != self.name or version not in (None, self.version, *_LABELS):
            wanted = name if version is None else f"{name}, {version}"
            raise Refused("NOT_FOUND", f"Servable not found for request: {wanted}")

    def signature(self, name: str) -> Any:
        """The definition of a signature, or `Refused`."""
        if name not in self.signatures:
            raise Refused(
                "INVALID_ARGUMENT", f'Serving signature name: "{name}" not found in signature def'
            )
        return self.signatures[name]

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of a signature by name, for arrays by name."""
        specs = self.signature(signature).inputs
        if set(inputs) != set(specs):
            raise Refused(
                "INVALID_ARGUMENT",
                f"input must be {', '.join(sorted(specs))}, got {', '.join(sorted(inputs))}",
            )
        try:
            tensors = {key: tf.constant(x, specs[key].dtype) for key, x in inputs.items()}
            outputs = self._functions[signature](**tensors)
            return {key: x.numpy() for key, x in outputs.items()}
        except (tf.errors.InvalidArgumentError, ValueError, TypeError) as error:
            # Python puts a preamble before it, which no server has.
            message = one_line(error).rpartition("<stack traces unavailable> ")[2]
            raise Refused("INVALID_ARGUMENT", message) from error
        except tf.errors.OpError as error:
            raise Refused("INTERNAL", one_line(error)) from error


def application(model: ServedModel) -> Any:
    """The FastAPI application that serves a model, at /v1/models/NAME as TF Serving does.

    Raises:
        ImportError: without the extra `serve`.
    """
    try:
        from fastapi import FastAPI, Request, Response
        from fastapi.exceptions import RequestValidationError
        from starlette.exceptions import HTTPException
    except ImportError as missing:
        raise ImportError(f"a server needs {extra('serve')}") from missing
    app = FastAPI(
        title="tfnvp serve",
        description="For development: TF Serving is for production.",
        # The pages of these would load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
    )
    model_path = "/v1/models/{name}"
    places = [model_path, f"{model_path}/versions/{{version}}", f"{model_path}/labels/{{label}}"]

    def answered(answer: Callable[..., Any], asked: tuple, *args: Any) -> Response:
        """The answer of a function of the model, once the name and version asked for are found."""
        try:
            model.find(*asked)
            status, content = 200, answer(model, *args)
        except Refused as refused:
            status, content = _HTTP[refused.code], {"error": str(refused)}
        # JSON of Python has NaN as TF Serving writes it.
        return Response(json.dumps(content), status, media_type="application/json")

    async def predict(
        request: Request, name: str, version: int | None = None, label: str | None = None
    ) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > _MOST_BYTES:
                return Response('{"error": "the request is too long"}', 413)
        return await asyncio.to_thread(answered, _predicted, (name, label or version), bytes(body))

    def metadata(name: str, version: int | None = None, label: str | None = None) -> Response:
        return answered(_metadata, (name, label or version))

    def status(name: str, version: int | None = None, label: str | None = None) -> Response:
        return answered(_status, (name, label or version))

    @app.exception_handler(HTTPException)
    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: Exception) -> Response:
        content = {"error": f"Malformed request: {request.method} {request.url.path}"}
        return Response(json.dumps(content), 400, media_type="application/json")

    for place in places:
        app.post(f"{place}:predict")(predict)
        app.get(f"{place}/metadata")(metadata)
        app.get(place)(status)
    return app


def run(application: Any, host: str, port: int) -> None:
    """Serves an application until the process is told to end."""
    import uvicorn

    uvicorn.run(application, host=host, port=port, log_level="warning")


def _status(model: ServedModel) -> dict[str, Any]:
    state = {"version": str(model.version), "state": "AVAILABLE"}
    return {"model_version_status": [state | {"status": {"error_code": "OK", "error_message": ""}}]}


def _metadata(model: ServedModel) -> dict[str, Any]:
    definitions = {
        name: json_format.MessageToDict(definition, preserving_proto_field_name=True)
        for name, definition in model.signatures.items()
    }
    spec = {"name": model.name, "signature_name": "", "version": str(model.version)}
    signatures = {"signature_def": {"signature_def": definitions}}
    return {"model_spec": spec, "metadata": signatures}


def _predicted(model: ServedModel, body: bytes) -> dict[str, Any]:
    """The answer to a request in columns, "inputs", or in rows, "instances"."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused("INVALID_ARGUMENT", f"JSON Parse error: {one_line(error)}") from error
    if not isinstance(asked, dict) or ("inputs" in asked) == ("instances" in asked):
        raise Refused("INVALID_ARGUMENT", "JSON must be an object with inputs or instances")
    name = asked.get("signature_name", "serving_default")
    specs = model.signature(name).inputs if isinstance(name, str) else model.signature("")
    columns = _columns(asked, list(specs))
    inputs = {key: _array(key, x, specs[key].dtype) for key, x in columns.items() if key in specs}
    missing = {key: np.zeros(0) for key in columns if key not in specs}
    outputs = {key: _as_json(x) for key, x in model.predict(name, inputs | missing).items()}
    if "inputs" in asked:
        # A single output comes without its name.
        return {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}
    rows = [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]
    if len(outputs) == 1:
        rows = next(iter(outputs.values()))
    return {"predictions": rows}


def _columns(asked: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """Values by input; those of a single one may come without its name."""
    given = asked["inputs"] if "inputs" in asked else asked["instances"]
    if "inputs" in asked:
        named = isinstance(given, dict) and set(given) != {"b64"}
        return given if named else {names[0]: given}
    if not isinstance(given, list) or not given:
        raise Refused("INVALID_ARGUMENT", "instances must be a list of rows")
    if not all(isinstance(row, dict) and set(row) != {"b64"} for row in given):
        return {names[0]: given}
    return {key: [row.get(key) for row in given] for key in given[0]}


def _array(name: str, value: Any, dtype: int) -> np.ndarray:
    """The array of an input's JSON, or `Refused` for values that its dtype does not have."""
    wanted = tf.as_dtype(dtype)
    try:
        if wanted == tf.string:
            return np.array(_decoded(value), object)
        array = np.asarray(value)
        fits = array.dtype.kind in ("iu" if wanted.is_integer else "iuf") or not array.size
        if fits and wanted.is_integer and array.size:
            fits = wanted.min <= array.min() and array.max() <= wanted.max
    except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error) as error:
        raise Refused("INVALID_ARGUMENT", f"{name} is no array: {one_line(error)}") from error
    if not fits and wanted.is_integer and array.dtype.kind in "iu":
        span = f"{wanted.min} to {wanted.max}"
        message = (
            f"{name} must be numbers of {wanted.name}, {span}, got {array.min()} to {array.max()}"
        )
        raise Refused("INVALID_ARGUMENT", message)
    if not fits:
        message = f"{name} must be numbers of {wanted.name}, got dtype {array.dtype}"
        raise Refused("INVALID_ARGUMENT", message)
    return array.astype(wanted.as_numpy_dtype)


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if isinstance(value, dict):
        return base64.b64decode(value["b64"] if set(value) == {"b64"} else 0, validate=True)
    return str(value).encode()


def _as_json(output: np.ndarray) -> list:
    if output.dtype == object:
        return [text.decode(errors="replace") for text in output]
    return output.tolist()
