"""The clients where somebody else answers than a server of exports."""

import json
import multiprocessing
import time

import numpy as np
import pytest

from tfnvp.serving import Client, ServingError, by_rest, calls

pytest.importorskip("tensorflow_serving", reason="the extra `serving` is not installed")
from helpers import serving_server
from helpers.awaited import KINDS
from helpers.serving_server import http

IMAGES = np.random.default_rng(0).integers(0, 17, (3, 4, 4, 1), dtype=np.uint8)


def outputs(text):
    return http(200, b'{"outputs": ' + text + b"}")


FOREIGN = {
    "truncated JSON": (outputs(b'{"log_prob": [1.0, 2.0')[:-1], "no JSON|UNAVAILABLE"),
    "foreign JSON": (http(200, b'{"result": "yes"}'), "no outputs"),
    "a list": (http(200, b"[1, 2, 3]"), "no outputs"),
    "deep JSON": (http(200, b"[" * 10_000), "no JSON"),
    "HTML": (http(200, b"<html>Welcome</html>"), "no JSON: <html>Welcome"),
    "no content": (http(204), "status 204"),
    "an output of another name": (outputs(b'{"score": [1.0, 2.0, 3.0]}'), "no log_prob, but score"),
    "a wrong count": (outputs(b'{"log_prob": [1.0, 2.0]}'), "must have the shape .3,., got .2,."),
    "ragged": (outputs(b'{"log_prob": [1.0, [2.0], 3.0]}'), "log_prob is no array"),
    "texts": (outputs(b'{"log_prob": ["1", "2", "3"]}'), "must be numbers, got dtype object"),
    "nulls": (outputs(b'{"log_prob": [1.0, null, 3.0]}'), "must be numbers or texts"),
    "truths": (outputs(b'{"log_prob": [true, false, true]}'), "must be numbers, got dtype bool"),
    "NaN": (outputs(b'{"log_prob": [1.0, NaN, 3.0]}'), "row 1 is not finite"),
    "beyond float32": (outputs(b'{"log_prob": [1e300, 2.0, 3.0]}'), "row 0 is not finite"),
    # It would take a thousand times its own size as an array of texts of one length.
    "a long text of many": (
        outputs(
            b'{"log_prob": [1.0, 2.0, 3.0], "error": ["'
            + b"x" * 10**4
            + b'"'
            + b', ""' * 10**3
            + b"]}"
        ),
        "error must be 3 texts",
    ),
    "encoded twice": (
        http(200, b"x", "Content-Encoding: gzip, gzip"),
        "it is encoded more than once",
    ),
    "errors that are none": (
        outputs(b'{"log_prob": [1.0, 2.0, 3.0], "error": [1, 2, 3]}'),
        "error",
    ),
}


@KINDS
@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_answers_are_named(case, kind):
    answer, message = FOREIGN[case]
    with serving_server.raw(answer) as (url, _), pytest.raises(ServingError, match=message):
        kind(url, "tiny", retries=0).log_prob(IMAGES)


@KINDS
def test_an_answer_is_read_no_further_than_one_to_the_request_goes(kind):
    """So many lists take seconds to read and a gigabyte."""
    long = http(200, b'{"outputs": [' + b"[]," * 10**6 + b"[]]}")
    with (
        serving_server.raw(long) as (url, _),
        pytest.raises(ServingError, match="longer than 16480 bytes"),
    ):
        kind(url, "tiny").log_prob(IMAGES)


def test_requests_have_a_million_numbers_at_most_but_of_a_single_row():
    def rows(*shape):
        call = calls.encode(np.zeros(shape, np.uint8), None)
        return [len(part) for part in call.parts()]

    assert rows(600, 4, 4, 1) == [256, 256, 88]
    assert rows(3, 1024, 1024, 1) == [1, 1, 1]
    assert rows(2, 1024, 1024, 3) == [1, 1]
    files = calls.scores([bytes(9_000_000)] * 3, None, "log_prob")
    assert [len(part) for part in files.parts()] == [1, 1, 1]


@pytest.mark.parametrize("values", [b"[[[[256]]]]", b"[[[[-1]]]]", b"[[[[1.5]]]]"])
def test_pixels_out_of_range_are_named(values):
    answer = outputs(b'{"images": ' + values + b"}")
    with serving_server.raw(answer) as (url, _), pytest.raises(ServingError, match="0 to 255"):
        Client(url, "tiny").sample([1])


STATUSES = {
    302: ("UNKNOWN: a redirect to http://elsewhere/ is refused", 1),
    401: ("UNAUTHENTICATED: who are you", 1),
    429: ("RESOURCE_EXHAUSTED: who are you", 3),
    502: ("UNAVAILABLE: who are you", 3),
    500: ("INTERNAL: who are you", 1),
    418: ("UNKNOWN: who are you", 1),
}


@pytest.mark.parametrize("status", STATUSES)
def test_statuses_have_grpcs_names_and_some_are_tried_again(status):
    message, tries = STATUSES[status]
    answer = http(status, b'{"error": "who are you"}', "Location: http://elsewhere/")
    with serving_server.raw(answer) as (url, asked), pytest.raises(ServingError, match=message):
        Client(url, "tiny", retries=2).log_prob(IMAGES)
    assert len(asked) == tries


