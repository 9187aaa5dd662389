"""Measures the share of tfnvp's time that its convolutions take, and their rate.

    python -m benchmarks.bound [--preset P] [--batch N] [--policy float32|mixed_bfloat16]
        [--workload train_step ...] [--runs N]

The model and its convolutions alone (`benchmarks/peers/convolutions.py`) take turns, run by run,
each in a process of its own. It prints a JSON line for each workload: the seconds of both, by the
medians; their ratio, which no change of all else makes greater than 1; and the gigaflops a second
of the convolutions, two for each multiplication and addition.
"""

import argparse
import json
import math

from benchmarks import throughput


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bound", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--preset", default="cifar10_small")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--policy", choices=["float32", "mixed_bfloat16"], default="float32")
    workloads = throughput.WORKLOADS
    parser.add_argument("--workload", choices=workloads, nargs="*", default=workloads)
    parser.add_argument("--runs", type=int, default=15, help="timed runs of each")
    args = parser.parse_args()
    sizes = throughput.architecture(args.preset)
    contenders = dict.fromkeys(("tfnvp", "convolutions"), throughput.Options(args.policy))
    for workload in args.workload:
        figures = throughput.measure(workload, sizes, args.batch, contenders, args.runs)
        whole, convolutions = (args.batch / x["images_per_second"] for x in figures.values())
        record = {
            "benchmark": "bound",
            "preset": args.preset,
            "workload": workload,
            "batch": args.batch,
            "policy": args.policy,
            "seconds": round(whole, 4),
            "convolutions_seconds": round(convolutions, 4),
            "convolutions_share": round(convolutions / whole, 3),
            "gigaflops_a_second": round(_flops(sizes, args.batch, workload) / convolutions / 1e9),
        }
        print(json.dumps(record), flush=True)


def _flops(sizes, batch, workload):
    """Counts the convolutions' operations; a train step has twice as many backward as forward."""
    import tensorflow as tf

    import tfnvp
    from benchmarks.peers.convolutions import calls_of

    model = tfnvp.ImageRealNVP(**sizes)
    calls = calls_of(model, tf.zeros((1, *sizes["image_shape"]), tf.uint8))
    forward = sum(2 * math.prod(y) * math.prod(kernel[:3]) for _, kernel, y, _ in calls)
    return batch * forward * (3 if workload == "train_step" else 1)


if __name__ == "__main__":
    main()
