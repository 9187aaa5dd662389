"""Training of vector models that stops in time: held-out rows choose among averaged weights."""

import keras
import numpy as np
import tensorflow as tf

from tfnvp.checks import check_positive_int
from tfnvp.columns import check_finite
from tfnvp.models.flow_model import FlowModel
from tfnvp.models.training_data import weights_of_rows
from tfnvp.models.vector_real_nvp import VectorRealNVP
from tfnvp.optimizers import Adam
from tfnvp.types import TensorLike

# One choice serves all tables; docs/vectors.md has what comes of it.
_BATCH = 256
_LEARNING_RATE = 2e-3
_CHECKS = 30  # This is how often a training looks at the held-out rows.
_DECAY = 0.7  # This share of the average of weights stays from one look to the next.
_PATIENCE = 10  # Training ends after this many looks without a better one.
_FEWEST_TO_HOLD_OUT = 50


def fit_in_time(
    model: VectorRealNVP,
    x: TensorLike,
    sample_weight: TensorLike | None = None,
    random: np.random.RandomState | int | None = None,
    steps: int | None = None,
) -> tuple[np.ndarray, int]:
    """Adapts a vector model to rows, and trains it for as long as rows held out get more likely.

    A tenth of the rows is held out, where there are 50 or more. The learning rate falls along a
    cosine; the weights that stay are averages along the way, of which the held-out rows choose.

    Args:
        model: a `VectorRealNVP` without labels; it is compiled anew.
        x: [N, D], of floats or integers.
        sample_weight: the weights of the rows, [N], 0 or more; None for equal ones.
        random: of batches and held-out rows, or its seed; None draws afresh.
        steps: the most steps of training; None chooses them by the number of rows.

    Returns:
        The indices of the rows held out, or of all where none are; and the steps taken.

    Raises:
        ValueError: for data or weights that `adapt` refuses, and a model of p(x | y).

    Example:
        >>> import sklearn.datasets, tfnvp
        >>> x = sklearn.datasets.load_wine().data
        >>> model = tfnvp.VectorRealNVP(13, num_couplings=2)
        >>> held_out, steps = tfnvp.models.fit_in_time(model, x, steps=20)
        >>> len(held_out)
        17
    """
    if model.condition.context_shape:
        raise ValueError("model must be one of p(x), got one of p(x | y): train that by `fit`")
    check_positive_int("steps", steps, optional=True)
    if not isinstance(random, np.random.RandomState):
        random = np.random.RandomState(random)
    x = tf.cast(model.check_data(x), model.variable_dtype).numpy()
    weights = np.ones(len(x)) if sample_weight is None else sample_weight
    weights = weights_of_rows(weights, x, "float64").numpy()
    # We check here, since `adapt` sees the rows in another order.
    check_finite(np.where(weights[:, np.newaxis] > 0, x, 0))
    order = random.permutation(np.flatnonzero(weights))
    held_out = len(order) // 10 if len(order) >= _FEWEST_TO_HOLD_OUT else 0
    validation, training = order[:held_out], order[held_out:]
    model.adapt(x[training], weights[training])
    steps = default_steps(len(order)) if steps is None else steps
    batch = min(_BATCH, len(training))
    epoch = max(1, steps // _CHECKS)
    epochs = -(-steps // epoch)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, epochs * epoch, warmup_target=_LEARNING_RATE, warmup_steps=min(100, steps // 10)
    )
    # Steps take milliseconds, and Keras' loop around them as long: it runs an epoch at a time.
    model.compile(
        Adam(schedule, global_clipnorm=10.0), steps_per_execution=epoch, jit_compile=False
    )
    watch = AveragedWeights(x[validation], weights[validation])
    model.fit(
        _batches(x[training], weights[training], batch, int(random.randint(2**31 - 1))),
        steps_per_epoch=epoch,
        epochs=epochs,
        callbacks=[watch],
        shuffle=False,  # The batches are in a new order already.
        verbose=0,
    )
    if model.kept_rows:
        # Rows held out from training are as good neighbours as any, and none is its own.
        model.keep_rows(x[order], weights[order])
    return (validation if held_out else order), watch.epochs * epoch


def default_steps(rows: int) -> int:
    """Gives the steps of training for a number of rows: fewer where they would overfit."""
    return int(min(4 * rows, np.clip(0.4 * rows, 1500, 3600)))


def default_dropout(rows: int) -> float:
    """Gives the dropout for a number of rows: a third for few, none from 8,000 on."""
    return 0.35 * max(0.0, 1 - rows / 8000)


def default_kept_rows(rows: int) -> int:
    """Gives how many rows of so many a model is to keep: 4,096 at most."""
    return min(rows, 4096)


def _batches(x: np.ndarray, weights: np.ndarray, size: int, seed: int) -> tf.data.Dataset:
    """Makes endless batches of rows: each pass in a new order, or rows drawn by their weights."""
    x = tf.constant(x)
    if np.all(weights == weights[0]):
        indices = tf.data.Dataset.range(len(x)).shuffle(len(x), seed).repeat().batch(size)
        return indices.map(lambda i: tf.gather(x, i))
    ends = tf.constant(np.cumsum(weights)[:-1] / weights.sum(), "float32")

    def drawn(number: tf.Tensor) -> tf.Tensor:
        draws = tf.random.stateless_uniform([size], [seed, number], alg="philox")
        return tf.gather(x, tf.searchsorted(ends, draws, side="right"))

    return tf.data.Dataset.random(seed).map(drawn)


class AveragedWeights(keras.callbacks.Callback):
    """Keeps a running average of the weights, and in the end the best one by rows held out.

    Averages over the last part of a training are better than its last weights, about as a larger
    batch or a longer training would make them. Source: Polyak and Juditsky (1992); Izmailov et al.
    (arXiv 1803.05407).

    Args:
        x: the rows held out, [N, D]; with none the last average is kept.
        weights: of the rows, [N].
    """

    def __init__(self, x: np.ndarray, weights: np.ndarray) -> None:
        super().__init__()
        self.x, self.weights = x, weights
        self.epochs = 0
        self._average, self._best, self._best_at = None, (-np.inf, None), 0

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Takes the weights into the average, and looks at the held-out rows with that."""
        model: FlowModel = self.model
        self.epochs = epoch + 1
        # We assign TensorFlow's variables: Keras' own assignment takes several times as long.
        variables = [variable.value for variable in model.trainable_variables]
        weights = [variable.numpy() for variable in variables]
        # The first averages forget the beginning sooner.
        decay = min(_DECAY, (1 + epoch) / (5 + epoch))
        if self._average is None:
            self._average = weights
        pairs = zip(self._average, weights, strict=True)
        self._average = [decay * old + (1 - decay) * new for old, new in pairs]
        score = epoch
        if len(self.x):
            _assign(variables, self._average)
            score = np.average(model.log_prob(self.x), weights=self.weights)
            _assign(variables, weights)
        if score > self._best[0]:
            self._best, self._best_at = (score, self._average), epoch
        if epoch - self._best_at >= _PATIENCE:
            model.stop_training = True

    def on_train_end(self, logs: dict | None = None) -> None:
        """Gives the model the best weights."""
        if self._best[1] is not None:
            _assign([variable.value for variable in self.model.trainable_variables], self._best[1])


def _assign(variables: list[tf.Variable], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
