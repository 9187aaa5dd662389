"""A small server of a loaded SavedModel, for tests: PredictionService by gRPC, Predict by REST."""

import base64
import contextlib
import json
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

_HTTP = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "UNAVAILABLE": 503}


class Refused(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Model:
    """What both servers ask; `failures` are codes to answer with first, `seen` what was asked."""

    def __init__(self, path, name):
        self.loaded = tf.saved_model.load(str(path))
        self.name = name
        self.failures, self.seen = [], []
        self.delay = threading.Event()
        self.slow = 0.0

    def predict(self, name, version, signature, inputs):
        self.seen.append((name, version, signature))
        self.delay.wait(self.slow)
        if self.failures:
            raise Refused(self.failures.pop(0), "busy")
        if name != self.name or version not in (None, 1, "stable"):
            raise Refused("NOT_FOUND", f"Servable not found for request: {name}")
        function = self.loaded.signatures[signature]
        specs = function.structured_input_signature[1]
        try:
            tensors = {key: tf.constant(value, specs[key].dtype) for key, value in inputs.items()}
            return {key: value.numpy() for key, value in function(**tensors).items()}
        except tf.errors.InvalidArgumentError as error:
            raise Refused("INVALID_ARGUMENT", error.message) from None


@contextlib.contextmanager
def serve(model):
    """Yields the addresses of gRPC and of REST, on 127.0.0.1."""

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            spec = request.model_spec
            version = spec.version_label or (spec.version.value or None)
            inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
            try:
                outputs = model.predict(spec.name, version, spec.signature_name, inputs)
            except Refused as refused:
                context.abort(grpc.StatusCode[refused.code], str(refused))
            response = predict_pb2.PredictResponse()
            for key, value in outputs.items():
                response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
            return response

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            place, _, verb = self.path.partition(":")
            _, _, _, name, *rest = place.split("/")
            version = (int(rest[1]) if rest[0] == "versions" else rest[1]) if rest else None
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            inputs = {key: np.array(_unpacked(x)) for key, x in body["inputs"].items()}
            try:
                assert verb == "predict"
                outputs = model.predict(name, version, body["signature_name"], inputs)
                outputs = {key: value.tolist() for key, value in outputs.items()}
                # One output comes without its name.
                status, answer = 200, outputs
                if len(outputs) == 1:
                    (answer,) = outputs.values()
                answer = {"outputs": answer}
            except Refused as refused:
                status, answer = _HTTP[refused.code], {"error": str(refused)}
            self.send_response(status)
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *args):
            pass

    server = grpc.server(futures.ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        yield f"grpc://127.0.0.1:{port}", f"http://127.0.0.1:{web.server_port}"
    finally:
        server.stop(None)
        web.shutdown()
        web.server_close()


def _unpacked(x):
    if isinstance(x, list) and x and isinstance(x[0], dict):
        return [base64.b64decode(item["b64"]) for item in x]
    return x
