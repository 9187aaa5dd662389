"""tfnvp's image model in plain PyTorch, parameter for parameter.

It is written to be fast: images and kernels are channels-last, which oneDNN need not rearrange;
batch normalization and weight normalization are PyTorch's own fused operations, and so is Adam.
`load` takes the weights of a `tfnvp.ImageRealNVP`, after which both give the same log_prob.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.peers.couplings import couplings


class WeightNormConv2d(nn.Conv2d):
    """A convolution with a kernel of a learned length, or length one, for each output channel."""

    def __init__(self, inputs, outputs, size, bias=False, scale=True):
        super().__init__(inputs, outputs, size, padding=size // 2, bias=bias)
        ones = torch.ones(outputs, 1, 1, 1)
        if scale:
            self.scale = nn.Parameter(ones)
        else:
            self.register_buffer("scale", ones)

    def forward(self, x):
        return self._conv_forward(x, torch._weight_norm(self.weight, self.scale, 0), self.bias)


def batch_norm(channels, affine=True):
    return nn.BatchNorm2d(channels, eps=1e-4, affine=affine)


class Block(nn.Module):
    """A residual block before activation."""

    def __init__(self, filters):
        super().__init__()
        self.norm1, self.norm2 = batch_norm(filters), batch_norm(filters)
        self.conv1 = WeightNormConv2d(filters, filters, 3, scale=False)
        self.conv2 = WeightNormConv2d(filters, filters, 3)

    def forward(self, x):
        x = self.conv1(F.relu(self.norm1(x), inplace=True))
        return self.conv2(F.relu(self.norm2(x), inplace=True))


class ResidualNetwork(nn.Module):
    """The network from the half that stays to log-scales and shifts of the half that changes."""

    def __init__(self, channels, filters, blocks, masked):
        super().__init__()
        self.masked = masked
        self.input_norm = batch_norm(channels, affine=False)
        self.input_conv = WeightNormConv2d(2 * channels + masked, filters, 3)
        self.blocks = nn.ModuleList(Block(filters) for _ in range(blocks))
        self.skips = nn.ModuleList(WeightNormConv2d(filters, filters, 1) for _ in range(blocks + 1))
        self.output_norm = batch_norm(filters)
        self.output_conv = WeightNormConv2d(filters, 2 * channels, 1, bias=True)
        nn.init.zeros_(self.output_conv.scale)
        self.log_scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x, mask):
        x = self.input_norm(x)
        if self.masked:
            x = torch.cat([2 * x, -2 * x, mask.expand(len(x), 1, -1, -1)], dim=1)
        else:
            x = torch.cat([x, -x], dim=1)
        x = self.input_conv(F.relu(x, inplace=True))
        total = self.skips[0](x)
        for block, skip in zip(self.blocks, self.skips[1:], strict=True):
            x = x + block(x)
            total = total + skip(x)
        x = self.output_conv(F.relu(self.output_norm(total), inplace=True))
        log_scale, shift = x.chunk(2, dim=1)
        return self.log_scale * torch.tanh(log_scale), shift


class FlowBatchNorm(nn.Module):
    """Batch normalization of the half that changes, with its log-det."""

    def __init__(self, channels, momentum=0.1, epsilon=1e-4):
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("variance", torch.ones(channels, 1, 1))

    def moments(self, x, changes):
        if not self.training:
            return self.mean, self.variance
        axes = (0, 2, 3)
        if changes is None:
            variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        else:
            count = len(x) * changes.sum()
            mean = (changes * x).sum(axes, keepdim=True) / count
            variance = (changes * (x - mean).square()).sum(axes, keepdim=True) / count
        mean, variance = mean[0], variance[0]
        self.mean.lerp_(mean.detach(), self.momentum)
        self.variance.lerp_(variance.detach(), self.momentum)
        return mean, variance

    def inverse(self, x, changes):
        mean, variance = self.moments(x, changes)
        log_scale = -0.5 * torch.log(variance + self.epsilon)
        if changes is not None:
            mean, log_scale = changes * mean, changes * log_scale
            return (x - mean) * log_scale.exp(), log_scale.sum()
        return (x - mean) * log_scale.exp(), log_scale.sum() * x[0, 0].numel()

    def forward(self, z, changes):
        log_scale = -0.5 * torch.log(self.variance + self.epsilon)
        if changes is None:
            return z * torch.exp(-log_scale) + self.mean
        return z * torch.exp(-changes * log_scale) + changes * self.mean


@functools.cache
def masks(height, width, parity):
    """Two masks [height, width]: one where pixels stay, and one where they change."""
    rows, columns = torch.arange(height), torch.arange(width)
    stays = (1 - (rows[:, None] + columns + parity) % 2).to(torch.float32)
    return stays, 1 - stays


class CheckerboardCoupling(nn.Module):
    def __init__(self, parity, channels, filters, blocks):
        super().__init__()
        self.parity = parity
        self.network = ResidualNetwork(channels, filters, blocks, masked=True)
        self.norm = FlowBatchNorm(channels)

    def inverse(self, x):
        stays, changes = masks(*x.shape[-2:], self.parity)
        log_scale, shift = self.network(x * stays, stays)
        log_scale = log_scale * changes
        x = x * log_scale.exp() + shift * changes
        x, log_det = self.norm.inverse(x, changes)
        return x, log_scale.sum((1, 2, 3)) + log_det

    def forward(self, z):
        stays, changes = masks(*z.shape[-2:], self.parity)
        z = self.norm(z, changes)
        log_scale, shift = self.network(z * stays, stays)
        return (z - shift * changes) * torch.exp(-log_scale * changes)


class ChannelCoupling(nn.Module):
    def __init__(self, parity, channels, filters, blocks):
        super().__init__()
        self.parity = parity
        self.network = ResidualNetwork(channels // 2, filters, blocks, masked=False)
        self.norm = FlowBatchNorm(channels // 2)

    def split(self, x):
        first, second = x.chunk(2, dim=1)
        return (second, first) if self.parity else (first, second)

    def merge(self, stays, changes):
        return torch.cat([changes, stays] if self.parity else [stays, changes], dim=1)

    def inverse(self, x):
        stays, changes = self.split(x)
        log_scale, shift = self.network(stays, None)
        changes = changes * log_scale.exp() + shift
        changes, log_det = self.norm.inverse(changes, None)
        return self.merge(stays, changes), log_scale.sum((1, 2, 3)) + log_det

    def forward(self, z):
        stays, changes = self.split(z)
        changes = self.norm(changes, None)
        log_scale, shift = self.network(stays, None)
        return self.merge(stays, (changes - shift) * torch.exp(-log_scale))


def squeeze(x):
    """Makes one pixel of each 2 x 2 block, with channels grouped by sub-pixel."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, 4 * c, h // 2, w // 2).contiguous(memory_format=torch.channels_last)


