"""tfnvp's image model in plain JAX, parameter for parameter.

Images are [N, H, W, C], in which XLA convolves on a CPU without rearranging. Parameters and
averages are trees of arrays, which `weights` takes from a `tfnvp.ImageRealNVP`; then both give the
same log_prob. Conditioners compute in `dtype`, the flow and all statistics in float32.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.peers.couplings import couplings

EPSILON, MOMENTUM = 1e-4, 0.9


class RealNVP(NamedTuple):
    """The architecture, with names as in `tfnvp.ImageRealNVP`, and the conditioners' dtype."""

    image_shape: tuple
    num_scales: int
    levels: int = 256
    alpha: float = 0.05
    dtype: str = "float32"

    def log_prob(self, params, averages, images, noise, training=False):
        """log p of uint8 images, [N], nats, and the averages after the batch."""
        x = (images + noise) / self.levels
        p = self.alpha + (1 - 2 * self.alpha) * x
        log_p, log_q = jnp.log(p), jnp.log1p(-p)
        couplings = _Couplings(params, averages, training, self.dtype)
        z, log_det = _inverse(couplings, log_p - log_q, self.num_scales)
        log_det += _sum(math.log1p(-2 * self.alpha) - log_p - log_q)
        return log_det - 0.5 * _sum(z**2 + math.log(2 * math.pi)), couplings.after

    def loss(self, params, averages, images, key):
        """Bits per dimension of a batch with the L2 of the scales, and the averages after it."""
        noise = jax.random.uniform(key, images.shape)
        log_prob, after = self.log_prob(params, averages, images, noise, training=True)
        dimensions = math.prod(self.image_shape)
        bits = -log_prob.mean() / (dimensions * math.log(2)) + math.log2(self.levels)
        leaves = jax.tree_util.tree_leaves_with_path(params)
        scales = [leaf for path, leaf in leaves if path[-1].key == "scale"]
        return bits + 5e-5 * sum(jnp.sum(scale**2) for scale in scales), after

    def sample(self, params, averages, key, n):
        """Draws n images, floats in [0, 1]."""
        z = jax.random.normal(key, (n, *self.image_shape))
        couplings = _Couplings(params, averages, False, self.dtype)
        x = jax.nn.sigmoid(_forward(couplings, z, self.num_scales))
        return jnp.clip((x - self.alpha) / (1 - 2 * self.alpha), 0, 1)


class _Couplings:
    """The couplings in the order in which data meets them, each with its batch normalization."""

    def __init__(self, params, averages, training, dtype):
        self.params, self.averages, self.training = params, averages, training
        self.dtype, self.after = dtype, []

    def inverse(self, i, stays, changes, mask=None):
        log_scale, shift, after = self._network(i, stays, mask)
        changing = 1.0 if mask is None else 1 - mask
        log_scale *= changing
        x = changes * jnp.exp(log_scale) + shift * changing
        mean, variance = self.averages[i]["flow"]
        if self.training:
            mean, variance = _moments(x, changing)
        log_det = -0.5 * jnp.log(variance + EPSILON) * changing
        x = (x - mean * changing) * jnp.exp(log_det)
        flow = _averages(self.averages[i]["flow"], mean, variance)
        self.after.append({"flow": flow, "network": after})
        return x, _sum(log_scale) + jnp.sum(jnp.broadcast_to(log_det, x.shape[1:]))

    def forward(self, i, stays, z, mask=None):
        changing = 1.0 if mask is None else 1 - mask
        mean, variance = self.averages[i]["flow"]
        z = z * jnp.exp(0.5 * jnp.log(variance + EPSILON) * changing) + mean * changing
        log_scale, shift, _ = self._network(i, stays, mask)
        return (z - shift * changing) * jnp.exp(-log_scale * changing)

    def _network(self, i, x, mask):
        params, before = self.params[i], self.averages[i]["network"]
        after = []

        def norm(x):
            place = len(after)
            affine, (mean, variance) = params["norms"][place], before[place]
            x = x.astype(jnp.float32)
            if self.training:
                mean, variance = _moments(x)
            after.append(_averages(before[place], mean, variance))
            x = (x - mean) * (lax.rsqrt(variance + EPSILON) * affine.get("gain", 1.0))
            return (x + affine.get("offset", 0.0)).astype(self.dtype)

        x = norm(x)
        parts = [x, -x]
        if mask is not None:
            parts = [2 * x, -2 * x, jnp.broadcast_to(mask, (*x.shape[:-1], 1)).astype(x.dtype)]
        h = _conv(params["input"], jax.nn.relu(jnp.concatenate(parts, -1)))
        total = _conv(params["skips"][0], h)
        for (conv1, conv2), skip in zip(params["blocks"], params["skips"][1:], strict=True):
            r = _conv(conv1, jax.nn.relu(norm(h)))
            h += _conv(conv2, jax.nn.relu(norm(r)))
            total += _conv(skip, h)
        outputs = _conv(params["output"], jax.nn.relu(norm(total))).astype(jnp.float32)
        log_scale, shift = jnp.split(outputs, 2, axis=-1)
        return params["log_scale"]["scale"] * jnp.tanh(log_scale), shift, after


