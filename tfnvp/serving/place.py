"""Where a served model is: the server's address, the model's name and version, and credentials."""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any
from urllib.parse import quote, urlsplit

Version = int | str | None

# With others of these a request or its answer could not be read.
_GRPC_SETS = {"content-type", "te", "user-agent"}
_HTTP_SETS = {"accept-encoding", "connection", "content-encoding", "content-length", "content-type"}
_HTTP_SETS |= {"expect", "te", "trailer", "transfer-encoding", "upgrade"}


@dataclass(frozen=True)
class Place:
    """A served model's place; `tfnvp.serving.Client` documents the attributes.

    Raises:
        ValueError: for what no server can have, naming the argument.
    """

    url: str
    model: str
    version: Version = None
    headers: Mapping[str, str] | None = None
    credentials: Any = None
    ssl_context: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        wanted = "url must be grpc://host:port or http://host:port, or either with an s for TLS"
        wrong = ValueError(f"{wanted}, got {self.url!r}")
        if not is_text(self.url) or set(self.url) & set(" ?#@"):
            raise wrong
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{wanted}, got {self.url!r}: {error}") from error
        if parts.scheme not in ("grpc", "grpcs", "http", "https") or not parts.hostname:
            raise wrong
        if self.by_grpc and (port is None or parts.path.strip("/")):
            raise wrong
        if not is_text(self.model):
            raise ValueError(f"model must be a name, got model={self.model!r}")
        version = self.version
        number = isinstance(version, Integral) and not isinstance(version, bool)
        # TF Serving's numbers have 64 bits.
        if not (version is None or is_text(version) or (number and 0 <= version < 2**63)):
            raise ValueError(f"version must be a number, a label or None, got version={version!r}")
        headers = {} if self.headers is None else self.headers
        if not isinstance(headers, Mapping) or not all(map(_is_header, headers.items())):
            # Values may be secret.
            got = list(headers) if isinstance(headers, Mapping) else type(headers).__name__
            raise ValueError(
                "headers must be ASCII texts, without spaces around them, by names without spaces, "
                f"got {got}"
            )
        if taken := [name for name in headers if _is_taken(name.lower(), self.by_grpc)]:
            raise ValueError(f"headers must leave to the client what it sets itself, got {taken}")
        if self.credentials is not None and parts.scheme != "grpcs":
            raise ValueError(f"credentials are of grpcs://, got url={self.url!r}")
        if self.ssl_context is not None and parts.scheme != "https":
            raise ValueError(f"ssl_context is of https://, got url={self.url!r}")
        if not isinstance(self.ssl_context, (ssl.SSLContext, type(None))):
            raise ValueError(
                f"ssl_context must be an ssl.SSLContext, got {type(self.ssl_context).__name__}"
            )

    @property
    def by_grpc(self) -> bool:
        """Whether calls go by gRPC and not by REST."""
        return self.url.lower().startswith("grpc")

    @property
    def by_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return urlsplit(self.url).scheme in ("grpcs", "https")

    @property
    def address(self) -> str:
        """The host and port, for gRPC."""
        return urlsplit(self.url).netloc

    @property
    def rest_url(self) -> str:
        """The address of the model's `predict`, for REST; names in it are quoted."""
        place = ""
        if self.version is not None:
            kind = "labels" if isinstance(self.version, str) else "versions"
            place = f"/{kind}/{quote(str(self.version), safe='')}"
        return f"{self.url.rstrip('/')}/v1/models/{quote(self.model, safe='')}{place}:predict"


def is_text(value: Any) -> bool:
    """Whether a value can be a name: others hold controls, or halves that no UTF-8 is of."""
    return isinstance(value, str) and bool(value) and value.isprintable()


def _is_header(pair: tuple[Any, Any]) -> bool:
    """Whether HTTP and gRPC both take a name and its value."""
    name, value = pair
    texts = isinstance(name, str) and isinstance(value, str)
    return texts and bool(
        re.fullmatch(r"[\w.-]+", name, re.ASCII)
        and re.fullmatch("[ -~]*", value)
        and value == value.strip()
    )


def _is_taken(name: str, by_grpc: bool) -> bool:
    """Whether a header is the connection's own, or one of gRPC's whose value is no text."""
    if by_grpc:
        return name in _GRPC_SETS or name.startswith("grpc-") or name.endswith("-bin")
    return name in _HTTP_SETS
