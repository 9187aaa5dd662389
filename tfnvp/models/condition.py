"""What makes a flow conditional: labels, the densities p(x | y), and Bayes' rule."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp.bijectors import ContextShift
from tfnvp.bijectors.affine_coupling import with_context
from tfnvp.checks import check_positive_int
from tfnvp.layers import LabelEncoding

tfd = tfp.distributions


class Conditional:
    """The part of `FlowModel` that knows of labels, and what an unconditional model does instead.

    A label becomes a context, see `LabelEncoding`: every conditioner of the flow sees it and, with
    `conditional_base`, the mean of the latents depends on it.
    """

    def _condition_on(self, num_classes, context_size, label_dropout, conditional_base):
        """The arguments of the constructor, checked and kept."""
        check_positive_int("num_classes", num_classes, optional=True)
        check_positive_int("context_size", context_size, optional=True)
        if num_classes and context_size:
            raise ValueError(
                "num_classes and context_size exclude each other: labels are classes or vectors, "
                f"got num_classes={num_classes} and context_size={context_size}"
            )
        for name, value in (
            ("label_dropout", label_dropout),
            ("conditional_base", conditional_base),
        ):
            if value and not (num_classes or context_size):
                raise ValueError(f"{name} needs num_classes or context_size, got {name}={value!r}")
        self.num_classes = num_classes
        self.context_size = context_size
        self.label_dropout = label_dropout
        self.conditional_base = conditional_base
        self.label_encoding = self.base_mean = None
        if num_classes or context_size:
            self.label_encoding = LabelEncoding(
                num_classes, context_size, label_dropout, dtype=self.variable_dtype
            )

    def _condition_config(self):
        """Of `get_config`."""
        return {
            "num_classes": self.num_classes,
            "context_size": self.context_size,
            "label_dropout": self.label_dropout,
            "conditional_base": self.conditional_base,
        }

    @property
    def _context_shape(self):
        """Of a batch of contexts, for conditioners to be built with; None if unconditional."""
        return None if self.label_encoding is None else (None, self.label_encoding.size)

    def _build_base_mean(self, base):
        """Makes the layer that `conditional_base` asks for; zero, the mean is that of `base`."""
        if self.conditional_base:
            # In the dtype of the flow: a policy lowers the conditioners alone.
            self.base_mean = keras.layers.Dense(
                base.event_shape[-1],
                use_bias=False,
                kernel_initializer="zeros",
                dtype=self.variable_dtype,
                name="base_mean",
            )
            self.base_mean.build(self._context_shape)

    # Distributions.

    def distribution_for(self, labels=None):
        """The same weights as the distribution of each label.

        Args:
            labels: integers [...] below num_classes, or floats [..., context_size]; None for p(x).

        Returns:
            A `tfd.TransformedDistribution` of batch shape [...].

        Raises:
            ValueError: for labels out of range, of a wrong dtype or shape, that an unconditional
                model has no use for, or that are missing where there is no label_dropout.
        """
        return self._conditioned(self._unconditioned, labels)

    def _conditioned(self, distribution, labels, training=False):
        """The distribution with the context of its labels, where the model is conditional."""
        self._check_conditions(labels)
        if self.label_encoding is None:
            return distribution
        if labels is None:
            context = self.label_encoding.no_label()
        else:
            labels = self.label_encoding.checked(labels)
            context = self.label_encoding(labels, training=training)
        base = tfd.BatchBroadcast(distribution.distribution, tf.shape(context)[:-1])
        if self.base_mean is not None:
            shift = ContextShift(self.base_mean, context, base.event_shape.rank)
            base = tfd.TransformedDistribution(base, shift)
        return tfd.TransformedDistribution(base, with_context(distribution.bijector, context))

    def classify(self, x, prior=None):
        """The posterior p(y | x) of each class, by Bayes' rule, in one pass of x with all classes.

        Args:
            x: [B, *event_shape].
            prior: p(y), [num_classes], up to a common factor; None for equal classes.

        Returns:
            [B, num_classes], of sum one.

        Raises:
            ValueError: for a model without num_classes, a prior that is none, or data of a wrong
                shape, dtype or range.
        """
        if not self.num_classes:
            raise ValueError("classify needs a model with num_classes")
        prior = np.ones(self.num_classes) if prior is None else np.asarray(prior)
        if prior.shape != (self.num_classes,) or not (np.all(prior >= 0) and np.any(prior > 0)):
            raise ValueError(
                f"prior must be {self.num_classes} numbers of 0 or more, not all 0, got "
                f"prior={prior.tolist()}"
            )

        def posterior(x, prior):
            x = tf.expand_dims(self._continuous(x, training=False), 1)
            log_prob = self.distribution_for(labels=tf.range(self.num_classes)).log_prob(x)
            return tf.nn.softmax(log_prob + tf.math.log(prior))

        prior = tf.constant(prior, self._unconditioned.dtype)
        return self._run_rows("classify", posterior, self._check(x), prior)

    # Labels.

    def _label_spec(self, rows):
        """Shape and dtype of the labels of so many rows."""
        if self.num_classes:
            return [rows], tf.int64
        return [rows, self.context_size], self.variable_dtype

    def _check_labels(self, labels, rows):
        """Labels as a tensor of one for each row; a single one is for all of them."""
        self._check_conditions(labels)
        if labels is None:
            return None
        shape, dtype = self._label_spec(rows)
        labels = tf.cast(self.label_encoding.of_known_kind(labels), dtype)
        if labels.shape.rank == len(shape) - 1:
            labels = tf.broadcast_to(labels, shape)
        if not labels.shape.is_compatible_with(shape):
            raise ValueError(
                f"labels must have the shape {shape}, one for each row, got {labels.shape}"
            )
        return tf.ensure_shape(labels, shape)

    def _check_conditions(self, labels):
        """Refuses labels that the model has no use for, and none where it needs them."""
        if self.label_encoding is None and labels is not None:
            raise ValueError(
                "labels must be None, for the model is not conditional: make it with num_classes "
                "or context_size"
            )
        if self.label_encoding is not None and labels is None and not self.label_dropout:
            raise ValueError(
                "labels must be given, for the model has no label_dropout to learn p(x): pass "
                "labels, or make the model with label_dropout"
            )