def _conv(params, x):
    v = params["direction"]
    kernel = v * lax.rsqrt(jnp.sum(v**2, axis=(0, 1, 2))) * params.get("scale", 1.0)
    layout = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(
        x, kernel.astype(x.dtype), (1, 1), "SAME", dimension_numbers=layout
    )
    return y + params["bias"].astype(y.dtype) if "bias" in params else y


def _moments(x, weights=1.0):
    """Mean and variance of a channel, of the pixels of the weight 1."""
    count = jnp.sum(jnp.broadcast_to(weights, (*x.shape[:-1], 1)))
    mean = jnp.sum(x * weights, (0, 1, 2)) / count
    return mean, jnp.sum((x - mean) ** 2 * weights, (0, 1, 2)) / count


def _averages(before, mean, variance):
    new = zip(before, (mean, variance), strict=True)
    return [lax.stop_gradient(MOMENTUM * old + (1 - MOMENTUM) * batch) for old, batch in new]


def _sum(x):
    return jnp.sum(x, axis=(1, 2, 3))


def _mask(x, parity):
    rows, columns = jnp.arange(x.shape[1])[:, None], jnp.arange(x.shape[2])
    return (1.0 - (rows + columns + parity) % 2)[:, :, None]


def _squeeze(x):
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h // 2, w // 2, 4 * c)


def _unsqueeze(x):
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, 2 * h, 2 * w, c // 4)


def _halves(x, parity):
    """Splits into what stays and what changes in a channel coupling."""
    first, second = jnp.split(x, 2, axis=-1)
    return (second, first) if parity else (first, second)


def _join(stays, changes, parity):
    return jnp.concatenate([changes, stays] if parity else [stays, changes], axis=-1)


def _inverse(couplings, x, scales, first=0):
    log_det = 0.0
    for i in range(4 if scales == 1 else 3):
        mask = _mask(x, i % 2)
        y, part = couplings.inverse(first + i, x * mask, x, mask)
        x, log_det = y, log_det + part
    if scales == 1:
        return x, log_det
    x = _squeeze(x)
    for i in range(3):
        stays, changes = _halves(x, i % 2)
        changes, part = couplings.inverse(first + 3 + i, stays, changes)
        x, log_det = _join(stays, changes, i % 2), log_det + part
    # The sub-pixels (0,1) and (1,0) are factored out; squeezing has grouped them.
    corner, right, below, across = jnp.split(x, 4, axis=-1)
    kept = jnp.concatenate([corner, across], axis=-1)
    kept, part = _inverse(couplings, kept, scales - 1, first + 6)
    corner, across = jnp.split(kept, 2, axis=-1)
    x = jnp.concatenate([corner, right, below, across], axis=-1)
    return _unsqueeze(x), log_det + part


