import tensorflow as tf

from tfnvp.shapes import sizes


def test_known_sizes_are_integers():
    assert sizes(tf.zeros([2, 3, 4])) == [2, 3, 4]
    assert sizes(tf.zeros([])) == []


def test_unknown_sizes_are_tensors_of_what_comes():
    found = []

    @tf.function(input_signature=[tf.TensorSpec([None, 3, None])])
    def product(x):
        found[:] = sizes(x)
        return found[0] * found[1] * found[2]

    assert product(tf.zeros([2, 3, 5])) == 30
    assert product(tf.zeros([0, 3, 5])) == 0
    assert found[1] == 3 and tf.is_tensor(found[0]) and found[2].dtype == tf.int32
