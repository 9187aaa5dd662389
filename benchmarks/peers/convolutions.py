"""tfnvp's convolutions alone, as TensorFlow calls them: no step can take less time than they do."""

import tfnvp  # isort: skip  (keeps TensorFlow quiet)
import tensorflow as tf

from benchmarks.peers import tfnvp_model


class Contender(tfnvp_model.Contender):
    """A model's convolutions one after the other, of random tensors in the shapes of a batch."""

    def prepare(self, images):
        """Makes the tensors of a batch of so many images."""
        images = super().prepare(images)
        self._tensors = [
            [tf.cast(tf.random.normal(shape), dtype) for shape in shapes]
            for *shapes, dtype in calls_of(self.model, images)
        ]
        return images

    def train_step(self, images):
        """Convolves forward and backward; returns a number."""
        return float(_convolve(self._tensors, backward=True))

    def log_prob(self, images):
        """Convolves forward; returns a number."""
        return _convolve(self._tensors, backward=False).numpy()

    sample = log_prob


# The tensors are arguments, since TensorFlow would compute once and for all what is of constants.
@tf.function
def _convolve(tensors, backward):
    before, done = [], []
    for x, kernel, _ in tensors:
        with tf.control_dependencies(before):
            before = [tf.nn.conv2d(x, kernel, strides=1, padding="SAME")]
        done += before
    how = {"strides": [1, 1, 1, 1], "padding": "SAME"}
    for x, kernel, upstream in reversed(tensors) if backward else ():
        # The two gradients of a convolution may run at the same time, as they may in a step.
        with tf.control_dependencies(before):
            by_input = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=x.shape, filter=kernel, out_backprop=upstream, **how
            )
            by_kernel = tf.raw_ops.Conv2DBackpropFilter(
                input=x, filter_sizes=kernel.shape, out_backprop=upstream, **how
            )
        before = [by_input, by_kernel]
        done += before
    # A number of each result keeps TensorFlow from leaving its convolution out.
    return tf.add_n([tf.cast(y[0, 0, 0, 0], tf.float32) for y in done])


def calls_of(model, images):
    """Lists the shapes of input, kernel and output, and the dtype, of a density's convolutions."""
    calls, convolve = [], tfnvp.layers.WeightNormConv2D.convolve

    def recording(layer, x, kernel):
        y = convolve(layer, x, kernel)
        calls.append((tuple(x.shape), tuple(kernel.shape), tuple(y.shape), x.dtype))
        return y

    tfnvp.layers.WeightNormConv2D.convolve = recording
    try:
        # Outside of functions layers compute what is called, once each.
        model.distribution.log_prob(tf.cast(images, tf.float32) / 255)
    finally:
        tfnvp.layers.WeightNormConv2D.convolve = convolve
    return calls