def test_a_call_that_fails_for_another_callers_shape_is_tried_again():
    """In the words of TF Serving's batching session, of which it tells all callers of a batch."""
    words = b"Tensors with name 'x:0' from different tasks have different shapes and padding is "
    refusal = http(412, b'{"error": "' + words + b'turned off."}')
    good = outputs(b'{"log_prob": [1.0, 2.0, 3.0]}')
    with serving_server.raw(refusal, good) as (url, asked):
        np.testing.assert_array_equal(Client(url, "tiny").log_prob(IMAGES), [1, 2, 3])
    assert len(asked) == 2
    with serving_server.raw(refusal) as (url, asked), pytest.raises(ServingError) as caught:
        Client(url, "tiny", retries=1).log_prob(IMAGES)
    assert caught.value.code == "FAILED_PRECONDITION" and len(asked) == 2


def test_retry_after_is_kept_to_and_does_not_outlast_the_timeout():
    good = outputs(b'{"log_prob": [1.0, 2.0, 3.0]}')
    with serving_server.raw(http(429, b"", "Retry-After: 1"), good) as (url, asked):
        np.testing.assert_array_equal(Client(url, "tiny").log_prob(IMAGES), [1, 2, 3])
    assert asked[1] - asked[0] >= 1
    date = "Retry-After: Fri, 31 Dec 2999 23:59:59 GMT"
    started = time.monotonic()
    with (
        serving_server.raw(http(429, b"", date), good) as (url, asked),
        pytest.raises(ServingError, match="RESOURCE_EXHAUSTED"),
    ):
        Client(url, "tiny", timeout=5).log_prob(IMAGES)
    assert len(asked) == 1 and time.monotonic() - started < 4


@pytest.mark.parametrize("told", ["Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "soon", "-1"])
def test_a_retry_after_that_says_nothing_is_passed_over(told):
    good = outputs(b'{"log_prob": [1.0, 2.0, 3.0]}')
    with serving_server.raw(http(429, b"", f"Retry-After: {told}"), good) as (url, _):
        np.testing.assert_array_equal(Client(url, "tiny").log_prob(IMAGES), [1, 2, 3])


@KINDS
def test_the_timeout_is_the_whole_calls_whatever_the_server_drips(kind):
    answer = outputs(b'{"log_prob": [1.0, 2.0, 3.0]}')
    started = time.monotonic()
    with (
        serving_server.raw(answer, drip=0.1) as (url, _),
        pytest.raises(ServingError, match="DEADLINE_EXCEEDED"),
    ):
        kind(url, "tiny", timeout=0.8).log_prob(IMAGES)
    assert time.monotonic() - started < 3


def test_a_small_answer_that_declares_a_huge_shape_takes_no_memory():
    from tensorflow_serving.apis import predict_pb2

    from tfnvp.serving import by_grpc

    response = predict_pb2.PredictResponse()
    tensor = response.outputs["log_prob"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add().size = 1 << 29
    tensor.float_val.append(1.0)
    assert response.ByteSize() < 50
    with pytest.raises(ServingError, match=r"declares the shape \[536870912\] and holds 1 values"):
        by_grpc._outputs(response)
    tensor.tensor_shape.dim[0].size = -1
    with pytest.raises(ServingError, match="declares the shape"):
        by_grpc._outputs(response)
    tensor.tensor_shape.dim[0].size = 1
    tensor.tensor_shape.dim.extend([tensor.tensor_shape.dim[0]] * 99)
    with pytest.raises(ServingError, match="declares a shape that no array has"):
        by_grpc._outputs(response)
    tensor.dtype = 9
    with pytest.raises(ServingError, match="log_prob has the dtype 9 and not 1"):
        by_grpc._outputs(response)


def test_an_output_without_its_name_is_known_by_its_numbers():
    """A server sends a single output so; data of any event is no image."""
    call = calls.decode(np.zeros([1, 2, 2, 3], "float32"), None)
    for value, name in ((3, "images"), (0.5, "data")):
        answer = json.dumps({"outputs": np.full([1, 2, 2, 3], value).tolist()}).encode()
        assert list(by_rest._outputs(call, answer)) == [name]


def test_no_rows_are_asked_for_by_a_row_that_any_model_answers():
    """Without a mean, a temperature of 0 is a fault; and an empty list has no rows' size."""
    assert calls.of_a_row(calls.sample([], 1.0, None)).inputs["temperature"] == [1]
    assert calls.of_a_row(calls.encode([], None)) is None


def test_a_client_goes_on_in_a_process_that_was_forked():
    """Where the thread of its event loop is not."""
    good = outputs(b'{"log_prob": [1.0, 2.0, 3.0]}')
    with serving_server.raw(good, good) as (url, _):
        client = Client(url, "tiny", timeout=20)
        client.log_prob(IMAGES)
        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        child = context.Process(target=lambda: answers.put(client.log_prob(IMAGES).tolist()))
        child.start()
        assert answers.get(timeout=30) == [1, 2, 3]
        child.join()
