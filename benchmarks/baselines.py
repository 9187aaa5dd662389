"""The figure a flow has to beat: test bits/dim of the best Gaussian mixture of scikit-learn.

    python -m benchmarks.baselines digits

Full-covariance mixtures are fitted to the dequantised training images, once as pixels in [0, 1)
and once behind Real NVP's logit (alpha 0.05, its log-det counted). The number of components and
`reg_covar` are chosen on the validation split. Noise and initialisation come from fixed seeds.

A mixture that sees one draw of the noise for each training image overfits it. A flow draws
afresh at each step, so the mixture is also fitted to several draws of each image, which is the
stronger baseline; `fit_draws` tells the two apart. Scores are means over `SCORE_DRAWS` draws.

It prints a JSON line for each candidate, one for the best of each space and number of draws
(`"best_of"`), and last the best of all.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator

import numpy as np
from sklearn.mixture import GaussianMixture

import tfnvp.data

ALPHA = 0.05
FIT_DRAWS = (1, 4)  # Ten draws were no better than four.
SCORE_DRAWS = 4
# The spaces differ in scale and want other regularisers; each range has the best in its interior.
GRIDS = {
    "logit": {"components": (5, 10, 15, 20), "reg_covar": (0.03, 0.06, 0.1)},
    "pixels": {"components": (5, 10, 15), "reg_covar": (1e-4, 3e-4, 1e-3, 3e-3)},
}


def dequantise(images: np.ndarray, levels: int, draws: int, seed: int) -> np.ndarray:
    """Makes float64 [draws * N, D] in [0, 1) of uint8 [N, H, W, C], with uniform noise."""
    pixels = np.tile(images.reshape(len(images), -1).astype(np.float64), (draws, 1))
    return (pixels + np.random.RandomState(seed).uniform(size=pixels.shape)) / levels


def to_space(x: np.ndarray, space: str) -> tuple[np.ndarray, np.ndarray]:
    """Maps pixels [N, D] to the space of a mixture, [N, D]; returns the log-det too, [N]."""
    if space == "pixels":
        return x, np.zeros(len(x))
    p = ALPHA + (1 - 2 * ALPHA) * x
    log_p, log_q = np.log(p), np.log1p(-p)
    return log_p - log_q, np.sum(np.log(1 - 2 * ALPHA) - log_p - log_q, axis=1)


def bits_per_dim(mixture: GaussianMixture, x: np.ndarray, space: str, levels: int) -> float:
    """The mean over x [N, D] of -log2 p(x) / D + log2(levels)."""
    y, log_det = to_space(x, space)
    log_prob = mixture.score_samples(y) + log_det
    return float(-log_prob.mean() / (np.log(2) * x.shape[1]) + np.log2(levels))


def candidates(dataset: str) -> Iterator[dict]:
    """Fits every candidate; yields a record of each."""
    levels = tfnvp.data.info(dataset).levels
    images = {
        split: np.stack(list(tfnvp.data.load(dataset, split, shuffle=False).as_numpy_iterator()))
        for split in tfnvp.data.SPLITS
    }
    validation = dequantise(images["validation"], levels, SCORE_DRAWS, seed=1)
    test = dequantise(images["test"], levels, SCORE_DRAWS, seed=2)
    for space, fit_draws in itertools.product(GRIDS, FIT_DRAWS):
        y, _ = to_space(dequantise(images["train"], levels, fit_draws, seed=0), space)
        for components, reg_covar in itertools.product(*GRIDS[space].values()):
            start = time.perf_counter()
            mixture = GaussianMixture(components, reg_covar=reg_covar, random_state=0).fit(y)
            yield {
                "benchmark": "gaussian_mixture",
                "dataset": dataset,
                "space": space,
                "fit_draws": fit_draws,
                "components": components,
                "reg_covar": reg_covar,
                "validation_bits_per_dim": bits_per_dim(mixture, validation, space, levels),
                "test_bits_per_dim": bits_per_dim(mixture, test, space, levels),
                "seconds": time.perf_counter() - start,
            }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.baselines", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("dataset", choices=["digits"])
    dataset = parser.parse_args().dataset
    groups: dict[str, list[dict]] = {}
    for record in candidates(dataset):
        print(json.dumps(record), flush=True)
        for group in (f"{record['space']}, {record['fit_draws']} draws", "all"):
            groups.setdefault(group, []).append(record)
    for group in sorted(groups, key=lambda group: group == "all"):
        best = min(groups[group], key=lambda record: record["validation_bits_per_dim"])
        print(json.dumps({"best_of": group, **best}), flush=True)


if __name__ == "__main__":
    main()
