"""Images a second in a training step, log_prob and sample, for tfnvp and its peers.

    python -m benchmarks.throughput --preset P [--batch N] [--policy float32|mixed_bfloat16]
        [--xla] [--remat] [--data NAME] [--threads N] [--against torch ...]
        [--workload train_step ...]

It prints a JSON line for each workload: images a second (from the median of the runs after two that
warm up), seconds to the first result (from the model's construction on, which includes tracing but
no imports) and the peak of resident memory. With `--against`, the peers do the same in the same
call, each in a process of its own that waits while another runs: they take turns run by run, and a
line tells the ratio of tfnvp's images a second to each peer's. `export` is tfnvp's model exported,
of which log_prob and sample are measured. `torch` is tfnvp's architecture in PyTorch, parameter for
parameter, `torch_compiled` that model by `torch.compile`, and `jax` the same in JAX, jitted;
`torchflows` and `normflows` are the most similar models of these libraries; `tfp_idiom` is tfnvp
with couplings that run their networks for value and log-det apart; `convolutions` are tfnvp's
convolutions alone, the bound of `benchmarks.bound`. Peers compute by the policy of tfnvp, in
PyTorch by autocast; --xla and --remat are for tfnvp alone.
"""

import argparse
import dataclasses
import importlib
import json
import multiprocessing
import os
import statistics
import time
from pathlib import Path

import numpy as np

# This module must not import TensorFlow, which the processes of peers do not need.
CONTENDERS = {
    "tfnvp": ("tfnvp_model", "Contender"),
    "export": ("export_contender", "Contender"),
    "torch": ("torch_contender", "Contender"),
    "torch_compiled": ("torch_contender", "Compiled"),
    "jax": ("jax_contender", "Contender"),
    "torchflows": ("torchflows_model", "Contender"),
    "normflows": ("normflows_model", "Contender"),
    "tfp_idiom": ("tfp_idiom", "Contender"),
    "convolutions": ("convolutions", "Contender"),
}
WORKLOADS = ("train_step", "log_prob", "sample")
WARM_UPS = 2


@dataclasses.dataclass(frozen=True)
class Options:
    """How contenders compute.

    Attributes:
        policy: "float32" or "mixed_bfloat16".
        xla: whether TensorFlow compiles with XLA.
        threads: how many an operation takes; None for as many as there are cores.
        remat: whether couplings are rematerialised in training.
        data: the name of a data set whose pipeline feeds training; None for one batch in memory.
    """

    policy: str = "float32"
    xla: bool = False
    threads: int | None = None
    remat: bool = False
    data: str | None = None


def work(connection, contender, workload, architecture, batch, options):
    """Does one contender's runs, one for each message, in a process of its own."""
    module, kind = CONTENDERS[contender]
    kind = getattr(importlib.import_module(f"benchmarks.peers.{module}"), kind)
    images = np.random.default_rng(0).integers(
        0, architecture.get("levels", 256), (batch, *architecture["image_shape"]), dtype=np.uint8
    )
    started = time.perf_counter()
    competitor = kind(architecture, options)
    images = competitor.prepare(images)
    run = getattr(competitor, workload)
    result = run(images)
    first = time.perf_counter() - started
    assert np.all(np.isfinite(result)), f"{contender} gives {result}"
    for _ in range(WARM_UPS):
        run(images)
    connection.send({"first_step_seconds": first, "parameters": competitor.parameters})
    while connection.recv():
        started = time.perf_counter()
        run(images)
        connection.send(time.perf_counter() - started)
    connection.send(_peak_rss_mb())


def _peak_rss_mb():
    # The figure of getrusage would begin with that of the parent process.
    status = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in status if line.startswith("VmHWM:"))
    return int(kilobytes) / 1024


class Competitor:
    """The other end of a contender's process."""

    def __init__(self, *args):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, *args), daemon=True)
        self.process.start()
        theirs.close()  # Otherwise nobody would notice the end of the process.
        self.facts = self.connection.recv()
        self.seconds = []

    def run(self):
        """Has one run done, and keeps its time."""
        self.connection.send(True)
        self.seconds.append(self.connection.recv())

    def end(self):
        """Ends the process; returns the peak of its memory, MB."""
        self.connection.send(False)
        peak = self.connection.recv()
        self.process.join()
        return peak


def measure(workload, architecture, batch, contenders, runs):
    """Lets contenders take turns at a workload.

    Args:
        workload: one of `WORKLOADS`.
        architecture: constructor arguments of `tfnvp.ImageRealNVP`.
        batch: images a run.
        contenders: a dictionary from names to `Options`.
        runs: how many each contender does after the warm-ups.

    Returns:
        A dictionary from names to figures.
    """
    competitors = {
        name: Competitor(name, workload, architecture, batch, options)
        for name, options in contenders.items()
    }
    for _ in range(runs):
        for competitor in competitors.values():
            competitor.run()
    figures = {}
    for name, competitor in competitors.items():
        figures[name] = {
            "images_per_second": batch / statistics.median(competitor.seconds),
            "first_step_seconds": competitor.facts["first_step_seconds"],
            "peak_rss_mb": competitor.end(),
            "parameters": competitor.facts["parameters"],
        }
    return figures


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--preset", default="cifar10_small")
    parser.add_argument(
        "--override", type=json.loads, default={}, metavar="JSON", help='such as {"filters": 64}'
    )
    parser.add_argument("--batch", type=int, default=32)
    policies = ("float32", "mixed_bfloat16")
    parser.add_argument("--policy", choices=policies, default="float32")
    parser.add_argument("--xla", action="store_true", help="compile with XLA")
    parser.add_argument("--remat", action="store_true", help="rematerialise couplings")
    parser.add_argument("--data", help="data set whose pipeline feeds tfnvp's train_step")
    parser.add_argument("--threads", type=int, help="how many one operation takes")
    peers = [name for name in CONTENDERS if name != "tfnvp"]
    parser.add_argument("--against", choices=peers, nargs="*", default=[])
    parser.add_argument("--workload", choices=WORKLOADS, nargs="*", default=WORKLOADS)
    parser.add_argument("--runs", type=int, default=9, help="timed runs of each")
    args = parser.parse_args()

    sizes = architecture(args.preset) | args.override
    if "export" in args.against and ("train_step" in args.workload or "num_classes" in sizes):
        parser.error("export has no train_step and no classes: name --workload log_prob sample")
    contenders = {"tfnvp": Options(args.policy, args.xla, args.threads, args.remat, args.data)}
    contenders |= dict.fromkeys(args.against, Options(args.policy, threads=args.threads))
    for workload in args.workload:
        figures = measure(workload, sizes, args.batch, contenders, args.runs)
        for name, values in figures.items():
            record = {
                "benchmark": "throughput",
                "contender": name,
                "preset": args.preset,
                **args.override,
                "workload": workload,
                "batch": args.batch,
                "policy": contenders[name].policy,
                "remat": contenders[name].remat,
                "data": contenders[name].data,
                **{key: round(value, 2) for key, value in values.items()},
            }
            if name != "tfnvp":
                ratio = figures["tfnvp"]["images_per_second"] / values["images_per_second"]
                record["tfnvp_is_faster_by"] = round(ratio, 2)
            print(json.dumps(record), flush=True)


def architecture(preset):
    """Gives the constructor's arguments of a preset's model, a dictionary."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tfnvp.models import presets

    return presets.get(preset)


if __name__ == "__main__":
    main()
