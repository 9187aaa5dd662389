"""The cost of a full run of each recipe: parameters, images, floating-point operations, hours.

    python -m benchmarks.cost [--recipe NAME ...] [--teraflops T] [--scaling S]

It prints a JSON line for each recipe of the paper's table. TensorFlow's profiler counts the
operations in the graph of `log_prob` of one image, almost all of them in convolutions; a training
step takes three times as many, for the gradient of a convolution is two of its size. Hours are an
estimate: they assume T sustained teraflops on one device (an H100 has 989 at its peak in bfloat16,
of which convolutions of 32 to 512 channels reach a small part), and S times eight times that on
eight. A recipe's images are its epochs times the published size of its training split.
"""

import argparse
import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tfnvp  # isort: skip  (keeps TensorFlow quiet)
import tensorflow as tf

from tfnvp.training import recipes

# The training splits have so many images, less those that are cut off for validation.
TRAINING_IMAGES = {
    "cifar10": 47_500,
    "imagenet32": 1_255_526,
    "imagenet64": 1_255_526,
    "lsun_bedroom": 2_972_381,
    "lsun_tower": 694_099,
    "lsun_church_outdoor": 123_702,
    "celeb_a": 162_770,
}


def operations(model):
    """Counts the floating-point operations of log_prob of one image."""
    image = tf.TensorSpec([1, *model.image_shape], tf.float32)
    graph = tf.function(model.distribution.log_prob).get_concrete_function(image).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder(
        tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    )
    counted = tf.compat.v1.profiler.profile(graph, options=options.with_empty_output().build())
    return counted.total_float_ops


def cost(name, teraflops, scaling):
    """The record of one recipe."""
    recipe = recipes.get(name)
    model = tfnvp.ImageRealNVP.from_preset(recipe.preset)
    images = recipe.epochs * TRAINING_IMAGES[name]
    flops_log_prob = operations(model)
    total = 3 * flops_log_prob * images
    hours = total / (teraflops * 1e12) / 3600
    return {
        "benchmark": "cost",
        "recipe": name,
        "parameters": model.count_params(),
        "images": images,
        "steps": recipe.epochs * -(-TRAINING_IMAGES[name] // recipe.batch_size),
        "gigaflops_log_prob": round(flops_log_prob / 1e9, 2),
        "exaflops_training": round(total / 1e18, 2),
        "hours_one_device": round(hours, 1),
        "hours_eight_devices": round(hours / (8 * scaling), 1),
    }


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--recipe", choices=TRAINING_IMAGES, nargs="*", default=TRAINING_IMAGES)
    parser.add_argument("--teraflops", type=float, default=40.0, help="sustained by one device")
    parser.add_argument("--scaling", type=float, default=0.85, help="efficiency of eight devices")
    args = parser.parse_args()
    for name in args.recipe:
        print(json.dumps(cost(name, args.teraflops, args.scaling)), flush=True)


if __name__ == "__main__":
    main()
