"""How fast this checkout is beside another version's: the two take turns, run by run.

    git worktree add --detach ../before COMMIT
    python -m benchmarks.versions ../before [--preset P] [--batch N]
        [--policy float32|mixed_bfloat16] [--workload train_step ...] [--pairs N]

It prints a JSON line for each workload: the median over pairs of runs of the seconds of this
checkout by those of the other, and the seconds from the model's construction to the end of the
first step of each, imports aside. A ratio over 1 says that this checkout is slower.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


def answer(architecture, workload, batch, policy):
    """Does a run for each line of the standard input, and prints its seconds."""
    import numpy as np

    # They are the other version's, where that is asked.
    from benchmarks import throughput
    from benchmarks.peers import tfnvp_model

    architecture = json.loads(architecture)
    images = np.random.default_rng(0).integers(
        0, architecture.get("levels", 256), (int(batch), *architecture["image_shape"]), np.uint8
    )
    started = time.perf_counter()
    contender = tfnvp_model.Contender(architecture, throughput.Options(policy))
    images = contender.prepare(images)
    run = getattr(contender, workload)
    run(images)
    print(time.perf_counter() - started, flush=True)
    for _ in range(throughput.WARM_UPS):
        run(images)
    for _ in sys.stdin:
        started = time.perf_counter()
        run(images)
        print(time.perf_counter() - started, flush=True)


class Version:
    """A process that imports tfnvp and its benchmarks from a checkout.

    Args:
        checkout: a directory.
        arguments: those of `answer`, strings.
    """

    def __init__(self, checkout, *arguments):
        # With -P Python does not look for modules beside this file.
        self.process = subprocess.Popen(
            [sys.executable, "-P", __file__, "--answer", *arguments],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout), "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.first_step_seconds = self._seconds()

    def _seconds(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the version in {self.process.args} ended: see what it printed")
        return float(line)

    def run(self):
        """Has one run done; returns its seconds."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._seconds()

    def end(self):
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()


def main():
    """Runs the command line."""
    if sys.argv[1:2] == ["--answer"]:
        answer(*sys.argv[2:])
        return
    from benchmarks import throughput

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.versions", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("other", type=Path, help="a checkout of the other version")
    parser.add_argument("--preset", default="cifar10_small")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--policy", choices=["float32", "mixed_bfloat16"], default="float32")
    workloads = ["train_step", "log_prob", "sample"]
    parser.add_argument("--workload", choices=workloads, nargs="*", default=workloads)
    parser.add_argument("--pairs", type=int, default=25, help="timed runs of each")
    args = parser.parse_args()
    architecture = json.dumps(throughput.architecture(args.preset))
    for workload in args.workload:
        arguments = (architecture, workload, str(args.batch), args.policy)
        before, now = Version(args.other.resolve(), *arguments), Version(HERE, *arguments)
        ratios = []
        for i in range(args.pairs):
            # Who comes second finds other caches than who comes first.
            order = (before, now) if i % 2 else (now, before)
            seconds = {version: version.run() for version in order}
            ratios.append(seconds[now] / seconds[before])
        record = {
            "benchmark": "versions",
            "preset": args.preset,
            "workload": workload,
            "batch": args.batch,
            "policy": args.policy,
            "pairs": args.pairs,
            "seconds_by_those_of_before": round(statistics.median(ratios), 3),
            "first_step_seconds": round(now.first_step_seconds, 1),
            "first_step_seconds_before": round(before.first_step_seconds, 1),
        }
        for version in (before, now):
            version.end()
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
