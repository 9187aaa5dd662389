import numpy as np
import pytest
import tensorflow as tf

from tfnvp.layers import ResidualNetwork

IMAGES = np.random.default_rng(0).normal(size=(3, 4, 5, 2))


@pytest.mark.parametrize("training", [False, True])
def test_starts_as_the_identity_coupling(training):
    layer = ResidualNetwork(3, 4, 1)
    np.testing.assert_array_equal(layer(IMAGES, training=training), np.zeros((3, 4, 5, 6)))


def _reference(layer, x):
    """The network of the paper, in inference, from its parts."""

    def norm(part, x):
        mean, variance = (np.array(part.moments.mean), np.array(part.moments.variance))
        x = (x - mean) / np.sqrt(variance + part.epsilon)
        return x * np.array(part.scale) + np.array(part.offset)

    def relu_norm(part, x):
        return tf.nn.relu(norm(part, x))

    x = norm(layer.input_norm, x)
    if layer.checkerboard_parity is None:
        x = np.concatenate([x, -x], -1)
    else:
        board = 1 - (np.indices(x.shape[1:3]).sum(0) + layer.checkerboard_parity) % 2
        board = np.broadcast_to(board[None, ..., None], (*x.shape[:3], 1))
        x = np.concatenate([2 * x, -2 * x, board], -1)
    h = layer.input_conv(np.maximum(x, 0))
    total = layer.skips[0](h)
    blocks = [layer.block_layers[i : i + 4] for i in range(0, len(layer.block_layers), 4)]
    for (norm1, conv1, norm2, conv2), skip in zip(blocks, layer.skips[1:], strict=True):
        h += conv2(relu_norm(norm2, conv1(relu_norm(norm1, h))))
        total += skip(h)
    outputs = layer.output_conv(relu_norm(layer.output_norm, total)).numpy()
    log_scale, shift = np.split(outputs, 2, axis=-1)
    return np.concatenate([np.array(layer.log_scale.scale) * np.tanh(log_scale), shift], -1)


@pytest.mark.parametrize("parity", [None, 0, 1])
def test_is_the_network_of_the_paper(parity, randomize):
    layer = ResidualNetwork(3, 4, 2, checkerboard_parity=parity, dtype="float64")
    layer.build(IMAGES.shape)
    randomize(layer)
    np.testing.assert_allclose(layer(IMAGES), _reference(layer, IMAGES), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("blocks", [0, 2])
def test_sees_as_far_as_its_3x3_convolutions_reach(blocks, randomize):
    """One by itself, two a block: a pixel changes the outputs that far around it, and no others."""
    layer = ResidualNetwork(1, 6, blocks, dtype="float64")
    layer.build((None, 13, 13, 1))
    randomize(layer)
    x = np.random.default_rng(1).normal(size=(1, 13, 13, 1))
    moved = x.copy()
    moved[0, 6, 6] += 1
    rows = np.nonzero(np.any(layer(moved) != layer(x), axis=(0, 2, 3)))[0]
    reach = 1 + 2 * blocks
    assert (rows.min(), rows.max()) == (6 - reach, 6 + reach)


def test_training_takes_the_batch_into_every_running_average(randomize):
    layer = ResidualNetwork(1, 4, 1, momentum=0.5)
    layer.build(IMAGES.shape)
    randomize(layer)
    before = [np.array(v) for v in layer.non_trainable_variables if "moments" in v.path]
    layer(IMAGES, training=False)
    after = [np.array(v) for v in layer.non_trainable_variables if "moments" in v.path]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    layer(IMAGES, training=True)
    after = [np.array(v) for v in layer.non_trainable_variables if "moments" in v.path]
    assert len(after) == 4 and not any(map(np.array_equal, before, after))


def test_regularization_is_of_the_scales(randomize):
    """Scales are those of the convolutions whose length is learned, and of the log-scales."""
    layer = ResidualNetwork(1, 4, 1, scale_l2=0.25)
    layer.build(IMAGES.shape)
    randomize(layer)
    scales = [layer.input_conv, layer.block_layers[3], *layer.skips, layer.output_conv]
    expected = sum(np.sum(np.square(part.scale)) for part in (*scales, layer.log_scale))
    np.testing.assert_allclose(sum(layer.losses), 0.25 * expected, rtol=1e-6)


def test_the_last_convolution_alone_has_a_bias():
    """Batch normalization, which follows all others, would take it away."""
    layer = ResidualNetwork(3, 4, 2)
    layer.build(IMAGES.shape)
    assert [v.path for v in layer.weights if v.name == "bias"] == [layer.output_conv.bias.path]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"blocks must be an integer .*got blocks=-1"):
        ResidualNetwork(1, 4, -1)
    with pytest.raises(ValueError, match=r"blocks must be an integer .*got blocks=1.5"):
        ResidualNetwork(1, 4, 1.5)
    with pytest.raises(ValueError, match="filters must be a positive integer, got filters=0"):
        ResidualNetwork(1, 0, 1)


def test_no_sum_alone_follows_a_convolution_and_its_bias():
    """TensorFlow would fuse the three, in a way that is not safe between threads."""
    layer = ResidualNetwork(3, 4, 2)
    layer.build(IMAGES.shape)
    graph = tf.function(layer.compute).get_concrete_function(tf.constant(IMAGES, tf.float32)).graph
    biased = [op for op in graph.get_operations() if op.type == "BiasAdd"]
    assert len(biased) == 1 + layer.blocks
    for op in biased:
        if op.inputs[0].op.type == "Conv2D":
            (first, *more) = op.outputs[0].consumers()
            assert more or first.type not in ("Add", "AddV2", "AddN")
