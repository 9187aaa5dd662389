"""Requests a second and latency of a SavedModel and of the Keras model, under concurrent callers.

    python -m benchmarks.serving [--preset P] [--saved-model DIR] [--callers 1 8 32] [--seconds S]

The first line has the time to load the SavedModel. Each call asks for one image. For log_prob and
sample, each number of callers and each contender there is a JSON line: requests a second, and the
50th, 95th and 99th percentile of a call's milliseconds. The contenders are the loaded SavedModel,
the same with requests batched in the way of TF Serving (up to 64, waiting 2 ms at most), and the
Keras model's own methods. The last two lines compare, at batch 64 and in CPU seconds, runs that
take turns: the SavedModel's log_prob with `tf.function(model.log_prob)`, and an export whose rows
answer for themselves with a strict one, which asserts.
"""

import argparse
import json
import os
import queue
import statistics
import tempfile
import threading
import time
from concurrent.futures import Future

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

MAX_BATCH, MAX_WAIT = 64, 0.002


class Batched:
    """Runs calls of one row each together.

    Args:
        run: a function of a dictionary of arrays of rows.
    """

    def __init__(self, run):
        self._run, self._queue = run, queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def __call__(self, inputs):
        answer = Future()
        self._queue.put((inputs, answer))
        return answer.result()

    def _work(self):
        while True:
            batch = [self._queue.get()]
            end = time.monotonic() + MAX_WAIT
            while len(batch) < MAX_BATCH and (left := end - time.monotonic()) > 0:
                try:
                    batch.append(self._queue.get(timeout=left))
                except queue.Empty:
                    break
            try:
                together = {
                    key: np.concatenate([inputs[key] for inputs, _ in batch]) for key in batch[0][0]
                }
                rows = self._run(together)
                for i, (_, answer) in enumerate(batch):
                    answer.set_result(rows[i : i + 1])
            except Exception as error:
                for _, answer in batch:
                    answer.set_exception(error)


def measure(call, requests, callers, seconds):
    """Lets each caller ask without pause for some seconds; measures requests and latencies."""
    latencies = [[] for _ in range(callers)]
    call(requests[0])
    started = time.perf_counter()
    end = started + seconds

    def work(caller):
        i = caller
        while (before := time.perf_counter()) < end:
            call(requests[i % len(requests)])
            latencies[caller].append(time.perf_counter() - before)
            i += callers

    threads = [threading.Thread(target=work, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - started
    each = 1000 * np.concatenate(latencies)
    p50, p95, p99 = np.percentile(each, [50, 95, 99])
    return {
        "requests_per_second": round(len(each) / wall, 1),
        "p50_ms": round(p50, 2),
        "p95_ms": round(p95, 2),
        "p99_ms": round(p99, 2),
    }


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--preset", default="digits", help="a preset that ships with weights")
    parser.add_argument("--saved-model", help="a directory other than saved_models/PRESET/1")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=10, help="how long each line takes")
    args = parser.parse_args()

    import tfnvp

    import tensorflow as tf  # isort: skip

    model = tfnvp.ImageRealNVP.from_preset(args.preset, load_weights=True)
    path = args.saved_model or f"saved_models/{args.preset}/1"
    started = time.perf_counter()
    loaded = tf.saved_model.load(path)
    seconds = round(time.perf_counter() - started, 2)
    print(json.dumps({"benchmark": "serving", "preset": args.preset, "load_seconds": seconds}))
    draws = np.random.default_rng(0)
    images = draws.integers(0, model.levels, (256, *model.image_shape), dtype=np.uint8)
    warm = np.ones(1, np.float32)

    def served(signature, output):
        function = loaded.signatures[signature]

        def run(inputs):
            tensors = {key: tf.constant(value) for key, value in inputs.items()}
            return function(**tensors)[output].numpy()

        return run

    score, draw = served("log_prob", "log_prob"), served("sample", "images")
    workloads = {
        "log_prob": (
            [{"images": images[i : i + 1]} for i in range(256)],
            score,
            lambda inputs: model.log_prob(inputs["images"]).numpy(),
        ),
        "sample": (
            [{"seed": np.array([i]), "temperature": warm} for i in range(256)],
            draw,
            lambda inputs: model.sample(1, seed=int(inputs["seed"][0])).numpy(),
        ),
    }
    for workload, (requests, run, keras_run) in workloads.items():
        contenders = {"saved_model": run, "saved_model_batched": Batched(run), "keras": keras_run}
        for callers in args.callers:
            for contender, call in contenders.items():
                record = {"benchmark": "serving", "preset": args.preset, "workload": workload}
                record |= {"contender": contender, "callers": callers}
                figures = measure(call, requests, callers, args.seconds)
                print(json.dumps(record | figures), flush=True)

    function, batch = tf.function(model.log_prob), images[:64]
    rates = rates_of(
        {
            "saved_model": lambda: score({"images": batch}),
            "tf_function": lambda: function(tf.constant(batch)).numpy(),
        },
        args.seconds,
    )
    record = {"benchmark": "serving", "preset": args.preset, "workload": "log_prob", "batch": 64}
    print(json.dumps(record | ratio_of("saved_model", "tf_function", rates)), flush=True)

    with tempfile.TemporaryDirectory() as directory:
        runs = {}
        for strict in (False, True):
            path = tfnvp.export_saved_model(model, directory, ["log_prob"], strict=strict)
            exported = tf.saved_model.load(str(path)).signatures["log_prob"]
            name = "strict" if strict else "rows_answer"
            runs[name] = lambda run=exported: run(images=tf.constant(batch))["log_prob"].numpy()
        rates = rates_of(runs, args.seconds)
    print(json.dumps(record | ratio_of("rows_answer", "strict", rates)))


def rates_of(runs, seconds):
    """Images of batches of 64 that each run scores in a second of CPU, as they take turns.

    The median of CPU seconds is taken: wall-clock time is also that of what else the machine does.
    """
    taken = {name: [] for name in runs}
    end = time.perf_counter() + 2 * seconds
    while time.perf_counter() < end or len(next(iter(taken.values()))) < 7:
        for name, run in runs.items():
            before = time.process_time()
            run()
            taken[name].append(time.process_time() - before)
    # The first two runs warm up, and do not count.
    return {name: 64 / statistics.median(times[2:]) for name, times in taken.items()}


def ratio_of(one, other, rates):
    """The figures of two runs, and what part of the other's rate the one has."""
    figures = {f"{name}_images_per_cpu_second": round(rate, 1) for name, rate in rates.items()}
    return figures | {"ratio": round(rates[one] / rates[other], 3)}


if __name__ == "__main__":
    main()
