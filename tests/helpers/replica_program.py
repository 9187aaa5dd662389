"""The rest of what goes on under MirroredStrategy, for a process of its own."""

import json
import os
import resource
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfnvp

random = np.random.RandomState(0)
ROWS = random.normal(size=(32, 2)).astype("float32")


def devices(count):
    """Makes so many logical CPUs."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * count
    )
    # No value that is looked at depends on the optimizer of graphs.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    return [f"CPU:{i}" for i in range(count)]


def vectors(strategy, rate=1e-2):
    """Makes a small model in a strategy's scope."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=(4,))
        model.compile(optimizer=tfnvp.optimizers.Adam(rate, global_clipnorm=0.5))
    return model


def flat(model):
    """All weights in one list."""
    weights = [weight.ravel() for weight in model.get_weights() if weight.dtype.kind == "f"]
    return np.concatenate(weights).tolist()


def paths(ordinary):
    """Prints JSON: weights by the shared step and by one of TensorFlow's ordinary paths."""
    names = devices(2)
    results = {}
    for name in ("shared", ordinary):
        own = {"cross_device_ops": tf.distribute.ReductionToOneDevice()}
        options = own if name == "own" else {}
        os.environ["TFNVP_PLAIN_REPLICAS"] = "1" if name == "plain" else ""
        model = vectors(tf.distribute.MirroredStrategy(names, **options))
        losses = model.fit(ROWS, batch_size=12, epochs=3, shuffle=False, verbose=0).history["loss"]
        shares = model._shared_step is not None
        results[name] = {"losses": losses, "weights": flat(model), "shares": shares}
        results[name]["predicted"] = model.predict(ROWS, batch_size=12, verbose=0).tolist()
        results[name]["log_prob"] = tf.function(model.distribution.log_prob)(ROWS).numpy().tolist()
    print(json.dumps(results))


def faults():
    """Prints JSON: how a step ends in which one of two replicas fails, and what comes after."""
    model = vectors(tf.distribute.MirroredStrategy(devices(2)))
    model.fit(ROWS, batch_size=8, verbose=0)
    before, wrong = flat(model), ROWS.copy()
    wrong[4] = np.nan  # It is the second replica's.
    began = time.monotonic()
    try:
        model.fit(wrong, batch_size=8, shuffle=False, verbose=0)
        message = "none"
    except ValueError as error:
        message = str(error)
    seconds = time.monotonic() - began
    unmoved = flat(model) == before
    (loss,) = model.fit(ROWS, batch_size=8, verbose=0).history["loss"]
    print(json.dumps({"message": message, "seconds": seconds, "unmoved": unmoved, "loss": loss}))


def long_runs(count):
    """Prints JSON: memory in MB and traces as two models train in turns, with evaluations."""
    strategy = tf.distribute.MirroredStrategy(devices(count))
    models = [vectors(strategy, rate) for rate in (1e-3, 1e-2)]
    traces = []
    for model in models:
        optimize = model.optimize
        model.optimize = lambda *args, run=optimize: traces.append(1) or run(*args)
    data = tf.data.Dataset.from_tensor_slices(ROWS).batch(16).repeat()
    memory, traced = [], []
    for _ in range(6):
        for model in models:
            model.fit(data, steps_per_epoch=250, verbose=0, shuffle=False)
            model.evaluate(ROWS[:20], batch_size=8, verbose=0)
        status = Path("/proc/self/status").read_text()
        memory.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
        traced.append(len(traces))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"memory": memory, "traced": traced, "peak": peak}))
