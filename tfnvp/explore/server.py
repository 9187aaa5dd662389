"""The page of `tfnvp explore` as an application of FastAPI: to this machine, and nothing beyond."""

import logging
import warnings
from collections.abc import Awaitable, Callable, MutableMapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from tfnvp.explore import page

if TYPE_CHECKING:
    import uvicorn

# The browser itself refuses whatever would come from another host.
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


class _OwnHost:
    """Forbids the page's browser to ask other hosts."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        async def forbidding(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", _POLICY.encode()),
                ]
            await send(message)

        await self._app(scope, receive, forbidding)


def application(blocks: Any) -> Any:
    """Makes the application of a page, a `gradio.Blocks`.

    It answers requests to 127.0.0.1 and localhost alone, so that no page from elsewhere reaches it
    by a name that leads here.
    """
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    app.add_middleware(_OwnHost)
    with warnings.catch_warnings():
        # Gradio warns of what its own code does.
        warnings.simplefilter("ignore")
        return page.gradio().mount_gradio_app(
            app,
            blocks,
            path="/",
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            max_file_size="50mb",
            theme=page.theme(),
            css=page.CSS,
        )


def of_application(application: Any, host: str, port: int) -> "uvicorn.Server":
    """Makes a server, which ends soon after it is told to, whatever tabs are open."""
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # From here on requests are cut off, of which each would be told as an error.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            super().handle_exit(sig, frame)

    # An open tab holds a request that never ends. Only warnings and errors are said, in the manner
    # of the program.
    options = {"log_level": "warning", "log_config": None, "timeout_graceful_shutdown": 1}
    return Server(uvicorn.Config(application, host, port, **options))
