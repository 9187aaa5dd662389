"""Runs an export of `tfnvp.export_stablehlo` with numpy and JAX alone, on any device.

    python benchmarks/run_stablehlo.py DIRECTORY [--runs N]
    python benchmarks/run_stablehlo.py DIRECTORY --images x.npy --steps N [--write weights.npz]

It compiles the module, checks its results against the recorded ones, and times it: a JSON line has
runs and images a second, and the rate of the floating-point operations of its convolutions. With
`--images` it trains a `train_step` for N steps on batches drawn from an array of uint8 images [M,
H, W, C] (or of float32 vectors [M, D]), prints each loss, and writes the variables, weights and
optimizer state, by name.
"""

import argparse
import itertools
import json
import math
import re
import statistics
import time
from pathlib import Path

import jax
import numpy as np

# JAX has no public way to run a module that it did not trace itself.
from jax._src.interpreters import mlir
from jax._src.lib import xla_client
from jax.extend import backend as jax_backend
from jax.extend.mlir import ir

# Counters are int64, which JAX has only if it is told.
jax.config.update("jax_enable_x64", True)


class Module:
    """A compiled export and its variables, which stay on the device."""

    def __init__(self, directory):
        directory = Path(directory)
        self.signature = json.loads((directory / "signature.json").read_text())
        with np.load(directory / "recorded.npz") as recorded:
            self.recorded = dict(recorded)
        self.device = jax.devices()[0]
        client = self.device.client
        options = jax_backend.get_compile_options(
            num_replicas=1, num_partitions=1, device_assignment=[[self.device.id]]
        )
        text = (directory / "module.mlir").read_text()
        self.flops = convolution_flops(text)
        with mlir.make_ir_context():
            module = ir.Module.parse(text)
            devices = xla_client.DeviceList((self.device,))
            self.executable = client.compile_and_load(module, devices, options)
        with np.load(directory / "weights.npz") as weights:
            self.load(weights)

    def load(self, weights):
        """Puts the variables, arrays by name, on the device."""
        names = [entry["name"] for entry in self.signature["arguments"][1:]]
        self.variables = {name: jax.device_put(weights[name], self.device) for name in names}

    @property
    def batch_size(self):
        """How many rows the argument has, or the result where the argument is a seed."""
        sample = self.signature["what"] == "sample"
        return self.signature["results" if sample else "arguments"][0]["shape"][0]

    def __call__(self, argument):
        """Returns the result for an argument, and keeps the variables that the module changes."""
        dtype = self.signature["arguments"][0]["dtype"]
        argument = jax.device_put(np.asarray(argument, dtype), self.device)
        result, *changed = self.executable.execute([argument, *self.variables.values()])
        names = [entry["name"] for entry in self.signature["results"][1:]]
        self.variables |= dict(zip(names, changed, strict=True))
        return result

    def check(self, tolerance=1e-4):
        """Compares results with TensorFlow's; returns the largest relative difference."""
        # A step takes over the memory of the variables that it changes, hence the copies.
        weights = {name: np.array(value) for name, value in self.variables.items()}
        expected = self.recorded["result"]
        if self.signature["what"] == "train_step":
            result = np.array([np.asarray(self(self.recorded["argument"])) for _ in expected])
        else:
            result = np.asarray(self(self.recorded["argument"]))
        self.load(weights)
        difference = float(np.max(np.abs(result - expected) / np.maximum(np.abs(expected), 1)))
        if not difference <= tolerance:
            raise SystemExit(f"results are not the recorded ones: off by {difference:.2g}")
        return difference


def convolution_flops(text):
    """Counts the floating-point operations of a module's convolutions, two for each product."""
    layout = r"\[[^]]*\]x\[([^]]*)\]->\[[^]]*\]"
    shapes = r"\(tensor<\S+>, tensor<([\dx]+)x\w+>\) -> tensor<([\dx]+)x\w+>"
    flops = 0
    for found in re.finditer(rf"stablehlo\.convolution\(.* = {layout}.* : {shapes}", text):
        axes = found[1].split(", ")
        kernel, result = ([int(size) for size in found[i].split("x")] for i in (2, 3))
        flops += 2 * math.prod(result) * math.prod(kernel) // kernel[axes.index("o")]
    return flops


def measure(module, runs):
    """Measures runs a second of the compiled module: the median of `runs`, after two warm-ups."""
    seconds = []
    for _ in range(runs + 2):
        started = time.perf_counter()
        jax.block_until_ready(module(module.recorded["argument"]))
        seconds.append(time.perf_counter() - started)
    return 1 / statistics.median(seconds[2:])


def train(module, images, steps, seed=0):
    """Trains on batches drawn without replacement, epoch by epoch; yields the losses.

    They are yet on the device: who reads each one at once has the device wait for the next batch.
    """
    random, order = np.random.default_rng(seed), np.zeros(0, int)
    if module.signature["what"] != "train_step":
        raise SystemExit(f"a {module.signature['what']} cannot train: export what='train_step'")
    if len(images) < module.batch_size:
        raise SystemExit(f"a step takes {module.batch_size} images, there are {len(images)}")
    for _ in range(steps):
        if len(order) < module.batch_size:
            order = random.permutation(len(images))
        batch, order = order[: module.batch_size], order[module.batch_size :]
        yield module(images[np.sort(batch)])


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--runs", type=int, default=10, help="timed runs")
    parser.add_argument("--images", type=Path, help=".npy of images to train on")
    parser.add_argument("--steps", type=int, default=100, help="training steps")
    parser.add_argument("--write", type=Path, help=".npz for the trained variables")
    args = parser.parse_args()
    started = time.perf_counter()
    module = Module(args.directory)
    compiled = time.perf_counter() - started
    record = {"what": module.signature["what"], "batch": module.batch_size}
    record |= {"device": module.device.device_kind, "compile_seconds": round(compiled, 1)}
    record["largest_difference"] = module.check()
    if args.images is None:
        rate = measure(module, args.runs)
        record |= {"runs_per_second": rate, "images_per_second": rate * module.batch_size}
        if module.flops:
            record["convolution_teraflops"] = rate * module.flops / 1e12
        print(json.dumps(record))
        return
    print(json.dumps(record))
    losses = enumerate(train(module, np.load(args.images), args.steps))
    while some := list(itertools.islice(losses, 100)):
        for step, loss in some:
            print(json.dumps({"step": step + 1, "loss": float(loss)}), flush=True)
    if args.write:
        np.savez(args.write, **{name: np.asarray(v) for name, v in module.variables.items()})


if __name__ == "__main__":
    main()
