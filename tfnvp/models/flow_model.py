"""Any transformed distribution as a Keras model."""

import keras
import tensorflow as tf

from tfnvp import metrics
from tfnvp.bijectors.flow_bijector import keras_layers, tie_keras_layers
from tfnvp.checks import plain_errors
from tfnvp.graph import replicas
from tfnvp.graph.full_precision import full_precision
from tfnvp.graph.internals import MultiWorkerFit, SummedGradients
from tfnvp.layers.l2 import summed
from tfnvp.models.condition import Conditional
from tfnvp.optimizers import Adam


@keras.saving.register_keras_serializable(package="tfnvp")
class FlowModel(Conditional, MultiWorkerFit, keras.Model):
    """A Keras model that fits a TFP distribution by maximum likelihood.

    The trainable variables are those of the Keras layers that the distribution's bijectors hold,
    the same variables as `model.distribution.trainable_variables`. The loss is the mean negative
    log-likelihood in bits per dimension, plus the layers' regularization losses; `bits_per_dim`,
    without these, is a metric that `fit` and `evaluate` report. Data sets yield a batch, or
    (batch, labels); without `num_classes` or `context_size` the labels are left aside.

    With one of these the density is conditional, p(x | y): every `AffineCoupling` gives its
    conditioner a context made of the label, see `LabelEncoding`. Labels are integers [B] or float
    vectors [B, context_size]; None asks for p(x), which the same weights learn where training
    leaves out some labels.

    To be saved whole, a model is a subclass that defines `build_distribution` and `get_config`::

        @keras.saving.register_keras_serializable()
        class MyFlow(tfnvp.FlowModel):
            def __init__(self, units, **kwargs):
                super().__init__(**kwargs)
                self.units = units

            def build_distribution(self):
                ...
                return tfd.TransformedDistribution(base, bijector)

            def get_config(self):
                return {**super().get_config(), "units": self.units}

    A subclass may rely on `build_distribution` being called once, when the model is built or its
    distribution first asked for.

    Args:
        distribution: a `tfd.TransformedDistribution` of a known event shape; None in a subclass.
        num_classes: how many classes the labels y of p(x | y) name; None for no classes.
        context_size: size of the float vectors that are the labels instead; None for none.
        label_dropout: probability with which training leaves out a label, so that p(x) is learned
            too; 0 for never.
        conditional_base: whether the mean of the base distribution, too, depends on the label: for
            each index of the latents' last axis (channels, or dimensions of a vector) a linear
            function of the context is added to it, zero before training.
        **kwargs: further arguments of `keras.Model`.

    Call arguments:
        x: [B, *event_shape]. labels: as above, or None. training: as in Keras.

    Returns:
        log p(x) or log p(x | y), [B], nats.

    Raises:
        TypeError: if distribution is not a transformed distribution.
        ValueError: if its event shape is not fully known, no bijector in it holds a Keras layer, or
            it has trainable variables that no layer holds.

    Example:
        >>> import keras, tfnvp, tensorflow_probability as tfp
        >>> coupling = tfnvp.bijectors.AffineCoupling(
        ...     tfnvp.masks.ChannelHalves(0, event_ndims=1), tfnvp.layers.DenseNetwork(1, [16]))
        >>> base = tfp.distributions.MultivariateNormalDiag([0.0, 0.0])
        >>> model = tfnvp.FlowModel(tfp.distributions.TransformedDistribution(base, coupling))
        >>> model.compile(optimizer="adam")
        >>> history = model.fit(keras.random.normal((32, 2)), verbose=0)
    """

    #: Values that one dimension of the data took before dequantisation.
    levels = 1

    def __init__(
        self,
        distribution=None,
        num_classes=None,
        context_size=None,
        label_dropout=0.0,
        conditional_base=False,
        **kwargs,
    ):
        # Data is never cast to the compute dtype of mixed precision: only conditioners are.
        super().__init__(autocast=False, **kwargs)
        self._condition_on(num_classes, context_size, label_dropout, conditional_base)
        self._distribution = None
        self._functions = {}
        self._loss = keras.metrics.Mean(name="loss", dtype=self.variable_dtype)
        self._bits_per_dim = keras.metrics.Mean(name="bits_per_dim", dtype=self.variable_dtype)
        if distribution is not None:
            self._adopt(distribution)
            self.build()

    def build_distribution(self):
        """Makes the distribution; for subclasses to define.

        Returns:
            A `tfd.TransformedDistribution`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} needs a distribution: pass one, or define build_distribution()"
        )

    @property
    def distribution(self):
        """The `tfd.TransformedDistribution` that the model fits; p(x) of a conditional model."""
        return self.distribution_for()

    @property
    def _unconditioned(self):
        """The distribution whose couplings have no context yet: shapes, dtype and layers."""
        if self._distribution is None:
            # A model may be asked for the first time by a step that is being traced.
            with tf.init_scope():
                self._adopt(self.build_distribution())
        return self._distribution

    @property
    def event_size(self):
        """Dimensions of an event."""
        return self._unconditioned.event_shape.num_elements()

    def _adopt(self, distribution):
        """Takes the distribution's Keras layers as the model's own."""
        # Not isinstance: TFP returns a private base class where a bijector is no composite tensor.
        if not (hasattr(distribution, "bijector") and hasattr(distribution, "distribution")):
            raise TypeError(
                "distribution must be a tfp.distributions.TransformedDistribution, got "
                f"distribution={distribution!r}"
            )
        if not distribution.event_shape.is_fully_defined():
            raise ValueError(
                "distribution must have a fully defined event shape, got event_shape="
                f"{distribution.event_shape}"
            )
        self._build_base_mean(distribution.distribution)
        layers = keras_layers(distribution)
        if not layers:
            raise ValueError(
                "distribution must have a bijector that holds a keras.Layer as an attribute: a "
                f"network hidden in a function cannot be found, got distribution={distribution!r}"
            )
        if not all(layer.built for layer in layers):
            zeros = tf.zeros([1, *distribution.event_shape], distribution.dtype)
            some = None if self.label_encoding is None else tf.zeros(*self._label_spec(1))
            self._conditioned(distribution, some).log_prob(zeros)
        for module in (distribution, *distribution.submodules):
            tie_keras_layers(module)
        held = {id(v.value) for layer in layers for v in layer.trainable_variables}
        if loose := [v.name for v in distribution.trainable_variables if id(v) not in held]:
            raise ValueError(
                "distribution must hold its trainable variables in keras.Layers, for Keras trains "
                f"no others, got tf.Variable {', '.join(loose)}"
            )
        self._flow_layers = layers
        self._distribution = distribution

    def build(self, input_shape=None):
        _ = self._unconditioned
        self.built = True

    def get_build_config(self):
        """What `build_from_config` is given when a saved model is loaded."""
        return {"event_shape": self._unconditioned.event_shape.as_list()}

    def build_from_config(self, config):
        """Builds the model; the configuration is only looked at by people."""
        self.build()

    def get_config(self):
        if type(self).build_distribution is FlowModel.build_distribution:
            raise ValueError(
                "a FlowModel made from a distribution cannot be saved whole, since TFP objects are "
                "not Keras-serialisable: subclass it with build_distribution() and get_config(), "
                "or use save_weights()"
            )
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": self.dtype_policy.name,
            **self._condition_config(),
        }

    def call(self, x, labels=None, training=None):
        if replicas.several() is None:
            return self._log_prob(x, labels, training)
        # The last batch of an epoch may leave a replica without rows.
        rows = tf.shape(x)[0]
        with replicas.rows_counting(tf.minimum(rows, 1)):
            log_prob = self._log_prob(_at_least_one(x), _at_least_one(labels), training)
        return log_prob[:rows]

    def _log_prob(self, x, labels, training):
        distribution = self._conditioned(self._unconditioned, labels, training)
        return distribution.log_prob(self._continuous(x, training))

    def _check(self, x):
        """Refuses, before anything is traced, data of a wrong dtype or shape."""
        x = tf.convert_to_tensor(x)
        event_shape = self._unconditioned.event_shape
        if not x.dtype.is_floating:
            raise ValueError(f"x must be of a float dtype, got dtype {x.dtype.name}")
        if x.shape.rank is not None and not x.shape[1:].is_compatible_with(event_shape):
            raise ValueError(
                f"x must have the shape [batch, {', '.join(map(str, event_shape))}], got {x.shape}"
            )
        return tf.ensure_shape(x, [None, *event_shape])

    def _continuous(self, x, training):
        """The data that the distribution is over, from the data that users have."""
        return tf.cast(x, self._unconditioned.dtype)

    def bits(self, log_prob):
        """log p(x) [B], nats, as bits per dimension [B]."""
        return metrics.bits_per_dim(log_prob, self.event_size, self.levels)

    # Training.

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data):
        """One step of the optimizer on a batch, as `fit` calls it."""
        return self._update_metrics(*self.optimize(*self._data_of(data)))

    def optimize(self, x, labels=None):
        """One step of the optimizer, as operations of the caller's graph, for `export_stablehlo`.

        Returns:
            bits per dimension [B] and the regularization loss, before the step.
        """
        x = self._check(x)
        if not self._replicas_share_a_step():
            return self._optimize(x, labels)
        # Slots are all but two of the optimizer's variables: they need not be read.
        slots = self.optimizer.slots
        variables = self.optimizer.variables[: -len(slots)] + self.variables

        def step(x, labels, handles, slot_handles):
            others = zip(slots, slot_handles, strict=True)
            with replicas.holding(variables, handles, others):
                return self._optimize(x, labels)

        if "optimize" not in self._functions:
            self._functions["optimize"] = replicas.SharedFunction(step)
        handles, slot_handles = (list(map(replicas.handle, vs)) for vs in (variables, slots))
        return self._functions["optimize"](x, labels, handles, slot_handles)

    def _replicas_share_a_step(self):
        """Whether this is one of several replicas, and the step can be a function of theirs."""
        if replicas.several() is None or tf.executing_eagerly():
            return False
        if not (replicas.may_meet_in_functions() and isinstance(self.optimizer, Adam)):
            return False
        values = [variable.value for variable in [*self.variables, *self.optimizer.variables]]
        known = set(map(id, values))
        return (
            bool(self.optimizer.slots)
            # What was made outside of the strategy's scope, or by no layer, is one replica's alone.
            and all(isinstance(value, tf.distribute.DistributedValues) for value in values)
            and all(id(variable) in known for variable in self._unconditioned.variables)
        )

    def _optimize(self, x, labels):
        weights = [variable.value for variable in self.trainable_weights]
        with tf.GradientTape() as tape:
            tape.watch(weights)
            bits = self.bits(self(x, labels, training=True))
            penalty = self._penalty(bits.dtype)
            # Of each replica, its part: they add up.
            context = replicas.several()
            parts = 1 if context is None else context.num_replicas_in_sync
            loss = metrics.global_mean(bits) + penalty / parts
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled_loss, weights)
        sums = isinstance(self.optimizer, SummedGradients)
        if context is not None and self._clips() and not sums:
            gradients = replicas.summed_on_the_first(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return bits, penalty

    def _clips(self):
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        return optimizer.clipnorm or optimizer.global_clipnorm or optimizer.clipvalue

    @tf.autograph.experimental.do_not_convert
    def test_step(self, data):
        """Bits per dimension of a batch, as `evaluate` calls it."""
        x, labels = self._data_of(data)
        bits = self.bits(self(self._check(x), labels, training=False))
        return self._update_metrics(bits, self._penalty(bits.dtype))

    def predict_step(self, data):
        """log p(x) of a batch, as `predict` calls it."""
        x, labels = self._data_of(data)
        return self(self._check(x), labels, training=False)

    def _data_of(self, data):
        """Data and, for a conditional model, labels."""
        x, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if sample_weight is not None:
            raise ValueError("sample_weight is not supported: every row of the data counts once")
        if self.label_encoding is None:
            return x, None
        return x, self._check_labels(labels, None)

    def _penalty(self, dtype):
        with summed() as penalties:
            penalties += [loss for loss in self.losses if loss is not None]
        penalties = [tf.cast(penalty, dtype) for penalty in penalties]
        return tf.add_n(penalties) if penalties else tf.zeros([], dtype)

    def _update_metrics(self, bits, penalty):
        # Sums and counts over rows: right for a last batch that is smaller.
        self._bits_per_dim.update_state(bits)
        self._loss.update_state(bits + penalty)
        return self.for_keras({metric.name: metric.result() for metric in self.metrics})

    @property
    def metrics(self):
        """`loss` and `bits_per_dim`."""
        return [self._loss, self._bits_per_dim]

    def make_train_function(self, force=False):
        """As Keras has it, with the optimizer's variables made before the step is traced.

        A first step that is refused while it is traced would leave them half made.
        """
        if not self.optimizer.built:
            with self.distribute_strategy.scope():
                _ = self._unconditioned
                self.optimizer.build(self.trainable_variables)
        if force or self.train_function is None:
            self._functions.pop("optimize", None)
        return super().make_train_function(force)

    def fit(self, *args, **kwargs):
        """As `keras.Model.fit`, on data without targets.

        Raises:
            ValueError: for data of a wrong shape, dtype or range.
        """
        with plain_errors():
            return super().fit(*args, **kwargs)

    def evaluate(self, *args, **kwargs):
        """As `keras.Model.evaluate`, on data without targets."""
        with plain_errors():
            return super().evaluate(*args, **kwargs)

    def predict(self, *args, **kwargs):
        """As `keras.Model.predict`: log p(x) of each row, [N], nats."""
        with plain_errors():
            return super().predict(*args, **kwargs)

    def save(self, *args, **kwargs):
        """As `keras.Model.save`.

        Raises:
            ValueError: for a model made from a distribution, before any file is touched.
        """
        self.get_config()
        super().save(*args, **kwargs)

    # The density and its samples, in inference mode.

    def log_prob(self, x, labels=None):
        """log p(x), or log p(x | y).

        Args:
            x: [B, *event_shape].
            labels: one y for each row, or one for all, see `distribution_for`; None for p(x).

        Returns:
            [B], nats.

        Raises:
            ValueError: for data or labels of a wrong shape, dtype or range.
        """

        def score(x, labels):
            return self(x, labels, training=False)

        x = self._check(x)
        return self._run_rows("log_prob", score, x, self._check_labels(labels, x.shape[0]))

    def bits_per_dim(self, x, labels=None):
        """-log2 p(x) / D, plus log2(levels) where the data was discrete; as `log_prob`."""
        return self.bits(self.log_prob(x, labels))

    def sample(self, n, labels=None, temperature=1.0, seed=None):
        """Draws samples.

        Args:
            n: how many.
            labels: as in `log_prob`, for n rows.
            temperature: factor on the latents' distance from the base distribution's mean.
            seed: an integer, with which the same samples come again, the first k of n being those
                of n = k; None draws afresh.

        Returns:
            [n, *event_shape].

        Raises:
            ValueError: if n is not a non-negative integer or temperature is negative.
        """
        return self._sample(self._unconditioned, "sample", n, labels, temperature, seed)

    def encode(self, x, labels=None):
        """Data to latents, in full precision whatever the policy.

        Args:
            x: [B, *event_shape].
            labels: as in `log_prob`.

        Returns:
            [B, *latent event shape].
        """
        x = self._check(x)
        labels = self._check_labels(labels, x.shape[0])
        return self._run_rows("encode", self.inverse_in_full_precision, x, labels)

    def decode(self, z, labels=None):
        """Latents to data, the reverse of `encode`, in full precision whatever the policy.

        Args:
            z: [B, *latent event shape].
            labels: as in `log_prob`.

        Returns:
            [B, *event_shape].

        Raises:
            ValueError: for latents of a wrong shape.
        """
        z = tf.cast(z, self._unconditioned.dtype)
        latent_shape = self._unconditioned.distribution.event_shape
        if z.shape.rank is None or not z.shape[1:].is_compatible_with(latent_shape):
            raise ValueError(
                f"z must have the shape [batch, {', '.join(map(str, latent_shape))}], got {z.shape}"
            )
        labels = self._check_labels(labels, z.shape[0])
        return self._run_rows("decode", self.forward_in_full_precision, z, labels)

    def inverse_in_full_precision(self, x, labels=None):
        """`encode` as operations of the caller's graph, for `export`."""
        with full_precision(self._flow_layers):
            bijector = self.distribution_for(labels=labels).bijector
            return bijector.inverse(self._continuous(x, training=False))

    def forward_in_full_precision(self, z, labels=None):
        """`decode` as operations of the caller's graph, for `export`."""
        with full_precision(self._flow_layers):
            return self.distribution_for(labels=labels).bijector.forward(z)

    def _sample(self, distribution, name, n, labels, temperature, seed):
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ValueError(f"n must be an integer of 0 or more, got n={n!r}")
        if not temperature >= 0:
            raise ValueError(f"temperature must be 0 or more, got temperature={temperature!r}")
        base = distribution.distribution

        def draw(n, labels, temperature, seed):
            noise = base.sample(n, seed=seed) - base.mean()
            conditioned = self._conditioned(distribution, labels)
            z = conditioned.distribution.mean() + temperature * noise
            # TFP loses sight of the rank where it broadcasts to an unknown number of labels.
            return conditioned.bijector.forward(tf.ensure_shape(z, [None, *base.event_shape]))

        # At least one, for the same reason as in `_run_rows`.
        samples = self._run(
            name,
            draw,
            tf.constant(max(n, 1)),
            _at_least_one(self._check_labels(labels, n)),
            tf.constant(temperature, distribution.dtype),
            stateless_seed(seed),
        )
        return samples[:n]

    def _run_rows(self, name, function, x, *args):
        """`_run` on rows, of which there may be none."""
        if x.shape[0] == 0:
            # TensorFlow's oneDNN convolution, of no rows, has the wrong channels.
            args = [_at_least_one(arg) for arg in args]
            return self._run(name, function, _at_least_one(x), *args)[:0]
        return self._run(name, function, x, *args)

    def _run(self, name, function, *args):
        """Runs the function compiled, traced once for each name and kind of arguments."""
        specs = tuple(None if arg is None else _any_rows(arg) for arg in args)
        with plain_errors():
            if (name, specs) not in self._functions:
                traced = tf.function(function).get_concrete_function(*specs)
                self._functions[name, specs] = traced
            return self._functions[name, specs](*args)


def stateless_seed(seed):
    """A seed [2], int32, for stateless operations, from an integer, such a pair, or None."""
    if seed is None:
        return tf.random.uniform([2], minval=tf.int32.min, maxval=tf.int32.max, dtype=tf.int32)
    seed = tf.cast(tf.convert_to_tensor(seed), tf.int32)
    return tf.stack([tf.zeros_like(seed), seed]) if seed.shape.rank == 0 else seed


def _at_least_one(rows):
    """The rows, or one of zeros in place of none."""
    if rows is None or rows.shape.rank == 0:
        return rows
    missing = 1 - tf.minimum(tf.shape(rows)[0], 1)
    return tf.pad(rows, [[0, missing], *[[0, 0]] * (rows.shape.rank - 1)])


def _any_rows(x):
    """What a function is traced for: any number of rows, lest another one traces it anew."""
    return tf.TensorSpec([None, *x.shape[1:]] if x.shape.rank else [], x.dtype)
