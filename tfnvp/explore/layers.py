"""Two-dimensional flows layer by layer, for the page: what becomes of latents, and of data."""

import dataclasses

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp.bijectors import inverse_and_log_det
from tfnvp.bijectors.coupling import Coupling
from tfnvp.models import VectorRealNVP

tfb = tfp.bijectors

#: Cells of the density, each way.
CELLS = 120
_TICKS, _FINE = np.linspace(-2, 2, 9), np.linspace(-2, 2, 200)
_NAMES = {
    "InvertibleConv1x1": "matrix",
    "ElementwiseSpline": "curves of the columns",
    "LogTails": "tails",
    "Standardization": "units of the data",
    "OpenedCells": "cells of common values",
}


@dataclasses.dataclass(frozen=True)
class Step:
    """The flow after some of its layers.

    Attributes:
        name: the last of these layers.
        low, high: the part of the plane that is shown, [2] each.
        density: of latents pushed through the layers, float [CELLS, CELLS], rows along the second
            coordinate, at the middles of the part's cells.
        lines: the grid of latents pulled through the layers, float [lines, points, 2].
        points: data brought back to here, float [N, 2].
    """

    name: str
    low: np.ndarray
    high: np.ndarray
    density: np.ndarray
    lines: np.ndarray
    points: np.ndarray


def steps(flow: VectorRealNVP, points: np.ndarray, label: int | None = None) -> list[Step]:
    """Goes through the layers of a flow, from latents to data.

    A coupling is one step with the matrix that stands before it; the last step is the density of
    the data.

    Args:
        flow: a model of vectors [2].
        points: data, float [N, 2].
        label: the class of p(x | y); None for p(x).

    Returns:
        A `Step` for the latents, and one after each layer.

    Raises:
        ValueError: for vectors of another size, and labels that the model has no use for.

    Example:
        >>> import numpy as np
        >>> from tfnvp.explore import layers
        >>> flow = tfnvp.VectorRealNVP(2, num_couplings=2)
        >>> [step.name for step in layers.steps(flow, np.zeros([1, 2]))][:3]
        ['latents', 'coupling 2 and matrix', 'coupling 1 and matrix']
    """
    if flow.event_size != 2:
        raise ValueError(
            "explore is of images and of vectors of 2 dimensions, this model has vectors of "
            f"{flow.event_size}"
        )
    if flow.condition.context_size and not flow.condition.label_dropout:
        raise ValueError(
            "explore draws p(x), or p(x | y) of classes y; this model has neither, but float "
            f"vectors of {flow.condition.context_size} as labels, without label_dropout"
        )
    distribution = flow.distribution_for(labels=label)
    base, parts = distribution.distribution, list(reversed(distribution.bijector.bijectors))
    groups = _groups(parts)
    lines = [np.stack([np.full_like(_FINE, tick), _FINE], axis=-1) for tick in _TICKS]
    lines = np.stack([*lines, *(line[:, ::-1] for line in lines)]).astype(flow.variable_dtype)
    points = tf.cast(points, flow.variable_dtype)
    found, before = [], []
    for name, layers in [("latents", []), *groups]:
        for layer in layers:
            lines = np.asarray(layer.forward(lines.reshape(-1, 2))).reshape(lines.shape)
        before += layers
        after = parts[len(before) :]
        here = np.asarray(_chain(after).inverse(points)) if after else points.numpy()
        low, high = _window(here, lines) if before else (np.full(2, -4.0), np.full(2, 4.0))
        density = _density(base, _chain(before) if before else None, low, high)
        found.append(Step(name, low, high, density, lines, here))
    return found


def _chain(parts: list[tfb.Bijector]) -> tfb.Chain:
    """Chains parts that stand in the order in which latents go through them."""
    return tfb.Chain(list(reversed(parts)))


def _groups(parts: list[tfb.Bijector]) -> list[tuple[str, list[tfb.Bijector]]]:
    """Names the layers, each coupling together with the matrix that follows it."""
    left = sum(isinstance(part, Coupling) for part in parts)
    groups = []
    for part in parts:
        name = _NAMES.get(type(part).__name__, type(part).__name__)
        if isinstance(part, Coupling):
            groups.append((f"coupling {left}", [part]))
            left -= 1
        elif name == "matrix" and groups:
            name, coupling = groups[-1]
            groups[-1] = f"{name} and matrix", [*coupling, part]
        else:
            groups.append((name, [part]))
    return groups


def _window(points: np.ndarray, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gives the corners of a square about the data, or about the grid where there is no data."""
    seen = points if len(points) > 1 else lines.reshape(-1, 2)
    # Few points that are far out do not make all others small.
    low, high = np.percentile(seen, [0.5, 99.5], axis=0)
    middle, half = (low + high) / 2, 0.6 * max(np.max(high - low), 1e-3)
    return middle - half, middle + half


def _density(
    base: tfp.distributions.Distribution,
    bijector: tfb.Bijector | None,
    low: np.ndarray,
    high: np.ndarray,
) -> np.ndarray:
    at = (np.arange(CELLS) + 0.5) / CELLS
    x, y = (a + (b - a) * at for a, b in zip(low, high, strict=True))
    h = tf.cast(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2), base.dtype)
    if bijector is None:
        log_prob = base.log_prob(h)
    else:
        z, log_det = inverse_and_log_det(bijector, h)
        log_prob = base.log_prob(z) + log_det
    return np.exp(np.asarray(log_prob)).reshape(CELLS, CELLS)
