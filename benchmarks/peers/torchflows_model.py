"""The multiscale Real NVP of torchflows, with the sizes that it comes with."""

from torchflows.bijections.finite.multiscale.architectures import MultiscaleRealNVP
from torchflows.flows import Flow

from benchmarks.peers import torch_contender, torch_real_nvp


class Contender(torch_contender.Contender):
    """The model, behind the methods that `benchmarks.throughput` runs."""

    def make_model(self, architecture):
        return RealNVP(architecture)


class RealNVP(torch_real_nvp.RealNVP):
    """The flow of torchflows between uint8 images and latents.

    It takes nothing from the architecture but the shape of the images.
    """

    def __init__(self, architecture):
        super().__init__(**architecture | {"num_scales": 1, "residual_blocks": 0})
        del self.flow
        self.flow = Flow(MultiscaleRealNVP(self.image_shape))

    def log_density(self, x):
        return self.flow.log_prob(x.contiguous())

    def sample(self, n):
        return self.flow.sample((n,)).clamp(0, 1)
