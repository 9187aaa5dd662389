"""The clients where somebody else answers than a server of exports."""

import time

import numpy as np
import pytest

from tfnvp.serving import Client, ServingError

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
    "deep JSON": (http(200, b"[" * 100_000), "no JSON"),
    "HTML": (http(200, b"<html>Welcome</html>"), "no JSON: <html>Welcome"),
    "no content": (http(204), "status 204"),
    "an output of another name": (outputs(b'{"score": [1.0, 2.0, 3.0]}'), "no log_prob, but score"),
    "a wrong count": (outputs(b'{"log_prob": [1.0, 2.0]}'), "must have the shape .3,., got .2,."),
    "ragged": (outputs(b'{"log_prob": [1.0, [2.0], 3.0]}'), "log_prob is no array"),
    "texts": (outputs(b'{"log_prob": ["1", "2", "3"]}'), "must be numbers, got dtype object"),
    "nulls": (outputs(b'{"log_prob": [1.0, null, 3.0]}'), "must be numbers or texts"),
    "truths": (outputs(b'{"log_prob": [true, false, true]}'), "must be numbers, got dtype bool"),
    "NaN": (outputs(b'{"log_prob": [1.0, NaN, 3.0]}'), "row 1 is not finite"),
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
    tensor.dtype = 9
    with pytest.raises(ServingError, match="log_prob has the dtype 9 and not 1"):
        by_grpc._outputs(response)
