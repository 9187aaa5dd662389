"""VectorRealNVP on two moons against the best Gaussian mixture of scikit-learn, in test nats.

    python -m benchmarks.moons [--seed N]

Both learn 10,000 points of `make_moons(noise=0.05)` and are scored by their mean log-likelihood on
10,000 others. The flow has the model's default sizes and trains for less than a minute on two
cores. The mixtures have 3 to 50 components, and the best is chosen on the test points, in its
favour.

It prints a JSON line for the flow, with the integral of its density over a grid, one for each
mixture, and last the comparison: `ahead` is the flow's figure less the best mixture's.
"""

import argparse
import json
import time
from collections.abc import Iterator

import keras
import numpy as np
from sklearn.datasets import make_moons
from sklearn.mixture import GaussianMixture

import tfnvp
from tfnvp.training.recipes.moons import integral

COMPONENTS = range(3, 51)
EPOCHS = 120
BATCH_SIZE = 256
LEARNING_RATE = 4e-3
WARMUP_STEPS = 200


def moons(seed: int) -> np.ndarray:
    """10,000 points [N, 2], float32; seed 0 trains and seed 1 tests."""
    return make_moons(10_000, noise=0.05, random_state=seed)[0].astype("float32")


def train(x: np.ndarray, seed: int) -> tfnvp.VectorRealNVP:
    """A flow of the default sizes, fitted to x."""
    keras.utils.set_random_seed(seed)
    model = tfnvp.VectorRealNVP(x.shape[1])
    model.adapt(x)
    steps = EPOCHS * -(-len(x) // BATCH_SIZE)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - WARMUP_STEPS, warmup_target=LEARNING_RATE, warmup_steps=WARMUP_STEPS
    )
    # A step takes a few milliseconds, and Keras' loop around each would take as long.
    model.compile(optimizer=keras.optimizers.Adam(rate), steps_per_execution=20)
    model.fit(x, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0)
    return model


def mixtures(x: np.ndarray, test: np.ndarray) -> Iterator[dict]:
    """Fits every mixture; yields a record of each."""
    for components in COMPONENTS:
        start = time.perf_counter()
        mixture = GaussianMixture(components, random_state=0).fit(x)
        yield {
            "benchmark": "moons",
            "model": "gaussian_mixture",
            "components": components,
            "test_log_prob": float(mixture.score(test)),
            "seconds": time.perf_counter() - start,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.moons", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--seed", type=int, default=0, help="seeds the flow's weights and batches")
    seed = parser.parse_args().seed
    x, test = moons(0), moons(1)

    start = time.perf_counter()
    model = train(x, seed)
    seconds = time.perf_counter() - start
    flow = {
        "benchmark": "moons",
        "model": "vector_real_nvp",
        "seed": seed,
        "test_log_prob": float(np.mean(model.log_prob(test))),
        "integral": integral(model),
        "parameters": model.count_params(),
        "seconds": seconds,
    }
    print(json.dumps(flow), flush=True)
    best = None
    for record in mixtures(x, test):
        print(json.dumps(record), flush=True)
        if best is None or record["test_log_prob"] > best["test_log_prob"]:
            best = record
    comparison = {
        "benchmark": "moons",
        "vector_real_nvp": flow["test_log_prob"],
        "best_mixture": best["test_log_prob"],
        "best_components": best["components"],
        "ahead": flow["test_log_prob"] - best["test_log_prob"],
    }
    print(json.dumps(comparison), flush=True)


if __name__ == "__main__":
    main()
