import numpy as np
import pytest
import tensorflow as tf

from tfnvp.bijectors import Squeeze


def test_channels_are_grouped_by_sub_pixel():
    x = np.arange(2 * 4 * 6 * 3, dtype="float32").reshape(2, 4, 6, 3)
    z = Squeeze().inverse(x).numpy()
    assert z.shape == (2, 2, 3, 12)
    for group, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        sub_pixels = x[:, row::2, column::2]
        np.testing.assert_array_equal(z[..., 3 * group : 3 * group + 3], sub_pixels)


def test_log_det_is_zero():
    assert Squeeze().inverse_log_det_jacobian(tf.ones([2, 2, 1])) == 0
    assert Squeeze().forward_log_det_jacobian(tf.ones([1, 1, 4], tf.float64)).dtype == tf.float64


def test_event_shapes_follow():
    squeeze = Squeeze()
    assert squeeze.inverse_event_shape([8, 6, 3]) == [4, 3, 12]
    assert squeeze.forward_event_shape([4, 3, 12]) == [8, 6, 3]
    assert squeeze.inverse_event_shape([None, None, 3]).as_list() == [None, None, 12]
    assert squeeze.forward_event_shape([None, 3, 12]).as_list() == [None, 6, 3]
    np.testing.assert_array_equal(squeeze.inverse_event_shape_tensor([8, 6, 3]), [4, 3, 12])
    np.testing.assert_array_equal(squeeze.forward_event_shape_tensor([4, 3, 12]), [8, 6, 3])


def test_sizes_unknown_in_the_graph():
    squeeze = Squeeze()
    unknown = tf.function(squeeze.inverse, input_signature=[tf.TensorSpec([None, None, None, 2])])
    x = tf.random.stateless_normal([3, 4, 6, 2], seed=(1, 2))
    np.testing.assert_array_equal(unknown(x), squeeze.inverse(x))


@pytest.mark.parametrize("shape", [(3, 2, 1), (2, 5, 1), (7, 2, 3, 4)])
def test_odd_sizes_are_refused(shape):
    with pytest.raises(ValueError, match=rf"must be even.*{shape[-3]}, {shape[-2]}, {shape[-1]}"):
        Squeeze().inverse(tf.zeros(shape))
    with pytest.raises(ValueError, match="must be even"):
        Squeeze().inverse_event_shape(shape[-3:])


def test_channels_that_do_not_fill_a_block_are_refused():
    with pytest.raises(ValueError, match=r"multiple of 4.*2, 2, 6"):
        Squeeze().forward(tf.zeros([2, 2, 6]))
