"""Runs SavedModels by the C++ loader, in a process without Python's TensorFlow.

    python cpp_runtime.py LIBRARIES

LIBRARIES is the directory of TensorFlow's libraries. What comes in are pickles of a SavedModel's
directory, of jobs, and of seconds; a job is (feeds, names of fetches), feeds a dictionary of arrays
by tensor name. For each, out goes a pickle of the answers to each job, lists of arrays or an
error's (code, message); of the failures of 8 threads that then, for these seconds, run jobs at
random and compare; of how many they ran; and of the growth of memory, MB, from half-time to the
end. A SavedModel stays loaded until another is asked for.
"""

import ctypes
import pickle
import random
import sys
import threading
import time
from pathlib import Path

import numpy as np

P = ctypes.c_void_p
DTYPES = {1: np.float32, 3: np.int32, 4: np.uint8, 9: np.int64}
STRING, TSTRING_SIZE = 7, 24


class Output(ctypes.Structure):
    _fields_ = [("operation", P), ("index", ctypes.c_int)]


def library(directory):
    ctypes.CDLL(f"{directory}/libtensorflow_framework.so.2", ctypes.RTLD_GLOBAL)
    tf = ctypes.CDLL(f"{directory}/libtensorflow_cc.so.2", ctypes.RTLD_GLOBAL)
    for name in (
        "NewStatus",
        "NewGraph",
        "NewSessionOptions",
        "LoadSessionFromSavedModel",
        "GraphOperationByName",
        "AllocateTensor",
        "TensorData",
        "StringGetDataPointer",
    ):
        getattr(tf, f"TF_{name}").restype = P
    tf.TF_Message.restype = ctypes.c_char_p
    tf.TF_Dim.restype = ctypes.c_int64
    tf.TF_TensorByteSize.restype = tf.TF_StringGetSize.restype = ctypes.c_size_t
    return tf


class Session:
    def __init__(self, tf, saved_model):
        self.tf = tf
        self.graph, status = P(tf.TF_NewGraph()), P(tf.TF_NewStatus())
        tags = (ctypes.c_char_p * 1)(b"serve")
        options = P(tf.TF_NewSessionOptions())
        self.session = P(
            tf.TF_LoadSessionFromSavedModel(
                options, None, saved_model.encode(), tags, 1, self.graph, None, status
            )
        )
        assert tf.TF_GetCode(status) == 0, tf.TF_Message(status)

    def run(self, feeds, fetches):
        """Arrays; or (code, message) of an error."""
        tf, status = self.tf, P(self.tf.TF_NewStatus())
        inputs = (Output * len(feeds))(*map(self._output, feeds))
        tensors = (P * len(feeds))(*(self._tensor(value) for value in feeds.values()))
        outputs = (Output * len(fetches))(*map(self._output, fetches))
        results = (P * len(fetches))()
        tf.TF_SessionRun(
            self.session, None,
            inputs, tensors, len(feeds),
            outputs, results, len(fetches),
            None, 0, None, status,
        )  # fmt: skip
        for tensor in tensors:
            tf.TF_DeleteTensor(P(tensor))
        code, message = tf.TF_GetCode(status), tf.TF_Message(status).decode(errors="replace")
        tf.TF_DeleteStatus(status)
        return [self._array(P(result)) for result in results] if code == 0 else (code, message)

    def close(self):
        status = P(self.tf.TF_NewStatus())
        self.tf.TF_CloseSession(self.session, status)
        self.tf.TF_DeleteSession(self.session, status)
        self.tf.TF_DeleteGraph(self.graph)
        self.tf.TF_DeleteStatus(status)

    def _output(self, name):
        operation, _, index = name.partition(":")
        found = self.tf.TF_GraphOperationByName(self.graph, operation.encode())
        assert found, name
        return Output(found, int(index))

    def _tensor(self, value):
        tf, strings = self.tf, value.dtype == object
        dims = (ctypes.c_int64 * value.ndim)(*value.shape)
        code = STRING if strings else {np.dtype(d): c for c, d in DTYPES.items()}[value.dtype]
        size = TSTRING_SIZE * value.size if strings else value.nbytes
        tensor = tf.TF_AllocateTensor(code, dims, value.ndim, ctypes.c_size_t(size))
        data = tf.TF_TensorData(P(tensor))
        if strings:
            for i, item in enumerate(value.ravel()):
                place = P(data + TSTRING_SIZE * i)
                tf.TF_StringInit(place)
                tf.TF_StringCopy(place, item, ctypes.c_size_t(len(item)))
        elif size:
            ctypes.memmove(data, value.tobytes(), size)
        return tensor

    def _array(self, tensor):
        tf = self.tf
        shape = [tf.TF_Dim(tensor, i) for i in range(tf.TF_NumDims(tensor))]
        if tf.TF_TensorType(tensor) == STRING:
            return self._texts(tensor, shape)
        size = tf.TF_TensorByteSize(tensor)
        buffer = ctypes.string_at(tf.TF_TensorData(tensor), size) if size else b""
        array = np.frombuffer(buffer, DTYPES[tf.TF_TensorType(tensor)]).reshape(shape)
        tf.TF_DeleteTensor(tensor)
        return array

    def _texts(self, tensor, shape):
        tf, first = self.tf, self.tf.TF_TensorData(tensor)
        texts = np.empty(int(np.prod(shape)), object)
        for i in range(len(texts)):
            place = P(first + TSTRING_SIZE * i)
            size = tf.TF_StringGetSize(place)
            pointer = tf.TF_StringGetDataPointer(place)
            texts[i] = ctypes.string_at(pointer, size).decode() if size else ""
        tf.TF_DeleteTensor(tensor)
        return texts.reshape(shape)


def close(job_result, expected):
    if isinstance(expected, tuple):
        return isinstance(job_result, tuple) and job_result[0] == expected[0]
    if not isinstance(job_result, list):
        return False
    for a, b in zip(job_result, expected, strict=True):
        if a.dtype == object:
            if a.shape != b.shape or not np.array_equal(a, b):
                return False
            continue
        atol = 1 if a.dtype == np.uint8 else 1e-3
        if a.shape != b.shape or not np.allclose(a.astype(float), b, 1e-4, atol, True):
            return False
    return True


def memory():
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in x)
    return int(line.split()[1]) / 1024


def storm(session, jobs, answers, seconds):
    """Failures of 8 threads, how many jobs they ran, and how memory grew."""
    failures, counts = [], [0] * 8
    end = time.monotonic() + seconds

    def work(thread):
        choose = random.Random(thread)
        while time.monotonic() < end:
            i = choose.randrange(len(jobs))
            answer = session.run(*jobs[i])
            counts[thread] += 1
            if not close(answer, answers[i]):
                failures.append((i, str(answer)[:300]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(seconds / 2)
    half = memory()
    for thread in threads:
        thread.join()
    return failures, sum(counts), memory() - half


def main(libraries):
    tf, loaded, session = library(libraries), None, None
    while True:
        try:
            saved_model, jobs, seconds = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if saved_model != loaded:
            if session:
                session.close()
            loaded, session = saved_model, Session(tf, saved_model)
        answers = [session.run(*job) for job in jobs]
        stormed = storm(session, jobs, answers, seconds) if seconds else ([], 0, 0.0)
        assert "tensorflow" not in sys.modules
        pickle.dump((answers, *stormed), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
