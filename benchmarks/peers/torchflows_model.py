"""The multiscale Real NVP of torchflows, as it comes."""

from torchflows.bijections.finite.multiscale.architectures import MultiscaleRealNVP
from torchflows.flows import Flow

from benchmarks.peers import torch_real_nvp


class Contender(torch_real_nvp.Contender):
    """What `benchmarks.throughput` runs."""

    def make_model(self, architecture):
        return RealNVP(architecture)


class RealNVP(torch_real_nvp.RealNVP):
    """Its flow between uint8 images and latents; of the architecture the image's shape is used."""

    def __init__(self, architecture):
        super().__init__(**architecture | {"num_scales": 1, "residual_blocks": 0})
        del self.flow
        self.flow = Flow(MultiscaleRealNVP(self.image_shape))

    def log_density(self, x):
        return self.flow.log_prob(x.contiguous())

    def sample(self, n):
        return self.flow.sample((n,)).clamp(0, 1)
