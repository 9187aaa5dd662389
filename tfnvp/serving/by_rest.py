"""Calls by REST, in an event loop; a thread of its own runs one for callers that have none."""

import asyncio
import base64
import concurrent.futures
import contextlib
import datetime
import email.utils
import json
import os
import ssl
import threading
from collections.abc import Coroutine
from typing import Any

import numpy as np

from tfnvp._environment import extra
from tfnvp.serving.calls import Arrays, Call
from tfnvp.serving.errors import ServingError, foreign, is_of_a_neighbour
from tfnvp.serving.place import Place

_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    412: "FAILED_PRECONDITION",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_AGAIN = (429, 502, 503)
_SHOWN = 300  # An error shows so many characters of an answer that is no JSON.


class AsyncRest:
    """Calls by REST in the caller's event loop."""

    def __init__(self, place: Place) -> None:
        try:
            import httpx
        except ImportError as missing:
            raise ImportError(f"http:// needs httpx, of {extra('serving')}") from missing
        try:
            # The name of a host is read here, so that one that is none is not first seen by a call.
            httpx.URL(place.rest_url).host  # noqa: B018
        except (httpx.InvalidURL, ValueError) as error:
            raise ValueError(f"url must be of a host, got {place.url!r}: {error}") from error
        self._httpx, self._place, self._client = httpx, place, None

    async def predict(self, call: Call, timeout: float) -> Arrays:
        """Calls a signature; the time is that of all, from the connection to the last byte."""
        self._connect()
        try:
            async with asyncio.timeout(timeout):
                columns = {name: _as_json(value) for name, value in call.inputs.items()}
                body = json.dumps({"signature_name": call.signature, "inputs": columns}).encode()
                status, headers, answer = await self._post(body, call.most_answer_bytes)
        except TimeoutError as error:
            raise ServingError("DEADLINE_EXCEEDED", f"no answer in {timeout:.3g} s") from error
        except self._httpx.DecodingError as error:
            raise foreign(str(error)) from error
        except RuntimeError as error:
            if self._client is None or not self._client.is_closed:
                raise
            raise ServingError("CANCELLED", "the client is closed") from error
        # httpx lets errors of TLS through that come after the handshake.
        except (self._httpx.HTTPError, self._httpx.StreamError, ssl.SSLError) as error:
            reason = str(error) or type(error).__name__
            message = f"{self._place.rest_url}: {reason}"
            raise ServingError("UNAVAILABLE", message, again=True) from error
        if status != 200:
            raise _refusal(status, headers, answer)
        return _outputs(call, answer)

    def _connect(self) -> None:
        if self._client is not None:
            return
        tls = {"verify": self._place.ssl_context} if self._place.ssl_context else {}
        try:
            self._client = self._httpx.AsyncClient(timeout=None, follow_redirects=False, **tls)
        except (ImportError, ValueError, self._httpx.InvalidURL) as error:
            # Nothing else of the client can be wrong that is read here, and not before.
            message = f"the proxy of ALL_PROXY, HTTP_PROXY or HTTPS_PROXY cannot be used: {error}"
            raise ServingError("UNAVAILABLE", message) from error

    async def _post(self, body: bytes, most: int) -> tuple[int, dict[str, str], bytes]:
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            **(self._place.headers or {}),
        }
        request = self._client.stream("POST", self._place.rest_url, content=body, headers=headers)
        async with request as response:
            if "," in response.headers.get("content-encoding", ""):
                raise foreign("it is encoded more than once, which no limit on its length holds")
            read = bytearray()
            async for piece in response.aiter_bytes():
                read += piece
                if len(read) > most:
                    raise foreign(f"it is longer than {most} bytes")
            return response.status_code, dict(response.headers), bytes(read)

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.aclose()


class Rest:
    """Calls by REST for callers without an event loop.

    The loop runs in a thread of its own, since only there a call that takes too long can be ended
    wherever it is: the timeouts of blocking reads begin anew with each byte that a server drips.
    """

    def __init__(self, place: Place) -> None:
        self._place, self._rest, self._process = place, AsyncRest(place), os.getpid()
        self._loop, self._lock = None, threading.Lock()

    def predict(self, call: Call, timeout: float) -> Arrays:
        """Calls a signature, at most for `timeout` seconds."""
        if self._process != os.getpid():
            # A fork takes neither the thread along nor, for two to use, the connections.
            self.__init__(self._place)
        try:
            return self._run(self._rest.predict(call, timeout))
        except concurrent.futures.CancelledError as error:
            raise ServingError("CANCELLED", "the client is closed") from error

    def close(self) -> None:
        """Closes the connections, and ends the thread and the calls of other threads."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            asyncio.run_coroutine_threadsafe(self._end(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()

    async def _end(self) -> None:
        # A call would be waited for in vain once the loop has stopped.
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ServingError):
                await task
        await self._rest.close()

    def _run(self, coroutine: Coroutine) -> Any:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
                self._thread.start()
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # It goes on otherwise where Ctrl-C ends the wait.


def _as_json(value: np.ndarray) -> list:
    if value.dtype == object:
        return [{"b64": base64.b64encode(item).decode()} for item in value]
    return value.tolist()


def _outputs(call: Call, answer: bytes) -> Arrays:
    """Arrays by name of an answer; a single output may come without its name."""
    try:
        parsed = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise foreign(f"it is no JSON: {_start(answer)}") from error
    outputs = parsed.get("outputs") if isinstance(parsed, dict) else None
    if isinstance(outputs, list):
        array = _array("outputs", outputs)
        image = array.ndim == 4 and array.dtype.kind in "iu"
        name = call.output or ("images" if image else "vectors" if array.ndim == 2 else "data")
        return {name: array}
    if not isinstance(outputs, dict):
        raise foreign(f"it has no outputs: {_start(answer)}")
    return {name: _array(name, value) for name, value in outputs.items()}


def _array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, list) and value and all(isinstance(x, str) for x in value):
        # An array of texts takes for each of them as much as the longest one needs.
        texts = np.empty(len(value), object)
        texts[:] = value
        return texts
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError, MemoryError) as error:
        raise foreign(f"{name} is no array") from error
    # An object would be what JSON calls null or an object, or an integer of any size.
    if array.dtype == object:
        raise foreign(f"{name} must be numbers or texts")
    return array.astype(object) if array.dtype.kind == "U" else array


def _refusal(status: int, headers: dict[str, str], answer: bytes) -> ServingError:
    if status < 300:
        return foreign(f"it has the status {status} and not 200")
    if status < 400:
        where = headers.get("location", "elsewhere")
        message = f"a redirect to {where} is refused: name the server's own address"
        return ServingError("UNKNOWN", message)
    code = _CODES.get(status, "UNKNOWN")
    message = f"{_message(answer)} (HTTP {status})"
    again = status in _AGAIN or is_of_a_neighbour(message)
    return ServingError(code, message, again=again, wait=_wait(headers.get("retry-after")))


def _message(answer: bytes) -> str:
    with contextlib.suppress(ValueError, RecursionError):
        parsed = json.loads(answer)
        if isinstance(parsed, dict) and isinstance(parsed.get("error"), str):
            return parsed["error"]
    return _start(answer) or "no message"


def _start(answer: bytes) -> str:
    return " ".join(answer[:_SHOWN].decode(errors="replace").split())


def _wait(told: str | None) -> float:
    """The seconds of a header Retry-After, which has a number or a date; 0 where it has neither."""
    if told is None:
        return 0.0
    if told.isascii() and told.strip().isdigit():
        return float(told)
    try:
        date = email.utils.parsedate_to_datetime(told)
    except (ValueError, OverflowError):
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())
