"""The JAX peer, as `benchmarks.throughput` runs it: every workload is one compiled function."""

import functools

import jax
import numpy as np
import optax

from benchmarks.peers import jax_real_nvp


class Contender:
    """The model in JAX, behind the methods that `benchmarks.throughput` runs."""

    def __init__(self, architecture, options):
        if options.threads or options.xla or options.remat:
            raise ValueError("--threads, --xla and --remat are options of other contenders")
        mixed = options.policy == "mixed_bfloat16"
        names = ("image_shape", "num_scales", "levels", "alpha")
        sizes = {name: architecture[name] for name in names if name in architecture}
        sizes["image_shape"] = tuple(sizes["image_shape"])
        model = jax_real_nvp.RealNVP(**sizes, dtype="bfloat16" if mixed else "float32")
        self.params, self.averages = jax_real_nvp.start(architecture)
        self.parameters = sum(np.size(leaf) for leaf in jax.tree.leaves(self.params))
        optimizer = optax.chain(optax.clip_by_global_norm(100.0), optax.adam(1e-3))
        self.state, self.key = optimizer.init(self.params), jax.random.key(0)
        self.noise = jax.random.uniform(jax.random.key(1), model.image_shape)

        # Buffers of the step before are used again, as a training in JAX does it.
        @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
        def step(params, averages, state, images, key):
            def loss_of(params):
                return model.loss(params, averages, images, key)

            (loss, after), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
            updates, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), after, state, loss

        self._step = step
        self._log_prob = jax.jit(lambda *trees: model.log_prob(*trees)[0])
        self._sample = jax.jit(model.sample, static_argnums=3)

    def prepare(self, images):
        """Converts the images to what the methods below take."""
        return jax.numpy.asarray(images)

    def train_step(self, images):
        """Takes a step of Adam; returns the loss."""
        self.key, key = jax.random.split(self.key)
        self.params, self.averages, self.state, loss = self._step(
            self.params, self.averages, self.state, images, key
        )
        return float(loss)

    def log_prob(self, images):
        """Log-densities, an array."""
        return np.asarray(self._log_prob(self.params, self.averages, images, self.noise))

    def sample(self, images):
        """Draws as many samples as there are images, an array."""
        self.key, key = jax.random.split(self.key)
        return np.asarray(self._sample(self.params, self.averages, key, len(images)))
