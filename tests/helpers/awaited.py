"""Both clients as one kind, for tests that hold for each."""

import asyncio

import pytest

from tfnvp.serving import AsyncClient, Client

_PATIENT = 60  # The machine of tests may be busy.


class Blocking(Client):
    """A `Client`."""

    def __init__(self, *args, timeout=_PATIENT, **kwargs):
        super().__init__(*args, timeout=timeout, **kwargs)


class Awaited:
    """An `AsyncClient` whose calls are waited for, one after the other in one loop."""

    def __init__(self, *args, timeout=_PATIENT, **kwargs):
        self._loop = asyncio.new_event_loop()
        self._client = AsyncClient(*args, timeout=timeout, **kwargs)

    def __getattr__(self, name):
        method = getattr(self._client, name)
        return lambda *args, **kwargs: self._loop.run_until_complete(method(*args, **kwargs))


KINDS = pytest.mark.parametrize("kind", [Blocking, Awaited])