def _forward(couplings, z, scales, first=0):
    if scales > 1:
        corner, right, below, across = jnp.split(_squeeze(z), 4, axis=-1)
        kept = jnp.concatenate([corner, across], axis=-1)
        corner, across = jnp.split(_forward(couplings, kept, scales - 1, first + 6), 2, axis=-1)
        z = jnp.concatenate([corner, right, below, across], axis=-1)
        for i in reversed(range(3)):
            stays, changes = _halves(z, i % 2)
            z = _join(stays, couplings.forward(first + 3 + i, stays, changes), i % 2)
        z = _unsqueeze(z)
    for i in reversed(range(4 if scales == 1 else 3)):
        mask = _mask(z, i % 2)
        z = couplings.forward(first + i, z * mask, z, mask)
    return z


def start(architecture):
    """Makes parameters and averages as they are before training, two trees of arrays."""
    filters, blocks = architecture["filters"], architecture["residual_blocks"]
    scales, channels = architecture["num_scales"], architecture["image_shape"][-1]
    random = np.random.default_rng(0)
    params, averages = [], []

    def ones(n):
        return np.ones(n, np.float32)

    def conv(size, inputs, outputs, **others):
        v = random.normal(size=(size, size, inputs, outputs)).astype(np.float32)
        return {"direction": v, "scale": ones(outputs), **others}

    def pair(filters):
        conv1, conv2 = conv(3, filters, filters), conv(3, filters, filters)
        del conv1["scale"]
        return [conv1, conv2]

    def add(channels, filters, masked):
        outputs, features = 0 * ones(2 * channels), 2 * blocks + 1
        affine = [{"gain": ones(filters), "offset": 0 * ones(filters)} for _ in range(features)]
        network = {
            "norms": [{}, *affine],
            "input": conv(3, 2 * channels + masked, filters),
            "blocks": [pair(filters) for _ in range(blocks)],
            "skips": [conv(1, filters, filters) for _ in range(blocks + 1)],
            "output": conv(1, filters, len(outputs), scale=outputs, bias=outputs),
            "log_scale": {"scale": ones(channels)},
        }
        moments = [[0 * ones(n), ones(n)] for n in (channels, *[filters] * features)]
        params.append(network)
        averages.append({"flow": moments[0], "network": moments})

    for scale in range(scales):
        c, f = channels * 2**scale, filters * 2**scale
        last = scale == scales - 1
        for _ in range(4 if last else 3):
            add(c, f, masked=True)
        for _ in range(0 if last else 3):
            add(2 * c, 2 * f, masked=False)
    return params, averages


def weights(model):
    """Takes the parameters and averages of a `tfnvp.ImageRealNVP`, two trees of arrays."""
    params, averages = [], []
    for network, flow in couplings(model):
        norms = [network.input_norm, *network.block_layers[::2], network.output_norm]
        convs = network.block_layers[1::2]
        params.append(
            {
                "norms": [
                    {"gain": norm.scale.numpy(), "offset": norm.offset.numpy()}
                    if norm.affine
                    else {}
                    for norm in norms
                ],
                "input": _of(network.input_conv),
                "blocks": [
                    list(map(_of, pair)) for pair in zip(convs[::2], convs[1::2], strict=True)
                ],
                "skips": list(map(_of, network.skips)),
                "output": _of(network.output_conv),
                "log_scale": {"scale": network.log_scale.scale.numpy()},
            }
        )
        averages.append({"flow": _pair(flow), "network": [_pair(norm.moments) for norm in norms]})
    return params, averages


def _of(conv):
    names = [name for name in ("scale", "bias") if getattr(conv, name) is not None]
    params = {name: getattr(conv, name).numpy() for name in names}
    return params | {"direction": conv.direction.numpy().reshape(conv.kernel_shape)}


def _pair(moments):
    return [moments.mean.numpy(), moments.variance.numpy()]
