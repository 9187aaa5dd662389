"""The multiscale Glow of normflows, the nearest that it has to an image Real NVP.

It is built as the documentation of normflows builds it, from affine couplings with two hidden
layers, and has as many scales and filters as tfnvp's model.
"""

import normflows as nf

from benchmarks.peers import torch_contender, torch_real_nvp


class Contender(torch_contender.Contender):
    """The Glow, behind the methods that `benchmarks.throughput` runs."""

    def make_model(self, architecture):
        return Glow(architecture)


class Glow(torch_real_nvp.RealNVP):
    """The flow of normflows between uint8 images and latents, with eight blocks a scale."""

    def __init__(self, architecture, blocks=8):
        super().__init__(**architecture | {"num_scales": 1, "residual_blocks": 0})
        del self.flow
        scales, filters = architecture["num_scales"], architecture["filters"]
        channels, height, _ = self.image_shape
        bases, flows, merges = [], [], []
        for i in range(scales):
            width = channels * 2 ** (scales + 1 - i)
            steps = [nf.flows.GlowBlock(width, filters, scale_map="exp") for _ in range(blocks)]
            flows.append([*steps, nf.flows.Squeeze()])
            size = height // 2 ** (scales - i)
            shape = (width, size, size)
            if i > 0:
                merges.append(nf.flows.Merge())
                shape = (width // 2, size, size)
            bases.append(nf.distributions.DiagGaussian(shape))
        self.flow = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)

    def log_density(self, x):
        return self.flow.log_prob(x.contiguous(), None)

    def sample(self, n):
        return self.flow.sample(n)[0].clamp(0, 1)
