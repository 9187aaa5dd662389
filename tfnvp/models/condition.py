"""The labels of a conditional density p(x | y), and what they change in a flow."""

from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp.bijectors import ContextShift
from tfnvp.bijectors.coupling import with_context
from tfnvp.checks import check_positive_int
from tfnvp.distribution import FlowDistribution
from tfnvp.layers import LabelEncoding
from tfnvp.types import TensorLike

tfd = tfp.distributions


class Condition:
    """The labels that a density is conditioned on, if there are any.

    A label becomes a context, see `LabelEncoding`: every coupling's conditioner sees it and, with
    `conditional_base`, the mean of the latents depends on it.

    Args:
        num_classes: how many classes the labels name; None for no classes.
        context_size: size of the float vectors that are the labels instead; None for none.
        label_dropout: probability with which training leaves out a label.
        conditional_base: whether the mean of the base distribution depends on the label.
        dtype: of contexts.

    Attributes:
        encoding: the `LabelEncoding`; None of an unconditional density.
        base_mean: the layer that `conditional_base` asks for, once `build` has made it.

    Raises:
        ValueError: for arguments that do not go together, naming them.
    """

    def __init__(
        self,
        num_classes: int | None,
        context_size: int | None,
        label_dropout: float,
        conditional_base: bool,
        dtype: str,
    ) -> None:
        check_positive_int("num_classes", num_classes, optional=True)
        check_positive_int("context_size", context_size, optional=True)
        if num_classes and context_size:
            raise ValueError(
                "num_classes and context_size exclude each other: labels are classes or vectors, "
                f"got num_classes={num_classes} and context_size={context_size}"
            )
        conditional = bool(num_classes or context_size)
        others = {"label_dropout": label_dropout, "conditional_base": conditional_base}
        for name, value in others.items():
            if value and not conditional:
                raise ValueError(f"{name} needs num_classes or context_size, got {name}={value!r}")
        self.num_classes = num_classes
        self.context_size = context_size
        self.label_dropout = label_dropout
        self.conditional_base = conditional_base
        self.dtype = dtype
        self.encoding = self.base_mean = None
        if conditional:
            self.encoding = LabelEncoding(num_classes, context_size, label_dropout, dtype=dtype)

    @property
    def context_shape(self) -> tuple[int | None, int] | None:
        """The shape of a batch of contexts, for conditioners to be built with; None for none."""
        return None if self.encoding is None else (None, self.encoding.size)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, but for the dtype."""
        return {
            "num_classes": self.num_classes,
            "context_size": self.context_size,
            "label_dropout": self.label_dropout,
            "conditional_base": self.conditional_base,
        }

    def build(self, base: tfd.Distribution) -> None:
        """Makes the layer of the conditional base, if there is one, for the model to hold."""
        if self.conditional_base:
            # It has the dtype of the flow: a policy lowers the conditioners alone.
            self.base_mean = keras.layers.Dense(
                base.event_shape[-1],
                use_bias=False,
                kernel_initializer="zeros",
                dtype=self.dtype,
                name="base_mean",
            )
            self.base_mean.build(self.context_shape)

    def applied(
        self, flow: FlowDistribution, labels: TensorLike | None, training: bool = False
    ) -> FlowDistribution:
        """Conditions a flow on labels.

        Args:
            flow: the distribution whose couplings have no context.
            labels: integers [...] or floats [..., context_size]; None for p(x).
            training: whether some labels are left out.

        Returns:
            The flow itself, if there is no condition, or one of batch shape [...].

        Raises:
            ValueError: for labels out of range, of a wrong dtype or shape, not wanted or missing.
        """
        self.check_presence(labels)
        if self.encoding is None:
            return flow
        if labels is None:
            context = self.encoding.no_label()
        else:
            context = self.encoding(self.encoding.checked(labels), training=training)
        base = flow.distribution
        if self.base_mean is not None:
            shift = ContextShift(self.base_mean, context, base.event_shape.rank)
            base = FlowDistribution(base, shift)
        return FlowDistribution(base, with_context(flow.bijector, context))

    def label_spec(self, rows: int | None) -> tf.TensorSpec:
        """Gives shape and dtype of the labels of a number of rows."""
        if self.num_classes:
            return tf.TensorSpec([rows], tf.int64)
        return tf.TensorSpec([rows, self.context_size], self.dtype)

    def labels_of_rows(self, labels: TensorLike | None, rows: int | None) -> tf.Tensor | None:
        """Makes a tensor of one label for each row; a single label is repeated for all of them.

        Raises:
            ValueError: for labels of a wrong dtype or shape, not wanted or missing.
        """
        self.check_presence(labels)
        if labels is None:
            return None
        spec = self.label_spec(rows)
        labels = tf.cast(self.encoding.of_known_kind(labels), spec.dtype)
        if labels.shape.rank == spec.shape.rank - 1:
            labels = tf.broadcast_to(labels, spec.shape)
        if not labels.shape.is_compatible_with(spec.shape):
            raise ValueError(
                f"labels must have the shape {spec.shape.as_list()}, one for each row, got "
                f"{labels.shape}"
            )
        return tf.ensure_shape(labels, spec.shape)

    def check_values(self, labels: tf.Tensor | None) -> tf.Tensor | None:
        """Gives labels once their values are found valid; None stays None."""
        return None if labels is None else self.encoding.checked(labels)

    def check_presence(self, labels: TensorLike | None) -> None:
        """Refuses labels that the density has no use for, and missing ones that it needs."""
        if self.encoding is None and labels is not None:
            raise ValueError(
                "labels must be None, for the model is not conditional: make it with num_classes "
                "or context_size"
            )
        if self.encoding is not None and labels is None and not self.label_dropout:
            raise ValueError(
                "labels must be given, for the model has no label_dropout to learn p(x): pass "
                "labels, or make the model with label_dropout"
            )
