"""The PyTorch peers, eager and compiled, as `benchmarks.throughput` runs them."""

import torch

from benchmarks.peers.torch_real_nvp import RealNVP


class Contender:
    """The model in PyTorch, behind the methods that `benchmarks.throughput` runs."""

    def __init__(self, architecture, options):
        if options.threads:
            torch.set_num_threads(options.threads)
        self.bfloat16 = options.policy == "mixed_bfloat16"
        if options.xla or options.remat:
            raise ValueError("--xla and --remat are options of TensorFlow's contenders alone")
        self.model = self.make_model(architecture)
        scales = [p for name, p in self.model.named_parameters() if name.endswith(".scale")]
        others = [p for name, p in self.model.named_parameters() if not name.endswith(".scale")]
        # This weight decay is the gradient of tfnvp's L2 loss, 5e-5 a squared scale.
        self.optimizer = torch.optim.Adam(
            [{"params": scales, "weight_decay": 1e-4}, {"params": others}], lr=1e-3, fused=True
        )
        self.parameters = sum(p.numel() for p in self.model.parameters())

    def make_model(self, architecture):
        """The model to be measured: log_prob of uint8 images, sample, bits_per_dim."""
        return RealNVP(**architecture)

    def prepare(self, images):
        """Converts the images to the layout that the methods below take."""
        images = torch.from_numpy(images).permute(0, 3, 1, 2)
        return images.contiguous(memory_format=torch.channels_last)

    def _autocast(self):
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16)

    def train_step(self, images):
        """Takes a step of Adam; returns the loss."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self.model.bits_per_dim(images).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 100.0, foreach=True)
        self.optimizer.step()
        return loss.item()

    def log_prob(self, images):
        """Log-densities, an array."""
        self.model.eval()
        with torch.inference_mode(), self._autocast():
            return self.model.log_prob(images).numpy()

    def sample(self, images):
        """Draws as many samples as there are images, an array."""
        self.model.eval()
        with torch.inference_mode(), self._autocast():
            return self.model.sample(len(images)).numpy()


class Compiled(Contender):
    """The model compiled by TorchInductor, as PyTorch's users compile models."""

    def make_model(self, architecture):
        model = super().make_model(architecture)
        for method in ("log_prob", "bits_per_dim", "sample"):
            setattr(model, method, torch.compile(getattr(model, method)))
        return model
