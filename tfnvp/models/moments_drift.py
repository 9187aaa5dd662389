"""A warning where inference scores another function than the one that trains."""

import warnings
from typing import Any

import keras
import numpy as np

from tfnvp.models.fresh_moments import running_moments
from tfnvp.types import TensorLike


class WarnOfDrift(keras.callbacks.Callback):
    """Warns where rows score differently in inference than by the moments of their own batch.

    In inference batch normalizations use averages. Where these lag behind the weights, what is
    validated, sampled and saved is not what trains. `FlowModel.fit` takes the averages anew by
    itself; this is for a training that keeps running ones, with `FreshMoments(None)`, and to see
    how far a learning rate goes with them. It looks at the end of each epoch.

    Args:
        x: rows of the training data, as many as a batch of the training.
        labels: theirs, as in `FlowModel.log_prob`.
        limit: how far the two may be apart, in bits per dimension, above 0.

    Raises:
        ValueError: for a limit that is not above 0.

    Example:
        >>> import numpy as np, tfnvp
        >>> x = np.random.uniform(size=(32, 4, 4, 1)).astype("float32")
        >>> model = tfnvp.ImageRealNVP((4, 4, 1), num_scales=1, filters=4, residual_blocks=1)
        >>> model.compile(optimizer="adam")
        >>> drift = tfnvp.callbacks.WarnOfDrift(x)
        >>> history = model.fit(x, epochs=2, verbose=0, callbacks=[drift])
        >>> abs(drift.drift) < 0.1
        True
    """

    def __init__(self, x: TensorLike, labels: TensorLike | None = None, limit: float = 0.1) -> None:
        super().__init__()
        if not limit > 0:
            raise ValueError(f"limit must be above 0, got limit={limit!r}")
        self.x, self.labels, self.limit = x, labels, limit
        #: Bits/dim in inference less those by the batch's moments, when it looked last.
        self.drift = 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks, and warns where the two are apart."""
        if not running_moments(self.model):
            return
        in_inference = float(np.mean(self.model.bits_per_dim(self.x, self.labels)))
        by_the_batch = self._by_the_batch()
        self.drift = in_inference - by_the_batch
        # A drift that is NaN is none that is small.
        if not abs(self.drift) <= self.limit:
            warnings.warn(
                f"epoch {epoch + 1}: the same rows have {in_inference:.3g} bits/dim in inference "
                f"and {by_the_batch:.3g} by the moments of their batch: the averages of batch "
                "normalizations lag behind the weights, or are of rows unlike these, and "
                "validation, samples and saved models are not of what trains; let `fit` take them "
                "anew (leave FreshMoments(None) out), shuffle the data, call "
                "model.refresh_moments(data), or lower the learning rate",
                stacklevel=2,
            )

    def _by_the_batch(self) -> float:
        """Scores the rows as training does, and leaves the model as it was."""
        states = self.model.non_trainable_variables
        before = [state.numpy() for state in states]
        log_prob = self.model(self.model.check_data(self.x), self.labels, training=True)
        for state, value in zip(states, before, strict=True):
            state.assign(value)
        return float(np.mean(self.model.bits(log_prob)))