def unsqueeze(x):
    n, c, h, w = x.shape
    blocks = x.reshape(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // 4, 2 * h, 2 * w).contiguous(memory_format=torch.channels_last)


class Scale(nn.Module):
    """One scale of the flow and all that follow it."""

    def __init__(self, channels, filters, blocks, scales):
        super().__init__()
        last = scales == 1
        self.checkerboard = nn.ModuleList(
            CheckerboardCoupling(i % 2, channels, filters, blocks) for i in range(4 if last else 3)
        )
        self.channel = nn.ModuleList(
            ChannelCoupling(i % 2, 4 * channels, 2 * filters, blocks)
            for i in range(0 if last else 3)
        )
        self.rest = None if last else Scale(2 * channels, 2 * filters, blocks, scales - 1)

    def couplings(self):
        rest = [] if self.rest is None else self.rest.couplings()
        return [*self.checkerboard, *self.channel, *rest]

    def inverse(self, x):
        log_det = 0
        for coupling in self.checkerboard:
            x, part = coupling.inverse(x)
            log_det = log_det + part
        if self.rest is None:
            return x, log_det
        x = squeeze(x)
        for coupling in self.channel:
            x, part = coupling.inverse(x)
            log_det = log_det + part
        # The sub-pixels (0,1) and (1,0) are factored out; squeezing has grouped them.
        corner, right, below, across = x.chunk(4, dim=1)
        kept, part = self.rest.inverse(torch.cat([corner, across], dim=1))
        corner, across = kept.chunk(2, dim=1)
        return unsqueeze(torch.cat([corner, right, below, across], dim=1)), log_det + part

    def forward(self, z):
        if self.rest is not None:
            corner, right, below, across = squeeze(z).chunk(4, dim=1)
            corner, across = self.rest(torch.cat([corner, across], dim=1)).chunk(2, dim=1)
            z = torch.cat([corner, right, below, across], dim=1)
            for coupling in reversed(self.channel):
                z = coupling(z)
            z = unsqueeze(z)
        for coupling in reversed(self.checkerboard):
            z = coupling(z)
        return z


class RealNVP(nn.Module):
    """Real NVP of uint8 images [N, C, H, W], with the arguments of `tfnvp.ImageRealNVP`."""

    def __init__(self, image_shape, num_scales, filters, residual_blocks, levels=256, alpha=0.05):
        super().__init__()
        height, width, channels = image_shape
        self.image_shape, self.levels, self.alpha = (channels, height, width), levels, alpha
        self.flow = Scale(channels, filters, residual_blocks, num_scales)
        self.register_buffer("noise", torch.rand(self.image_shape))
        self.to(memory_format=torch.channels_last)

    def log_prob(self, images):
        """log p of images, [N], nats."""
        noise = torch.rand_like(images, dtype=torch.float32) if self.training else self.noise
        return self.log_density((images + noise) / self.levels)

    def log_density(self, x):
        """log p of intensities in [0, 1], [N], nats."""
        p = self.alpha + (1 - 2 * self.alpha) * x
        log_p, log_q = torch.log(p), torch.log1p(-p)
        z, log_det = self.flow.inverse(log_p - log_q)
        log_det = log_det + (math.log1p(-2 * self.alpha) - log_p - log_q).sum((1, 2, 3))
        return log_det - 0.5 * (z.square() + math.log(2 * math.pi)).sum((1, 2, 3))

    def bits_per_dim(self, images):
        dimensions = math.prod(self.image_shape)
        return -self.log_prob(images) / (dimensions * math.log(2)) + math.log2(self.levels)

    def sample(self, n):
        z = torch.randn(n, *self.image_shape).contiguous(memory_format=torch.channels_last)
        x = (torch.sigmoid(self.flow(z)) - self.alpha) / (1 - 2 * self.alpha)
        return x.clamp(0, 1)


def load(peer, model):
    """Gives the peer the weights of a `tfnvp.ImageRealNVP` of the same architecture."""
    for ours, (conditioner, moments) in zip(peer.flow.couplings(), couplings(model), strict=True):
        _copy(ours.norm.mean, moments.mean)
        _copy(ours.norm.variance, moments.variance)
        _load_network(ours.network, conditioner)


def _load_network(ours, theirs):
    norms = [(ours.input_norm, theirs.input_norm), (ours.output_norm, theirs.output_norm)]
    convs = [(ours.input_conv, theirs.input_conv), (ours.output_conv, theirs.output_conv)]
    convs += zip(ours.skips, theirs.skips, strict=True)
    for i, block in enumerate(ours.blocks):
        norm1, conv1, norm2, conv2 = theirs.block_layers[4 * i : 4 * i + 4]
        norms += [(block.norm1, norm1), (block.norm2, norm2)]
        convs += [(block.conv1, conv1), (block.conv2, conv2)]
    for norm, source in norms:
        _copy(norm.running_mean, source.moments.mean)
        _copy(norm.running_var, source.moments.variance)
        if norm.affine:
            _copy(norm.weight, source.scale)
            _copy(norm.bias, source.offset)
    for conv, source in convs:
        kernel = source.direction.numpy().reshape(source.kernel_shape)
        conv.weight.data.copy_(torch.from_numpy(kernel).permute(3, 2, 0, 1))
        for name in ("scale", "bias"):
            if getattr(source, name) is not None:
                _copy(getattr(conv, name), getattr(source, name))
    _copy(ours.log_scale, theirs.log_scale.scale)


def _copy(tensor, variable):
    tensor.data.copy_(torch.from_numpy(variable.numpy()).reshape(tensor.shape))
