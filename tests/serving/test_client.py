"""The clients against a small server by gRPC, and `tfnvp serve` by REST."""

import asyncio
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

import tfnvp
from tfnvp.serving import AsyncClient, Client, ServingError, calls

pytest.importorskip("tensorflow_serving", reason="the extra `serving` is not installed")
import grpc
from helpers import serving_server
from helpers.awaited import KINDS, Blocking

IMAGES = np.random.default_rng(0).integers(0, 17, (3, 4, 4, 1), dtype=np.uint8)
LABELS = np.array([0, 2, -1])


@pytest.fixture(scope="module")
def flow(of_classes):
    return of_classes[0]


@pytest.fixture(scope="module")
def server(of_classes):
    served = serving_server.Model(of_classes[1], "tiny")
    with serving_server.serve(served) as (served.grpc, served.http):
        yield served


@pytest.fixture(params=["grpc", "http"])
def url(request, server):
    return getattr(server, request.param)


def log_prob(flow, images, labels):
    """log p(x | y), and p(x) for labels of -1, a row at a time."""
    pairs = zip(images, labels, strict=True)
    return [float(flow.log_prob(x[None], None if y < 0 else y)[0]) for x, y in pairs]


@pytest.fixture(scope="module")
def expected(flow):
    """The model's answers, by the names of calls, and pictures with their scores."""
    values = IMAGES.astype(int) * 15 + 8
    return {
        "log_prob": log_prob(flow, IMAGES, LABELS),
        "bits_per_dim": flow.bits_per_dim(IMAGES, 1),
        "encode": flow.encode(IMAGES, 1),
        "files": [tf.io.encode_png(image.astype("uint8")).numpy() for image in values],
        "of files": log_prob(flow, (values * 17 // 256).astype("uint8"), LABELS),
    }


@KINDS
def test_answers_are_the_models(url, expected, kind):
    client = kind(url, "tiny")
    np.testing.assert_allclose(client.log_prob(IMAGES, LABELS), expected["log_prob"], rtol=1e-5)
    one = client.bits_per_dim(IMAGES, labels=1)
    np.testing.assert_allclose(one, expected["bits_per_dim"], rtol=1e-5)
    latents = client.encode(IMAGES, labels=1)
    np.testing.assert_allclose(latents, expected["encode"], atol=1e-4)
    decoded = client.decode(latents, labels=1)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, IMAGES)
    drawn = client.sample([5, 6, 5], temperature=0.7, labels=1)
    assert drawn.shape == (3, 4, 4, 1)
    np.testing.assert_allclose(drawn[0].astype(int), drawn[2], atol=1)
    scores = client.log_prob(expected["files"], LABELS)
    np.testing.assert_allclose(scores, expected["of files"], rtol=1e-5)
    client.close()
    with pytest.raises(ServingError, match="CANCELLED: the client is closed"):
        client.log_prob(IMAGES, 1)


def test_files_and_numbers_are_taken_in_the_forms_that_python_has_them(url):
    client = Blocking(url, "tiny", version=np.int64(1), timeout=np.float32(9), retries=np.int8(1))
    file = tf.io.encode_png(IMAGES[0] * 15 + 8).numpy()
    expected = client.log_prob([file] * 2, 1)
    for files in ([bytearray(file), memoryview(file)], np.array([file, file], object)):
        np.testing.assert_array_equal(client.log_prob(files, 1), expected)


def test_an_async_client_goes_from_one_event_loop_to_the_next(url):
    client = tfnvp.serving.AsyncClient(url, "tiny")
    for _ in range(2):
        assert asyncio.run(client.log_prob(IMAGES, 1)).shape == (3,)


@KINDS
def test_large_arrays_are_split_and_joined_in_order(url, flow, server, kind, monkeypatch):
    monkeypatch.setattr(calls, "MOST_ROWS", 2)
    images = np.concatenate([IMAGES, IMAGES[::-1], IMAGES[:1]])
    labels = np.arange(7) % 3
    server.seen.clear()
    answer = kind(url, "tiny").log_prob(images, labels)
    assert [seen[-1] for seen in server.seen] == [2, 2, 2, 1]
    np.testing.assert_allclose(answer, log_prob(flow, images, labels), rtol=1e-5)


@KINDS
def test_what_is_wrong_with_rows_is_told_beside_the_answers_to_the_others(
    url, flow, kind, monkeypatch
):
    monkeypatch.setattr(calls, "MOST_ROWS", 2)
    images = np.concatenate([IMAGES, IMAGES[:1]])
    images[1], images[3] = 99, 17
    with pytest.raises(ServingError, match=r"row 1: images must have values 0..16, got up to 99"):
        kind(url, "tiny").log_prob(images, 1)
    with pytest.raises(ServingError, match=r"\(and 1 more rows\)") as caught:
        kind(url, "tiny").log_prob(images, 1)
    error = caught.value
    assert error.code == "INVALID_ARGUMENT" and set(error.rows) == {1, 3}
    assert error.rows[3] == "images must have values 0..16, got up to 17"
    assert np.isnan(error.answers[[1, 3]]).all()
    expected = log_prob(flow, images[[0, 2]], [1, 1])
    np.testing.assert_allclose(error.answers[[0, 2]], expected, rtol=1e-5)
    with pytest.raises(ServingError, match="row 0: image_bytes must hold PNG or JPEG files, got"):
        kind(url, "tiny").log_prob([b"text"], 1)


def test_no_rows_are_answered_without_asking_for_none(url, server):
    client = Blocking(url, "tiny")
    server.seen.clear()
    assert client.log_prob(IMAGES[:0], 1).shape == client.bits_per_dim([], 1).shape == (0,)
    assert client.encode(IMAGES[:0], 1).shape == (0, 4, 4, 1)
    decoded = client.decode(np.zeros((0, 4, 4, 1)), 1)
    assert decoded.shape == (0, 4, 4, 1) and decoded.dtype == np.uint8
    assert client.sample([], labels=1).shape == (0, 4, 4, 1)
    assert [seen[-1] for seen in server.seen] == [1, 1]


@KINDS
def test_errors_carry_the_servers_message(url, kind):
    with pytest.raises(ServingError, match="Servable not found") as caught:
        kind(url, "other").log_prob(IMAGES)
    assert caught.value.code == "NOT_FOUND" and caught.value.rows == {}
    with pytest.raises(ServingError, match=r"INVALID_ARG.*images must be uint8 \[rows, 4, 4"):
        kind(url, "tiny").log_prob(IMAGES[:, :3], 1)


@KINDS
def test_what_is_unavailable_is_tried_again_and_nothing_else(url, server, kind):
    server.seen.clear()
    server.failures[:] = ["UNAVAILABLE", "UNAVAILABLE"]
    assert kind(url, "tiny").log_prob(IMAGES, 1).shape == (3,)
    assert len(server.seen) == 3
    server.failures[:] = ["UNAVAILABLE"] * 2
    with pytest.raises(ServingError, match="UNAVAILABLE: busy"):
        kind(url, "tiny", retries=1).log_prob(IMAGES, 1)
    server.seen.clear()
    server.failures[:] = ["INVALID_ARGUMENT"]
    with pytest.raises(ServingError, match="INVALID_ARGUMENT: busy") as caught:
        kind(url, "tiny").log_prob(IMAGES, 1)
    assert len(server.seen) == 1
    if url.startswith("grpc"):
        assert isinstance(caught.value.__cause__, grpc.RpcError)


@KINDS
def test_a_call_that_fails_for_another_callers_dtype_is_tried_again(url, server, kind, monkeypatch):
    words = (
        "Tensor concat operation failed: Cannot concatenate tensors that have different data types"
    )
    monkeypatch.setattr(server, "words", words)
    server.seen.clear()
    server.failures[:] = ["INTERNAL", "INTERNAL"]
    assert kind(url, "tiny").log_prob(IMAGES, 1).shape == (3,)
    assert len(server.seen) == 3


@KINDS
def test_the_deadline_ends_a_call(url, server, kind, monkeypatch):
    monkeypatch.setattr(server, "slow", 1.5)
    started = time.monotonic()
    with pytest.raises(ServingError, match="DEADLINE_EXCEEDED"):
        kind(url, "tiny", timeout=0.3).log_prob(IMAGES, 1)
    assert time.monotonic() - started < 1.2
    # The time is that of all requests together, and is what the message tells.
    monkeypatch.setattr(server, "slow", 0.5)
    monkeypatch.setattr(calls, "MOST_ROWS", 1)
    with pytest.raises(ServingError, match=r"DEADLINE_EXCEEDED: no answer in 1.25 s"):
        kind(url, "tiny", timeout=1.25).log_prob(IMAGES, 1)


def test_a_client_that_is_closed_in_a_call_ends_it(url, server, monkeypatch):
    monkeypatch.setattr(server, "slow", 2)
    client = Blocking(url, "tiny")
    closing = threading.Timer(0.5, client.close)
    closing.start()
    with pytest.raises(ServingError, match="CANCELLED"):
        client.log_prob(IMAGES, 1)
    closing.join()


def test_an_async_client_that_is_closed_in_a_call_ends_it(url, server, monkeypatch):
    monkeypatch.setattr(server, "slow", 2)

    async def close_in_a_call():
        client = AsyncClient(url, "tiny", timeout=60)
        asked = asyncio.create_task(client.log_prob(IMAGES, 1))
        await asyncio.sleep(0.5)
        await client.close()
        await asked

    with pytest.raises(ServingError, match="CANCELLED"):
        asyncio.run(close_in_a_call())


def test_versions_and_labels_are_asked_for(url, server):
    for version in (None, 1, "stable"):
        Blocking(url, "tiny", version).log_prob(IMAGES, 1)
        assert server.seen[-1] == ("tiny", version, "log_prob", 3)
    for name, version in (("a b?c#d%", None), ("tiny", "of today?")):
        with pytest.raises(ServingError, match="NOT_FOUND"):
            Blocking(url, name, version).log_prob(IMAGES, 1)


@KINDS
@pytest.mark.parametrize("url", ["grpc://127.0.0.1:1", "http://127.0.0.1:1"])
def test_no_server_is_unavailable(url, kind):
    with pytest.raises(ServingError, match="UNAVAILABLE") as caught:
        kind(url, "tiny", timeout=2, retries=1).log_prob(IMAGES)
    assert caught.value.__cause__ is not None


@KINDS
@pytest.mark.parametrize("proxy", ["foo://127.0.0.1:1", "socks5://127.0.0.1:1", "http://[::1"])
def test_a_proxy_that_is_none_is_named(proxy, kind, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ServingError, match=r"UNAVAILABLE: the proxy of ALL_PROXY, .* used"):
        kind("http://127.0.0.1:1", "tiny", retries=0).log_prob(IMAGES)


# Bad arguments and inputs are refused before they are sent.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "host:8500"}, "url must be"),
        ({"url": "ftp://host"}, "url must be"),
        ({"url": "grpc://host"}, "url must be"),
        ({"url": "http://host:99999"}, "url must be"),
        ({"url": "http://user:pass@host"}, "url must be"),
        ({"url": "http://[::1"}, "url must be"),
        ({"url": "http://local host:1"}, "url must be"),
        ({"url": "http://host/a?"}, "url must be"),
        ({"url": b"http://host"}, "url must be"),
        ({"timeout": 0}, "timeout must be"),
        ({"timeout": "3"}, "timeout must be"),
        ({"timeout": float("nan")}, "timeout must be"),
        ({"retries": -1}, "retries must"),
        ({"model": ""}, "model must be"),
        ({"model": "\ud800"}, "model must be"),
        ({"model": "a\0"}, "model must be"),
        ({"version": -1}, "version must be"),
        ({"version": 2**70}, "version must be"),
        ({"version": ""}, "version must be"),
        ({"headers": {"a": 1}}, "headers must be"),
        ({"headers": {"a b": "x"}}, "headers must be"),
        ({"headers": {"a": "x\r\nb: y"}}, r"headers must be .*, got \['a'\]$"),
        ({"headers": {"a": "é"}}, "headers must be"),
        ({"headers": [("a", "b")]}, "headers must be .*, got list$"),
        ({"headers": {"a": "b "}}, r"headers must be .*, got \['a'\]$"),
        ({"headers": {"Content-Length": "1", "a": "b"}}, r"headers must leave .*, got \['Con"),
        ({"headers": {"A-Bin": "b"}, "url": "grpc://host:1"}, r"must leave .*, got \['A-Bin'\]$"),
        ({"headers": {"grpc-timeout": "1"}, "url": "grpc://host:1"}, "headers must leave"),
        ({"url": "http://xn--:1"}, "url must be of a host, got 'http://xn--:1'"),
        ({"url": "http://☃:1"}, "url must be of a host"),
        ({"credentials": 1}, "credentials are of grpcs"),
        ({"credentials": 1, "url": "grpcs://host:1"}, "credentials must be grpc.Ch.*, got int"),
        ({"ssl_context": 1}, "ssl_context is of https"),
        ({"ssl_context": 1, "url": "https://host"}, "ssl_context must be an ssl.SSLContext"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Client(**{"url": "http://localhost:8501", "model": "tiny", **arguments})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.log_prob(IMAGES[0]), r"x must be uint8 images .*pass x\[None\]"),
        (lambda c: c.log_prob(IMAGES.astype(int)), "x must be uint8 where it is images"),
        (lambda c: c.log_prob([["a"]]), "x must be numbers, or a list of files"),
        (lambda c: c.log_prob(["digit.png"]), "x must be numbers, or a list of files"),
        (lambda c: c.log_prob(None), "x must be numbers, or a list of files"),
        (lambda c: c.log_prob([[1, 2], [3]]), "x must be an array of numbers"),
        (lambda c: c.decode([[1, 2], [3]]), "latents must be an array of numbers"),
        (lambda c: c.sample([1, [2]]), "seeds must be an array of numbers"),
        (lambda c: c.log_prob(IMAGES, [[1], 2, 3]), "labels must be an array of numbers"),
        (lambda c: c.log_prob(bytearray(b"file")), "x must be a list of files, got one"),
        (lambda c: c.log_prob(np.array([[1.0, np.nan]])), "x must be finite.* in row 0"),
        (lambda c: c.log_prob(np.array([[1e300]])), "x must be finite in float32"),
        (lambda c: c.log_prob([b"file", "text"]), "x must be files alone, each bytes, got str"),
        (lambda c: c.log_prob(b"file"), r"x must be a list of files, got one: pass \[x\]"),
        (lambda c: c.decode([[np.inf]]), "latents must be finite"),
        (lambda c: c.decode(1.0), "latents must be numbers with rows first"),
        (lambda c: c.sample([1.5]), "seeds must be a list of integers"),
        (lambda c: c.sample(3), "seeds must be a list of integers"),
        (lambda c: c.sample([2**63]), "seeds must be a list of integers"),
        (lambda c: c.sample([1], temperature=-1), "temperature must be a finite number"),
        (lambda c: c.sample([1], temperature=1e39), "temperature must be a finite number"),
        (lambda c: c.sample([1], labels=2**64 - 1), "labels must be integers of 64 bits"),
        (lambda c: c.sample([1], temperature=[1, 1]), "temperature must be a finite number"),
        (lambda c: c.log_prob(IMAGES, labels=[1, 2]), r"labels must be classes, integers \[3\]"),
        (lambda c: c.log_prob(IMAGES, labels=[[np.nan]]), "labels must be"),
        (lambda c: c.log_prob(IMAGES, labels="a"), "labels must be classes"),
    ],
)
def test_wrong_input_is_refused_before_it_is_sent(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(Client("http://127.0.0.1:1", "tiny"))
