"""The clients by TLS, and the headers that they send."""

import contextlib
import socket
import ssl
import subprocess
import threading
from concurrent import futures

import numpy as np
import pytest

from tfnvp.serving import ServingError

pytest.importorskip("tensorflow_serving", reason="the extra `serving` is not installed")
import grpc
from helpers import serving_server
from helpers.awaited import KINDS

IMAGES = np.random.default_rng(0).integers(0, 17, (3, 4, 4, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def server(of_classes):
    return serving_server.Model(of_classes[1], "tiny")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The files of a certificate of 127.0.0.1, signed by itself, and its key."""
    room = tmp_path_factory.mktemp("tls")
    files = room / "certificate.pem", room / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-out", files[0], "-keyout", files[1]]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl, which makes the certificate, is not installed")
    return files


@KINDS
def test_https_is_checked_against_the_ssl_context(server, certificate, kind):
    tls = {"ssl_certfile": certificate[0], "ssl_keyfile": certificate[1]}
    with serving_server.rest(server, **tls) as url:
        context = ssl.create_default_context(cafile=certificate[0])
        with pytest.raises(ServingError, match=r"UNAVAILABLE.*certificate verify failed"):
            kind(url, "tiny", retries=0).log_prob(IMAGES, 1)
        assert kind(url, "tiny", ssl_context=context).log_prob(IMAGES, 1).shape == (3,)


@KINDS
def test_a_connection_that_breaks_after_the_handshake_is_unavailable(certificate, kind):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    listening = socket.create_server(("127.0.0.1", 0))

    def answer():
        connection = context.wrap_socket(listening.accept()[0], server_side=True)
        connection.recv(1)
        plain = socket.socket(fileno=connection.detach())
        with plain, contextlib.suppress(OSError):
            plain.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while plain.recv(65536):  # Closing it with bytes unread resets the connection.
                pass

    threading.Thread(target=answer, daemon=True).start()
    trusted = ssl.create_default_context(cafile=certificate[0])
    url = f"https://127.0.0.1:{listening.getsockname()[1]}"
    with listening, pytest.raises(ServingError, match=r"UNAVAILABLE.*SSL"):
        kind(url, "tiny", ssl_context=trusted, retries=0).log_prob(IMAGES, 1)


@KINDS
def test_grpcs_takes_credentials_and_headers_are_sent(certificate, kind):
    seen = []

    def answer(request, context):
        seen.extend(context.invocation_metadata())
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")

    handler = grpc.unary_unary_rpc_method_handler(answer)
    service = grpc.method_handlers_generic_handler(
        "tensorflow.serving.PredictionService", {"Predict": handler}
    )
    web = grpc.server(futures.ThreadPoolExecutor(1), handlers=[service])
    crt, key = (file.read_bytes() for file in certificate)
    port = web.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, crt)]))
    web.start()
    client = kind(
        f"grpcs://127.0.0.1:{port}",
        "tiny",
        credentials=grpc.ssl_channel_credentials(crt),
        headers={"Authorization": "Bearer 1"},
    )
    with pytest.raises(ServingError, match="PERMISSION_DENIED: no"):
        client.log_prob(IMAGES)
    client.close()
    web.stop(None)
    assert ("authorization", "Bearer 1") in [tuple(pair) for pair in seen]


def test_headers_are_sent_by_rest():
    from tfnvp.serving.by_rest import AsyncRest
    from tfnvp.serving.place import Place

    rest = AsyncRest(Place("http://127.0.0.1:1", "a b/c", "x y", headers={"Authorization": "B 1"}))
    assert rest._place.rest_url == "http://127.0.0.1:1/v1/models/a%20b%2Fc/labels/x%20y:predict"
