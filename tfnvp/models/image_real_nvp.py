"""Real NVP for images: the multiscale residual model of the paper."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp.bijectors import Equalization, ImageLogit
from tfnvp.bijectors.factor_out import halve
from tfnvp.checks import check_positive_int, check_rows, checked_spline_bins
from tfnvp.configured_layer import arguments
from tfnvp.distribution import FlowDistribution
from tfnvp.layers import Dequantization, IntensityHistogram
from tfnvp.models import presets
from tfnvp.models.flow_model import FlowModel
from tfnvp.models.multiscale import Multiscale, checked_image_shape
from tfnvp.models.pixel_values import assert_in_range, count, doubt_of_floats
from tfnvp.models.training_data import batches_to_adapt_to, weights_of_rows
from tfnvp.types import TensorLike

tfb, tfd = tfp.bijectors, tfp.distributions


@keras.saving.register_keras_serializable(package="tfnvp")
class ImageRealNVP(FlowModel):
    """Real NVP of images [H, W, C]: exact log-likelihood, one-pass samples.

    From data to latents: dequantisation, logit, and at each scale three checkerboard couplings, a
    squeeze, three channel couplings, the squeeze undone, and half of the variables factored out
    while the rest goes on at half size; the last scale is four checkerboard couplings. Batch
    normalization, part of the flow, follows each coupling. Filters double at each scale and for
    channel couplings. Latents keep the image's shape. Source: Real NVP (arXiv 1605.08803), sections
    3.4 to 3.7 and 4.1.

    Images are uint8 with values 0..levels-1, or float in [0, 1], taken as they are; the density,
    and with it `distribution.sample`, reaches a little further, over (-a, 1 + a), a = alpha /
    (1 - 2 alpha), and float images in there are scored and encoded too. See `FlowModel` for
    training, and `sample`, `encode` and `decode`.

    Args:
        image_shape: (height, width, channels).
        num_scales: scales; height and width must be divisible by 2^(num_scales - 1).
        filters: features of the conditioners of the first scale's checkerboard couplings.
        residual_blocks: residual blocks of each conditioner.
        levels: values that a pixel takes, 256 for ordinary images.
        alpha: how far the logit keeps from 0 and 1, see `ImageLogit`.
        momentum: of the running statistics of all batch normalizations, see `RunningMoments`.
        scale_l2: L2 coefficient on weight-norm scales, in the loss (bits/dim).
        mixing: whether an `InvertibleConv1x1` comes before each coupling (beyond the paper).
        equalized: whether an `Equalization` comes before the logit, by a histogram that `adapt`
            counts and training goes on with (beyond the paper): for pictures in which one
            intensity, such as that of the ground, is far more common than others.
        spline_bins: bins of each spline of `SplineCoupling`s (beyond the paper); 0 for affine ones.
        remat: whether training computes each conditioner again for its gradient instead of keeping
            what is inside it: less memory, more time; nothing else changes.
        synchronized: whether batch normalizations take the batches of all replicas as one, under a
            strategy, so that training is that of one device; each replica's own if not.
        **kwargs: further arguments of `FlowModel`: `num_classes`, `context_size`, `label_dropout`,
            `conditional_base`, and those of `keras.Model`, such as `dtype`.

    Raises:
        ValueError: for sizes that do not fit, naming the argument.

    Example:
        >>> import numpy as np, tfnvp
        >>> model = tfnvp.ImageRealNVP((8, 8, 1), num_scales=2, filters=8, residual_blocks=1)
        >>> model.log_prob(np.zeros((5, 8, 8, 1), "uint8")).shape
        TensorShape([5])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        num_scales: int,
        filters: int,
        residual_blocks: int,
        levels: int = 256,
        alpha: float = 0.05,
        momentum: float = 0.9,
        scale_l2: float = 5e-5,
        mixing: bool = False,
        equalized: bool = False,
        spline_bins: int = 0,
        remat: bool = False,
        synchronized: bool = True,
        **kwargs: Any,
    ) -> None:
        check_positive_int("num_scales", num_scales)
        check_positive_int("filters", filters)
        check_positive_int("residual_blocks", residual_blocks)
        super().__init__(**kwargs)
        self.num_scales = num_scales
        self.image_shape = checked_image_shape(image_shape, num_scales)
        self.filters = filters
        self.residual_blocks = residual_blocks
        self.levels = levels
        self.alpha = alpha
        self.momentum = momentum
        self.scale_l2 = scale_l2
        self.mixing = mixing
        self.equalized = equalized
        self.spline_bins = checked_spline_bins(spline_bins)
        self.remat = remat
        self.synchronized = synchronized
        # The flow runs in the dtype of the variables; a policy lowers the conditioners alone.
        self.dequantization = Dequantization(levels, dtype=self.variable_dtype)
        self.dequantization.build((None, *self.image_shape))
        self.build()

    @classmethod
    def from_preset(cls, name: str, load_weights: bool = False, **overrides: Any) -> "ImageRealNVP":
        """Makes a model of a named architecture.

        Args:
            name: one of `tfnvp.presets.names()`.
            load_weights: whether the weights are those that ship with tfnvp, for the presets of
                `tfnvp.presets.trained()`, or yet to be trained.
            **overrides: constructor arguments in place of the preset's; with `load_weights` only
                those that leave the weights' shapes alone.

        Raises:
            ValueError: for an unknown name, listing the known ones, or one without weights, listing
                those that have them, or weights that do not fit.
        """
        weights = presets.weights_path(name) if load_weights else None
        model = cls(**{**presets.get(name), **overrides})
        if weights:
            try:
                model.load_weights(weights)
            except ValueError as error:
                raise ValueError(
                    f"the weights of the preset {name!r} do not fit its architecture with "
                    f"{overrides}: leave these out, or load_weights"
                ) from error
        return model

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **arguments(ImageRealNVP, self)}

    # Architecture.

    def build_distribution(self) -> FlowDistribution:
        """Makes the distribution over images of `image_shape`, intensities in [0, 1]."""
        multiscale = Multiscale(
            self.residual_blocks,
            self.condition.context_shape,
            self.mixing,
            self.momentum,
            self.scale_l2,
            self.synchronized,
            self.remat,
            self.spline_bins,
            self.dtype_policy,
        )
        channels = self.image_shape[-1]
        flow = multiscale.scale(channels, self.filters, self.num_scales)
        pixels = [ImageLogit(self.alpha)]
        if self.equalized:
            self.histogram = IntensityHistogram(self.levels, dtype=self.variable_dtype)
            self.histogram.build(self.image_shape)
            pixels.insert(0, Equalization(self.histogram))
        flow = tfb.Chain([*pixels, *flow], name="real_nvp")
        return self._over(self.image_shape, flow)

    def _over(self, image_shape: Sequence[int], bijector: tfb.Bijector) -> FlowDistribution:
        zeros = tf.zeros(image_shape, self.variable_dtype)
        base = tfd.Independent(tfd.Normal(zeros, tf.ones([], zeros.dtype)), 3)
        return FlowDistribution(base, bijector)

    # Images.

    def check_kind(self, x: Any) -> None:
        """Refuses images, or their `tf.TensorSpec`, of a wrong dtype or shape."""
        dtype = getattr(x, "dtype", None)
        if dtype is not None and dtype != tf.uint8 and not dtype.is_floating:
            raise ValueError(
                f"images must be uint8 with values 0..{self.levels - 1} or float in [0, 1], got "
                f"dtype {dtype.name}"
            )
        check_rows("images", x, tf.TensorShape(self.image_shape))

    def continuous(
        self, x: tf.Tensor, training: bool | None = False, draw: int | tf.Tensor = 0
    ) -> tf.Tensor:
        """Dequantises uint8 images, and takes float images as they are; their range is checked."""
        return self.dequantization(self.check_values(x), training=training, draw=draw)

    def adapt(
        self, data: TensorLike | tf.data.Dataset, sample_weight: TensorLike | None = None
    ) -> None:
        """Counts how common each intensity is, in place of what `equalized` knew before.

        To be called before training, as Keras' Normalization: afterwards the same weights are
        another density.

        Args:
            data: images as those of `fit`: an array, or a finite `tf.data.Dataset` of batches.
            sample_weight: the weights of an array's images, [N], 0 or more; None for equal ones.

        Raises:
            ValueError: for a model that is not `equalized`, images of a wrong shape, dtype or
                range, none at all, or bad weights. Nothing changes then.
        """
        if not self.equalized:
            raise ValueError("adapt is of models with equalized=True, this one has False")

        def checked(x: TensorLike, _: Any, weights: TensorLike | None) -> tuple:
            x = self.check_values(self.check_data(x))
            return x, None if weights is None else weights_of_rows(weights, x, "float64")

        batches = (checked(*batch) for batch in batches_to_adapt_to(data, sample_weight))
        counts = sum((count(x, self.levels, w) for x, w in batches), np.zeros(self.levels))
        if not counts.any():
            raise ValueError("data to adapt to must have images of a weight above 0, got none")
        self.histogram.take(counts)

    def doubt(self, first_rows: Callable[[], np.ndarray]) -> str | None:
        """Says where float images are pixels: all values are k / (levels - 1) or k / levels."""
        return doubt_of_floats(first_rows(), self.levels)

    def log_prob(
        self, x: TensorLike, labels: TensorLike | None = None, samples: int = 1
    ) -> tf.Tensor:
        """Computes log p(x), of uint8 images a lower bound of it.

        With K samples of the noise that dequantises an image, the bound is the log of the mean of
        their K densities, which comes closer to the discrete image's likelihood as K grows. Source:
        importance-weighted bound, Burda et al. (arXiv 1509.00519), as in Flow++ (arXiv 1902.00275).

        Args:
            x: [B, H, W, C], uint8 or float.
            labels: as in `FlowModel.log_prob`.
            samples: K, fixed draws of noise, the same for every image; those of a smaller K are
                among those of a larger one. Float images have no noise, and need one.

        Returns:
            [B], nats.

        Raises:
            ValueError: for images of a wrong shape, dtype or range, or samples not positive.
        """
        check_positive_int("samples", samples)
        x = self.check_data(x)
        labels = self.condition.labels_of_rows(labels, x.shape[0])
        if x.dtype != tf.uint8 or samples == 1:
            return self._run(self._log_prob, x, labels)
        scores = [
            self._run(self._density_of_draw, x, labels, tf.constant(draw))
            for draw in range(samples)
        ]
        return tf.reduce_logsumexp(scores, axis=0) - math.log(samples)

    def _density_of_draw(
        self, x: tf.Tensor, labels: tf.Tensor | None, draw: tf.Tensor
    ) -> tf.Tensor:
        return self.distribution_for(labels=labels).log_prob(self.continuous(x, draw=draw))

    def bits_per_dim(
        self, x: TensorLike, labels: TensorLike | None = None, samples: int = 1
    ) -> tf.Tensor:
        """Computes -log2 p(x) / D + log2(levels); arguments as in `log_prob`."""
        return self.bits(self.log_prob(x, labels, samples))

    def inverse_in_full_precision(self, x: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
        """Encodes as operations of the caller's graph, for exports."""
        # The middle of each level stands for it.
        if x.dtype == tf.uint8:
            x = (tf.cast(self.check_values(x), self.variable_dtype) + 0.5) / self.levels
        return super().inverse_in_full_precision(x, labels)

    def check_values(self, x: tf.Tensor) -> tf.Tensor:
        """Gives images, once their values are found within the range."""
        checked = assert_in_range(x, self.levels, ImageLogit(self.alpha))
        # The data waits for its check, and with it the step that would put NaN into the weights.
        with tf.control_dependencies([] if checked is None else [checked]):
            return tf.identity(x)

    def distribution_for(
        self, image_shape: Sequence[int] | None = None, labels: TensorLike | None = None
    ) -> FlowDistribution:
        """Gives the same weights as a distribution over images of another size, or of each label.

        Args:
            image_shape: (height, width, channels), height and width divisible by
                2^(num_scales - 1); None for the model's own.
            labels: as in `FlowModel.distribution_for`.

        Returns:
            A `FlowDistribution`, with labels [...] of batch shape [...].

        Raises:
            ValueError: for a size that the scales do not divide, other channels, or labels as in
                `FlowModel.distribution_for`.
        """
        return self.condition.applied(self.flow_of(image_shape), labels)

    def flow_of(self, image_shape: Sequence[int] | None = None) -> FlowDistribution:
        """Gives the flow over images of another size, see `distribution_for`."""
        if image_shape is None:
            return self.flow
        image_shape = checked_image_shape(image_shape, self.num_scales)
        if image_shape[-1] != self.image_shape[-1]:
            raise ValueError(
                f"image_shape must have {self.image_shape[-1]} channels, those of the model, got "
                f"image_shape={image_shape}"
            )
        return self._over(image_shape, self.flow.bijector)

    def sample(
        self,
        n: int,
        labels: TensorLike | None = None,
        temperature: float = 1.0,
        image_shape: Sequence[int] | None = None,
        seed: TensorLike | None = None,
    ) -> tf.Tensor:
        """Draws images; arguments as in `FlowModel.sample`, and

        Args:
            image_shape: as in `distribution_for`.

        Returns:
            [n, H, W, C], intensities in [0, 1].
        """
        event_shape = tuple(self.flow_of(image_shape).event_shape)
        samples = super().sample(n, labels, temperature, seed, image_shape=event_shape)
        return tf.clip_by_value(samples, 0, 1)

    def latents_by_scale(self, z: TensorLike) -> list[tf.Tensor]:
        """Takes latents as `encode` gives them apart by the scale at which they leave the flow.

        `tfnvp.latent.join_scales` is the reverse.

        Args:
            z: [..., H, W, C], of any size that the scales divide.

        Returns:
            A list of `num_scales` tensors, the finest scale first: [..., H/2, W/2, 2 C],
            [..., H/4, W/4, 4 C] and so on; the last and coarsest two have the same shape.
        """
        z = tf.convert_to_tensor(z)
        scales = []
        for _ in range(self.num_scales - 1):
            z, out = halve(z)
            scales.append(out)
        return [*scales, z]
