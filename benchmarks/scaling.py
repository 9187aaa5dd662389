"""The cost of distribution: steps a second and seconds to the first step, by replicas and workers.

    python -m benchmarks.scaling [--preset cifar10_small] [--batch 32] [--steps 8]
        [--unsynchronized] [--cases "one device" "2 replicas" ...]

The same global batch runs on one device, on 2 and 4 replicas of MirroredStrategy (logical CPU
devices) and on 1 and 2 workers of MultiWorkerMirroredStrategy (processes on 127.0.0.1), each in
processes of their own and one after the other, all on the same cores: the overhead is the figure of
interest. Each has a JSON line, in which `time_ratio` is a step's time over that on one device. A
step is a call of Keras' own train function, and its time the median after three that warm up; the
first step's time begins with the model's construction and includes tracing.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time

CASES = {
    "one device": {},
    "2 replicas": {"replicas": 2},
    "4 replicas": {"replicas": 4},
    "1 worker": {"workers": 1},
    "2 workers": {"workers": 2},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cifar10_small")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--unsynchronized", action="store_true")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments, CASES[arguments.child])))
        return
    base = None
    for case in arguments.cases:
        figures = run(case, CASES[case].get("workers", 0))
        base = base or figures["step_seconds"]
        ratio = round(figures["step_seconds"] / base, 3)
        options = {"preset": arguments.preset, "batch": arguments.batch}
        options["synchronized"] = not arguments.unsynchronized
        print(json.dumps({"case": case, **options, **figures, "time_ratio": ratio}), flush=True)


def run(case, workers):
    """Runs a case in processes of its own; returns the figures of the first."""
    command = [sys.executable, "-m", "benchmarks.scaling", *sys.argv[1:], "--child", case]
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(workers)]
    addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    processes = []
    for index in range(max(1, workers)):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        if workers:
            task = {"type": "worker", "index": index}
            config = {"cluster": {"worker": addresses}, "task": task}
            environment["TF_CONFIG"] = json.dumps(config)
        processes.append(
            subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"{case}: a process failed; run {' '.join(command)}")
    return json.loads(outputs[0].splitlines()[-1])


def measure(arguments, case):
    """Measures steps a second and seconds to the first step, in this process."""
    import numpy as np
    import tensorflow as tf

    replicas = case.get("replicas", 1)
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(cpu, devices)
    if "workers" in case:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    elif replicas > 1:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
    else:
        strategy = tf.distribute.get_strategy()
    import tfnvp

    begun = time.perf_counter()
    with strategy.scope():
        model = tfnvp.ImageRealNVP.from_preset(
            arguments.preset, synchronized=not arguments.unsynchronized
        )
        model.compile(optimizer=tfnvp.optimizers.Adam(1e-3, global_clipnorm=100.0))
    images = np.random.default_rng(0).integers(
        0, model.levels, (arguments.batch, *model.image_shape), dtype=np.uint8
    )
    data = tf.data.Dataset.from_tensors(images).repeat()
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    batches = iter(strategy.experimental_distribute_dataset(data.with_options(options)))
    model.make_train_function()
    step = model.train_function
    seconds = []
    for _ in range(3 + arguments.steps):
        started = time.perf_counter()
        float(np.mean(step(batches)["loss"]))
        seconds.append(time.perf_counter() - started)
        if len(seconds) == 1:
            first = time.perf_counter() - begun
    step_seconds = statistics.median(seconds[3:])
    return {
        "steps_per_second": round(1 / step_seconds, 3),
        "step_seconds": round(step_seconds, 4),
        "first_step_seconds": round(first, 1),
    }


if __name__ == "__main__":
    main()
