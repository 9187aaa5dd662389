"""How fast a preset trains and scores on a GPU: all exports in one call, by JAX alone.

    python -m benchmarks.gpu prepare DIRECTORY [--preset cifar10] [--batch 64 256]
    python benchmarks/gpu.py run DIRECTORY [--runs 20] [--minutes 8]

The first line writes the preset's train step and log_prob in float32 and in mixed bfloat16, which
takes TensorFlow; DIRECTORY is small enough to be carried (the weights, as they are before training,
are rounded to bfloat16 and stored once). The second needs numpy and JAX, and runs each of them,
float32 with and without TF32. It prints a JSON line for each, with images a second and the rate of
the convolutions as a share of the rate at which the same chip multiplies large matrices of the same
kind; what fails or finds no time left is a line too.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

# It is a script beside this one where the package `benchmarks` cannot be imported.
RUNNER = Path(__file__).with_name("run_stablehlo.py")
#: For each kind of arithmetic: the policy, and NVIDIA_TF32_OVERRIDE, which switches TF32 off by 0.
KINDS = {"float32": ("float32", "0"), "tf32": ("float32", "1"), "bf16": ("mixed_bfloat16", "1")}


def prepare(directory, preset, batches):
    """Writes the exports of a preset into a directory."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import ml_dtypes

    import tfnvp

    shared = {}
    directory.mkdir(parents=True)
    for policy in ("float32", "mixed_bfloat16"):
        # A second model would have another name, and its weights be stored as others.
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        model = tfnvp.ImageRealNVP.from_preset(preset, dtype=policy)
        model.compile(tfnvp.optimizers.Adam(1e-3, global_clipnorm=100.0))
        for variable in model.variables:
            variable.assign(variable.numpy().astype(ml_dtypes.bfloat16).astype(variable.dtype))
        for what in ("log_prob", "train_step"):
            for batch in batches:
                path = directory / f"{policy}-{what}-{batch}"
                tfnvp.export_stablehlo(model, path, what, batch)
                _shrink(path, shared)
                print(f"{path.name} is written", file=sys.stderr)
    np.savez_compressed(directory / "weights.npz", **shared)


def _shrink(path, shared):
    """Takes out of an export the weights that all exports share, and packs the module."""
    with np.load(path / "weights.npz") as weights:
        own = {}
        for name, value in weights.items():
            if not np.array_equal(shared.setdefault(name, value), value):
                own[name] = value
    np.savez_compressed(path / "weights.npz", **own)
    module = path / "module.mlir"
    (path / "module.mlir.gz").write_bytes(gzip.compress(module.read_bytes()))
    module.unlink()


def run(directory, runs, minutes):
    """Yields a record for each export and kind of arithmetic."""
    deadline = time.monotonic() + 60 * minutes
    with np.load(directory / "weights.npz") as weights:
        shared = dict(weights)
    rates = {kind: _output([__file__, "matrices", kind], kind, deadline) for kind in KINDS}
    exports = sorted(path for path in directory.iterdir() if path.is_dir())
    for path in exports:
        for kind, (policy, _) in KINDS.items():
            if not path.name.startswith(f"{policy}-"):
                continue
            with tempfile.TemporaryDirectory() as unpacked:
                _unpack(path, shared, Path(unpacked))
                record = _output([RUNNER, unpacked, "--runs", str(runs)], kind, deadline)
            record = {"export": path.name, "arithmetic": kind, **record}
            if "convolution_teraflops" in record and "teraflops" in rates[kind]:
                share = record["convolution_teraflops"] / rates[kind]["teraflops"]
                record |= {"matrix_teraflops": rates[kind]["teraflops"], "share": share}
            yield record


def _unpack(path, shared, directory):
    signature = (path / "signature.json").read_text()
    names = {entry["name"] for entry in json.loads(signature)["arguments"][1:]}
    with np.load(path / "weights.npz") as own:
        weights = {name: value for name, value in {**shared, **own}.items() if name in names}
    np.savez(directory / "weights.npz", **weights)
    (directory / "signature.json").write_text(signature)
    (directory / "recorded.npz").write_bytes((path / "recorded.npz").read_bytes())
    text = gzip.decompress((path / "module.mlir.gz").read_bytes())
    (directory / "module.mlir").write_bytes(text)


def _output(arguments, kind, deadline):
    """Gives the JSON line that a process prints, or a record that says why there is none."""
    left = deadline - time.monotonic()
    if left <= 0:
        return {"failed": "no time is left"}
    environment = {**os.environ, "NVIDIA_TF32_OVERRIDE": KINDS[kind][1]}
    try:
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=left,
        )
    except subprocess.TimeoutExpired:
        return {"failed": "the time was over before its end"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [str(done.returncode)])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def matrices(kind, size=8192):
    """Prints the rate at which the device multiplies square matrices of a kind, teraflops."""
    import jax

    device = jax.devices()[0]
    size = size if device.platform == "gpu" else 1024
    dtype = "bfloat16" if kind == "bf16" else "float32"
    product = jax.jit(lambda x: x @ x)
    x = jax.numpy.ones([size, size], dtype)
    seconds = []
    for _ in range(12):
        started = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"teraflops": 2 * size**3 / np.median(seconds[2:]) / 1e12}))


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    actions = parser.add_subparsers(dest="action", required=True)
    action = actions.add_parser("prepare", help="write the exports (TensorFlow)")
    action.add_argument("directory", type=Path)
    action.add_argument("--preset", default="cifar10")
    action.add_argument("--batch", type=int, nargs="+", default=[64, 256])
    action = actions.add_parser("run", help="run them (JAX)")
    action.add_argument("directory", type=Path)
    action.add_argument("--runs", type=int, default=20, help="timed runs of each")
    action.add_argument("--minutes", type=float, default=8, help="how long it may take in all")
    action = actions.add_parser("matrices", help="the rate of matrix products (JAX)")
    action.add_argument("kind", choices=sorted(KINDS))
    args = parser.parse_args()
    if args.action == "prepare":
        prepare(args.directory, args.preset, args.batch)
    elif args.action == "matrices":
        matrices(args.kind)
    else:
        for record in run(args.directory, args.runs, args.minutes):
            print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
