"""Callers of a SavedModel by the C++ loader, whose rows are merged into batches as TF Serving does.

    python merging_program.py LIBRARIES

A pickle comes in: a SavedModel's directory, jobs of good callers, jobs of bad ones, and seconds; a
job is (feeds, names of fetches), as for cpp_runtime.py. Out goes a pickle of the failures of 4 good
callers, of how many good and bad jobs were run, how many batches had rows of both, how often good
callers asked again, and of the growth of memory in MB, from a third of the time to the end.

Each good caller compares its answers with those to the same job alone; as the clients do, it asks
again where a batch failed for shapes or dtypes that differ. Two more callers send the bad jobs in
turn for as long, and all of them once at least.
"""

import pickle
import queue
import random
import sys
import threading
import time
from concurrent.futures import Future

import numpy as np
from cpp_runtime import Session, library, memory

MOST_ROWS, LONGEST_WAIT = 64, 0.002
DIFFERENT = 9, "Tensors from different tasks have different shapes"


class Batches:
    """Runs jobs together that have the same inputs and fetches, and fails all if shapes differ."""

    def __init__(self, session):
        self._session, self._queues, self._lock = session, {}, threading.Lock()
        self.mixed = 0

    def run(self, job, good):
        feeds, fetches = job
        arrays = list(feeds.values())
        # TF Serving's batching session refuses what has no rows, or not as many everywhere.
        if any(x.ndim == 0 for x in arrays) or len({len(x) for x in arrays}) > 1:
            return 3, "inputs must have rows first, as many each"
        # It would wait for ever for an answer to no rows, and to no inputs.
        if not arrays or not len(arrays[0]):
            return self._session.run(feeds, fetches)
        key = (*feeds, *fetches)
        with self._lock:
            if key not in self._queues:
                self._queues[key] = queue.Queue()
                threading.Thread(target=self._work, args=[key], daemon=True).start()
        answer = Future()
        self._queues[key].put((feeds, fetches, good, answer))
        return answer.result()

    def _work(self, key):
        waiting = self._queues[key]
        while True:
            batch = [waiting.get()]
            end = time.monotonic() + LONGEST_WAIT
            rows = len(next(iter(batch[0][0].values())))
            while rows < MOST_ROWS and (left := end - time.monotonic()) > 0:
                try:
                    batch.append(waiting.get(timeout=left))
                except queue.Empty:
                    break
                rows += len(next(iter(batch[-1][0].values())))
            feeds, fetches = batch[0][:2]
            kinds = {tuple((x.dtype, x.shape[1:]) for x in job[0].values()) for job in batch}
            if len(kinds) == 1:
                merged = {name: np.concatenate([job[0][name] for job in batch]) for name in feeds}
                self.mixed += len({good for _, _, good, _ in batch}) == 2
                result = self._session.run(merged, fetches)
            else:
                result = DIFFERENT
            first = 0
            for own, _, _, answer in batch:
                last = first + len(next(iter(own.values())))
                failed = isinstance(result, tuple)
                answer.set_result(result if failed else [x[first:last] for x in result])
                first = last


def differ(answer, expected):
    """Tells what is wrong with a good caller's answer; None where nothing is."""
    if not isinstance(answer, list):
        return str(answer)[:300]
    for a, b in zip(answer, expected, strict=True):
        if a.shape != b.shape:
            return f"shape {a.shape}"
        if a.dtype == object or a.dtype == np.uint8:
            if not np.array_equal(a, b):
                return f"{a.ravel()[:5]} for {b.ravel()[:5]}"
        elif not np.all(np.abs(a - b) <= 1e-5 * np.maximum(1, np.abs(b))):
            return f"off by {np.max(np.abs(a - b))}"
    return None


def main(libraries):
    saved_model, good, bad, seconds = pickle.load(sys.stdin.buffer)
    session = Session(library(libraries), saved_model)
    expected = [session.run(*job) for job in good]
    batches = Batches(session)
    failures, counts, again, growth = [], [0] * 6, [0] * 4, []
    end = time.monotonic() + seconds

    def good_caller(caller):
        choose = random.Random(caller)
        while time.monotonic() < end or counts[4] + counts[5] < len(bad):
            i = choose.randrange(len(good))
            while (answer := batches.run(good[i], True)) is DIFFERENT:
                again[caller] += 1
            if wrong := differ(answer, expected[i]):
                failures.append((i, wrong))
            counts[caller] += 1

    def bad_caller(caller):
        i = caller - 4
        while time.monotonic() < end or counts[caller] < len(bad) / 2:
            batches.run(bad[i % len(bad)], False)
            counts[caller] += 1
            i += 2

    threads = [
        threading.Thread(target=bad_caller if caller > 3 else good_caller, args=[caller])
        for caller in range(6)
    ]
    for thread in threads:
        thread.start()
    # Memory settles once each kind of request has been seen.
    while time.monotonic() < end - 2 * seconds / 3 or counts[4] + counts[5] < len(bad) / 3:
        time.sleep(0.05)
    growth.append(memory())
    for thread in threads:
        thread.join()
    counted = sum(counts[:4]), sum(counts[4:]), batches.mixed, sum(again)
    pickle.dump((failures[:20], *counted, memory() - growth[0]), sys.stdout.buffer)


if __name__ == "__main__":
    main(*sys.argv[1:])
