"""The integral of a vector model's density, which heavy tails spread far."""

import numpy as np

from tfnvp.bijectors import LogTails, OpenedCells


def integral(model, points=1601, reach=15, **labels):
    """Over the plane, or the line, in steps that grow as the logarithms of the tails do."""
    size = model.event_size
    axis = np.linspace(-reach, reach, points, dtype=model.variable_dtype)
    grid = np.stack(np.meshgrid(*[axis] * size), axis=-1).reshape(-1, size)
    x, log_det = LogTails().forward_and_log_det(grid)
    scale, mean = np.array(model.standardizer.scale), np.array(model.standardizer.mean)
    # Within narrow cells steps are as narrow.
    x, of_cells = OpenedCells(model.common_values).forward_and_log_det(mean + scale * x)
    log_prob = model.log_prob(x, **labels) + log_det + of_cells + np.log(scale).sum()
    return np.exp(log_prob).sum(dtype="float64") * (axis[1] - axis[0]) ** size
