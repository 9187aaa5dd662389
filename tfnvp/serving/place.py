"""Where a served model is: the server's address, the model's name and version, and credentials."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

Version = int | str | None

EXTRA = "the extra `serving` is needed: pip install '.[serving]' in tfnvp's checkout"


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
        parts = urlsplit(self.url) if isinstance(self.url, str) else None
        if parts is None or parts.scheme not in ("grpc", "grpcs", "http", "https"):
            raise ValueError(f"{wanted}, got {self.url!r}")
        try:
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{wanted}, got {self.url!r}: {error}") from error
        if not parts.hostname or parts.query or parts.fragment or parts.username is not None:
            raise ValueError(f"{wanted}, got {self.url!r}")
        if self.by_grpc and (port is None or parts.path.strip("/")):
            raise ValueError(f"{wanted}, got {self.url!r}")
        if not isinstance(self.model, str) or not self.model:
            raise ValueError(f"model must be a name, got model={self.model!r}")
        version = self.version
        number = isinstance(version, int) and not isinstance(version, bool) and version >= 0
        if not (version is None or number or (isinstance(version, str) and version)):
            raise ValueError(f"version must be a number, a label or None, got version={version!r}")
        for name, value in (self.headers or {}).items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise ValueError(f"headers must be texts by name, got headers={self.headers!r}")
        if self.credentials is not None and parts.scheme != "grpcs":
            raise ValueError(f"credentials are of grpcs://, got url={self.url!r}")
        if self.ssl_context is not None and parts.scheme != "https":
            raise ValueError(f"ssl_context is of https://, got url={self.url!r}")

    @property
    def by_grpc(self) -> bool:
        """Whether calls go by gRPC and not by REST."""
        return self.url.startswith("grpc")

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
