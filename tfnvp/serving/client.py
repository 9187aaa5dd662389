"""Clients for served models, by gRPC or REST; they need the extra `serving`."""

import asyncio
import functools
import ssl
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from tfnvp.serving import calls
from tfnvp.serving.by_grpc import AsyncGrpc, Grpc
from tfnvp.serving.by_rest import AsyncRest, Rest
from tfnvp.serving.calls import Call, Patience
from tfnvp.serving.errors import ServingError
from tfnvp.serving.place import Place, Version

Answer = TypeVar("Answer", np.ndarray, Awaitable[np.ndarray])


class _Calls(Generic[Answer]):
    """The calls of both clients: what differs is who waits for the answer."""

    _transports = (Grpc, Rest)

    def __init__(
        self,
        url: str,
        model: str,
        version: Version = None,
        timeout: float = 10.0,
        retries: int = 4,
        headers: Mapping[str, str] | None = None,
        credentials: Any = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        calls.check_limits(timeout, retries)
        place = Place(url, model, version, headers, credentials, ssl_context)
        by_grpc, by_rest = self._transports
        self._connect = functools.partial(by_grpc if place.by_grpc else by_rest, place)
        self._transport = self._connect()
        # NumPy's numbers of few digits would not tell seconds from each other.
        self._timeout, self._retries = float(timeout), int(retries)
        self._closed = False

    def log_prob(self, x: ArrayLike | Sequence[bytes], labels: ArrayLike | None = None) -> Answer:
        """log p(x), or log p(x | y) of labels.

        Args:
            x: images uint8 [B, H, W, C], vectors float [B, D], or a list of PNG or JPEG files, each
                `bytes`.
            labels: of a conditional model: classes, integers [B] or one for all, of which -1 asks
                for p(x), or float contexts [B, size] or one for all. None for other models.

        Returns:
            A float32 array [B], nats.
        """
        return self._answer(calls.scores(x, labels, "log_prob"))

    def bits_per_dim(
        self, x: ArrayLike | Sequence[bytes], labels: ArrayLike | None = None
    ) -> Answer:
        """-log2 p(x) a dimension, for images plus log2(levels); arguments as in `log_prob`."""
        return self._answer(calls.scores(x, labels, "bits_per_dim"))

    def encode(self, x: ArrayLike, labels: ArrayLike | None = None) -> Answer:
        """Latents of images or vectors, a float32 array [B, ...]; labels as in `log_prob`."""
        return self._answer(calls.encode(x, labels))

    def decode(self, latents: ArrayLike, labels: ArrayLike | None = None) -> Answer:
        """The images (uint8) or vectors of latents [B, ...]; labels as in `log_prob`."""
        return self._answer(calls.decode(latents, labels))

    def sample(
        self, seeds: ArrayLike, temperature: ArrayLike = 1.0, labels: ArrayLike | None = None
    ) -> Answer:
        """Draws samples.

        Args:
            seeds: integers [B]; a sample depends on its own seed alone.
            temperature: 0 or more, one number or [B].
            labels: as in `log_prob`.

        Returns:
            Images uint8 [B, H, W, C], or vectors float32 [B, D].
        """
        return self._answer(calls.sample(seeds, temperature, labels))

    def _answer(self, call: Call) -> Answer:
        raise NotImplementedError

    def _check_open(self) -> None:
        if self._closed:
            raise ServingError("CANCELLED", "the client is closed")


class Client(_Calls[np.ndarray]):
    """Calls a served model, by gRPC or REST.

    Large arrays are sent as several requests of up to 256 rows. A request of no rows is never sent,
    since TF Serving would never answer it where it batches.

    Args:
        url: "grpc://host:8500" or "http://host:8501"; "grpcs://" and "https://" for TLS.
        model: the model's name on the server.
        version: a version's number, or a label such as "stable"; None for the server's choice.
        timeout: seconds that a call may take, with all its requests and retries.
        retries: how often a call is tried again that was UNAVAILABLE (no connection, a full batch
            queue, a model being loaded, HTTP 502 and 503), refused by HTTP 429, or put together
            with another caller's rows of another shape or dtype, after pauses that double, or as
            long as the server's `Retry-After` says. No other is: it would fail again, or the time
            is up.
        headers: HTTP headers or gRPC metadata of each request, such as {"Authorization": "..."}.
        credentials: `grpc.ChannelCredentials` of grpcs://; None for the system's certificates.
        ssl_context: an `ssl.SSLContext` of https://; None for the usual certificates.

    Raises:
        ValueError, TypeError: for another kind of URL, limits that are not positive, or, by each
            call, for an argument that no server could take; it is named, and nothing is sent.
        ServingError: by each call, for all that goes wrong after it was sent, with gRPC's name of
            the kind and the server's message. Where the server could not answer some rows,
            `error.rows` says what is wrong with each, and `error.answers` has the others.

    Example:
        >>> with tfnvp.serving.Client("http://localhost:1", model="digits", retries=0) as client:
        ...     client.sample([1, 2, 3])
        Traceback (most recent call last):
        tfnvp.serving.errors.ServingError: UNAVAILABLE: ...
    """

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._closed = True
        self._transport.close()

    def _answer(self, call: Call) -> np.ndarray:
        self._check_open()
        if one := calls.of_a_row(call):
            return self._answer(one)[:0]
        patience = Patience(self._timeout, self._retries)
        return call.joined([self._sent(part, patience) for part in call.parts()])

    def _sent(self, part: Call, patience: Patience) -> tuple[np.ndarray, dict[int, str]]:
        while True:
            try:
                return part.answer_of(self._transport.predict(part, patience.left()))
            except ServingError as error:
                pause = patience.pause(error)
            time.sleep(pause)


class AsyncClient(_Calls[Awaitable[np.ndarray]]):
    """Calls a served model as `Client` does, from an event loop: each call is awaited.

    Arguments and errors are those of `Client`.

    Example:
        >>> import asyncio
        >>> async def draw():
        ...     async with tfnvp.serving.AsyncClient("http://localhost:1", "digits") as client:
        ...         return await client.sample([1, 2, 3])
        >>> asyncio.run(draw())
        Traceback (most recent call last):
        tfnvp.serving.errors.ServingError: UNAVAILABLE: ...
    """

    _transports = (AsyncGrpc, AsyncRest)
    _loop = None

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection."""
        self._closed = True
        await self._transport.close()

    async def _answer(self, call: Call) -> np.ndarray:
        self._check_open()
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            # A connection is of the loop that it was made in, which may have ended.
            self._transport = self._connect()
        self._loop = loop
        if one := calls.of_a_row(call):
            return (await self._answer(one))[:0]
        patience = Patience(self._timeout, self._retries)
        return call.joined([await self._sent(part, patience) for part in call.parts()])

    async def _sent(self, part: Call, patience: Patience) -> tuple[np.ndarray, dict[int, str]]:
        while True:
            try:
                return part.answer_of(await self._transport.predict(part, patience.left()))
            except ServingError as error:
                pause = patience.pause(error)
            await asyncio.sleep(pause)
