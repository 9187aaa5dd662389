"""Measures what checking and padding on the host costs, beside a train step: see docs/devices.md.

    python -m benchmarks.host_checks --preset cifar10_small --batch 32

prints milliseconds a batch of the data's pipeline, without and with the checks of a model that XLA
compiles, those of a train step without XLA, and the checks' share of the step.
"""

import argparse
import statistics
import time

import numpy as np
import tensorflow as tf

import tfnvp
from tfnvp.models.host_checks import check_on_the_host, dataset_of


def milliseconds(run, times):
    """Gives the median time of so many runs."""
    seconds = []
    for _ in range(times):
        before = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - before)
    return 1000 * statistics.median(seconds)


def a_batch(data, batches):
    """Gives a function of which a run takes a batch; it goes on without end."""
    iterator = iter(data.repeat())
    for _ in range(batches):
        next(iterator)
    return lambda: next(iterator)


def main():
    """Prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="cifar10_small")
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    model = tfnvp.ImageRealNVP.from_preset(arguments.preset)
    # The last batch has fewer rows, so that there is something to pad.
    shape = (100 * arguments.batch - 1, *model.image_shape)
    images = np.random.default_rng(0).integers(0, model.levels, shape, dtype=np.uint8)
    plain = dataset_of([images], arguments.batch, shuffle=True)
    model.compile(optimizer=tfnvp.optimizers.Adam(1e-3), jit_compile=True)
    given = {"x": plain}
    check_on_the_host(model, "fit", given)
    # They are prefetched beside a step: without one, a batch takes as long as it takes to make.
    without, checked = (milliseconds(a_batch(x, 20), 300) for x in (plain, given["x"]))
    model.compile(optimizer=tfnvp.optimizers.Adam(1e-3), jit_compile=False)
    batch = tf.constant(images[: arguments.batch])
    for _ in range(2):
        model.train_on_batch(batch)
    step = milliseconds(lambda: model.train_on_batch(batch), 15)
    print(f"a batch: {without:.3f} ms, checked and padded {checked:.3f} ms")
    print(f"a train step: {step:.1f} ms; the checks are {(checked - without) / step:.2%} of it")


if __name__ == "__main__":
    main()
