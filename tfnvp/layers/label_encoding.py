"""From labels to the context of conditional densities."""

from typing import Any

import keras
import tensorflow as tf

from tfnvp.checks import assert_all, check_share, first_where
from tfnvp.configured_layer import UncastLayer
from tfnvp.seeds import fresh_seed, uniform
from tfnvp.types import TensorLike


@keras.saving.register_keras_serializable(package="tfnvp")
class LabelEncoding(UncastLayer):
    """Labels as the context vectors of p(x | y): classes one-hot, float vectors as they are.

    Every conditioner has weights of its own for the context, so that nothing is learned here. With
    dropout, one more dimension says "no label": it is 1, and all others 0, for that share of the
    rows in training, and for the context of p(x).

    Args:
        num_classes: labels are integers 0..num_classes-1; None for float vectors.
        context_size: labels are float vectors of this size; None for classes.
        dropout: probability with which training leaves out a label.
        seed: the seed of the dropout; None draws one.
        **kwargs: further arguments of `keras.layers.Layer`.

    Call arguments:
        labels: integers [...], with dropout also -1 for "no label", or floats
            [..., context_size], as `checked` returns them. training: as in Keras.

    Returns:
        [..., size], in the layer's variable dtype.

    Raises:
        ValueError: if dropout is not in [0, 1).
    """

    def __init__(
        self,
        num_classes: int | None = None,
        context_size: int | None = None,
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        check_share("label_dropout", dropout)
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.context_size = context_size
        self.dropout = dropout
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.size = (num_classes or context_size) + (dropout > 0)

    def call(self, labels: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if self.num_classes:
            context = tf.one_hot(labels, self.num_classes, dtype=self.variable_dtype)
            present = tf.cast(labels >= 0, self.variable_dtype)[..., tf.newaxis]
        else:
            context = tf.cast(labels, self.variable_dtype)
            present = tf.ones_like(context[..., :1])
        if not self.dropout:
            return context
        if training:
            draws = uniform(tf.shape(present), fresh_seed(self.seed_generator), self.variable_dtype)
            present *= tf.cast(draws >= self.dropout, self.variable_dtype)
        return tf.concat([context * present, 1 - present], axis=-1)

    def no_label(self) -> tf.Tensor:
        """The context [size] of p(x)."""
        return tf.one_hot(self.size - 1, self.size, dtype=self.variable_dtype)

    def checked(self, labels: TensorLike) -> tf.Tensor:
        """Makes a tensor of labels, of which the values are checked too.

        Raises:
            ValueError: for labels of a wrong dtype, shape or range.
        """
        # The check is not within `call`, where Keras would make many lines of the error.
        labels = self.of_known_kind(labels)
        return self._in_range(labels) if self.num_classes else labels

    def of_known_kind(self, labels: TensorLike) -> tf.Tensor:
        """Makes a tensor of labels, whatever the values.

        Raises:
            ValueError: for labels of a wrong dtype or shape.
        """
        labels = tf.convert_to_tensor(labels)
        if self.num_classes and not labels.dtype.is_integer:
            raise ValueError(
                f"labels must be integers 0..{self.num_classes - 1}, got dtype {labels.dtype.name}"
            )
        if self.context_size and (
            not labels.dtype.is_floating or labels.shape[-1:] != [self.context_size]
        ):
            raise ValueError(
                f"labels must be floats [..., {self.context_size}], got {labels.dtype.name} of "
                f"shape {labels.shape}"
            )
        return labels

    def valid(self, labels: tf.Tensor) -> tf.Tensor:
        """Whether each of some classes is one of the model's, bool [...]."""
        return (labels >= (-1 if self.dropout else 0)) & (labels < self.num_classes)

    @property
    def classes(self) -> str:
        """The valid classes in words."""
        unlabelled = (
            "or -1 for p(x)" if self.dropout else "for the model has no label_dropout to learn p(x)"
        )
        return f"0..{self.num_classes - 1}, {unlabelled}"

    def _in_range(self, labels: tf.Tensor) -> tf.Tensor:
        labels = tf.cast(labels, tf.int64)
        valid = self.valid(labels)
        message = f"labels must be {self.classes}, got"
        checked = assert_all(valid, message, first_where(~valid, labels))
        with tf.control_dependencies([] if checked is None else [checked]):
            return tf.identity(labels)
