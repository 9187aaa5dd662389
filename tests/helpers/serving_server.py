"""A served SavedModel for tests: by gRPC and, as `tfnvp serve` does, by REST."""

import contextlib
import socket
import threading
import time
from concurrent import futures

import grpc
import tensorflow as tf
import uvicorn
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tfnvp.serving import server


class Model(server.ServedModel):
    """A model whose `failures` are codes to answer with first, and `seen` what was asked."""

    def __init__(self, path, name):
        super().__init__(path, name)
        self.failures, self.seen, self.words = [], [], "busy"
        self.delay = threading.Event()
        self.slow = 0.0
        self._asked = None

    def find(self, name, version):
        self._asked = name, version
        super().find(name, version)

    def predict(self, signature, inputs):
        rows = len(next(iter(inputs.values()), ()))
        self.seen.append((*self._asked, signature, rows))
        self.delay.wait(self.slow)
        if self.failures:
            raise server.Refused(self.failures.pop(0), self.words)
        return super().predict(signature, inputs)


@contextlib.contextmanager
def serve(model):
    """Yields the addresses of gRPC and of REST, on 127.0.0.1."""

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            spec = request.model_spec
            inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
            try:
                model.find(spec.name, spec.version_label or (spec.version.value or None))
                outputs = model.predict(spec.signature_name, inputs)
            except server.Refused as refused:
                context.abort(grpc.StatusCode[refused.code], str(refused))
            response = predict_pb2.PredictResponse()
            for key, value in outputs.items():
                response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
            return response

    by_grpc = grpc.server(futures.ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), by_grpc)
    port = by_grpc.add_insecure_port("127.0.0.1:0")
    by_grpc.start()
    try:
        with rest(model) as address:
            yield f"grpc://127.0.0.1:{port}", address
    finally:
        by_grpc.stop(None)


@contextlib.contextmanager
def rest(model, **tls):
    """Yields the address of REST; with files of a certificate and its key by https."""
    listening = socket.create_server(("127.0.0.1", 0))
    # By itself it waits half a minute for the end of a TLS connection.
    options = {"log_level": "warning", "timeout_graceful_shutdown": 1}
    config = uvicorn.Config(server.application(model), **options, **tls)
    web = uvicorn.Server(config)
    thread = threading.Thread(target=web.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not web.started:
        time.sleep(0.01)
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        web.should_exit = True
        thread.join()


@contextlib.contextmanager
def raw(*answers, drip=0.0):
    """A server of HTTP that sends these bytes, one answer a request and the last one for ever.

    With `drip` it sends a byte at a time, so many seconds apart. Yields its address and a list to
    which the times of requests are added.
    """
    listening, asked, left = socket.create_server(("127.0.0.1", 0)), [], list(answers)

    def answer(connection):
        with connection, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            head, _, body = head.partition(b"\r\n\r\n")
            (length,) = (x for x in head.lower().split(b"\r\n") if x.startswith(b"content-length"))
            while len(body) < int(length.split(b":")[1]):
                body += connection.recv(65536)
            asked.append(time.monotonic())
            sent = left.pop(0) if len(left) > 1 else left[0]
            if not drip:
                connection.sendall(sent)
                return
            for byte in sent:
                connection.sendall(bytes([byte]))
                time.sleep(drip)

    def work():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=listening.accept()[:1], daemon=True).start()

    threading.Thread(target=work, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
    finally:
        listening.close()


def http(status, body=b"", *headers):
    """The bytes of an answer of HTTP."""
    lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body
