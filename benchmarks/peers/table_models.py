"""The contenders of `benchmarks.tables`: each fits rows and gives a function of scores.

A contender takes training rows [N, D], validation rows or None, and a seed. It returns a function
from rows [N, D] to log-densities [N], or to other scores that are low where a row is unusual; or
several of them, by the names of the lines that they get.
Those without validation rows hold out a tenth of the training rows. They are imported where they
are used, so that a process has no more of them than its own.
"""

import numpy as np


def tfnvp(training, validation, seed):
    """`tfnvp.sklearn.FlowDensity` as it comes: log p, and for anomalies its `unusualness`, too."""
    from tfnvp.sklearn import FlowDensity

    if validation is not None:
        training = np.concatenate([training, validation[: len(training) // 8]])
        return FlowDensity(random_state=seed).fit(training).score_samples
    density = FlowDensity(random_state=seed).fit(training)
    return {"tfnvp": lambda x: -density.unusualness(x), "tfnvp_log_p": density.score_samples}


def mixture(training, validation, seed):
    """A Gaussian mixture of full covariances, its components chosen by validation."""
    from sklearn.mixture import GaussianMixture

    training, validation, prepare = _prepared(training, validation, seed)
    found = []
    for components in (1, 2, 4, 8, 16, 32):
        try:
            model = GaussianMixture(components, random_state=seed).fit(training)
            found.append((model.score(validation), components, model))
        except ValueError:  # Too many components for the rows collapse.
            continue
    best = max(found)[2]
    return lambda x: best.score_samples(prepare(x))


def kernel(training, validation, seed):
    """A kernel density, its bandwidth chosen by validation."""
    from sklearn.neighbors import KernelDensity

    training, validation, prepare = _prepared(training, validation, seed)
    bandwidths = (0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)
    fitted = [KernelDensity(bandwidth=bandwidth).fit(training) for bandwidth in bandwidths]
    best = max(fitted, key=lambda model: model.score(validation[:1000]))
    return lambda x: best.score_samples(prepare(x))


def neighbours(training, validation, seed):
    """The mean distance to the five nearest neighbours, of standardised columns."""
    from sklearn.neighbors import NearestNeighbors

    mean, scale = _moments(training)
    index = NearestNeighbors(n_neighbors=5).fit((training - mean) / scale)
    return lambda x: -index.kneighbors((x - mean) / scale)[0].mean(axis=1)


def forest(training, validation, seed):
    """scikit-learn's isolation forest as it comes."""
    from sklearn.ensemble import IsolationForest

    return IsolationForest(random_state=seed).fit(training).score_samples


def zuko_realnvp(training, validation, seed):
    """zuko's RealNVP of 8 x (64, 64), stopped by validation, with its best weights."""
    return _zuko("RealNVP", 8, training, validation, seed)


def zuko_nsf(training, validation, seed):
    """zuko's autoregressive splines of 3 x (64, 64), stopped by validation."""
    return _zuko("NSF", 3, training, validation, seed)


def _zuko(name, transforms, training, validation, seed, epochs=300, patience=20):
    import torch
    import zuko

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    training, validation, prepare = _prepared(training, validation, seed)
    rows, held_out = (torch.tensor(x, dtype=torch.float32) for x in (training, validation))
    size = rows.shape[1]
    flow = getattr(zuko.flows, name)(size, transforms=transforms, hidden_features=(64, 64))
    optimizer = torch.optim.Adam(flow.parameters(), 1e-3)
    best, best_at, weights = -np.inf, 0, None
    for epoch in range(epochs):
        flow.train()
        for batch in torch.randperm(len(rows)).split(256):
            optimizer.zero_grad()
            loss = -flow().log_prob(rows[batch]).mean()
            loss.backward()
            optimizer.step()
        flow.eval()
        with torch.no_grad():
            score = flow().log_prob(held_out).mean().item()
        if score > best:
            best, best_at = score, epoch
            weights = {key: value.clone() for key, value in flow.state_dict().items()}
        if epoch - best_at >= patience:
            break
    flow.load_state_dict(weights)

    def score_samples(x):
        with torch.no_grad():
            return flow().log_prob(torch.tensor(prepare(x), dtype=torch.float32)).numpy()

    return score_samples


def _prepared(training, validation, seed):
    """Standardises raw rows and holds some out; rows with a validation set come prepared."""
    if validation is not None:
        return training, validation, lambda x: x
    mean, scale = _moments(training)
    order = np.random.RandomState(seed).permutation(len(training))
    rows = ((training - mean) / scale)[order]
    held_out = max(1, len(rows) // 10)
    return rows[held_out:], rows[:held_out], lambda x: (x - mean) / scale


def _moments(x):
    scale = x.std(axis=0)
    return x.mean(axis=0), np.where(scale > 0, scale, 1)
