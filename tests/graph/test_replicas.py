"""The values that replicas exchange, in a step that they share."""

import numpy as np
import pytest
import tensorflow as tf

from tfnvp.graph import replicas


class TwoAlike(replicas.Inside):
    """A replica beside another with the same values, that counts how often they meet."""

    meetings = 0

    def __init__(self):
        super().__init__(("first", "second"), tf.constant(0), tf.constant(0))

    def _sum(self, value):
        self.meetings += 1
        return value + value


def _summed(values):
    inside = TwoAlike()
    with replicas.within(replicas.Replica(inside)):
        return replicas.sum_each_over(values), inside.meetings


def test_tensors_of_one_dtype_are_summed_in_one_exchange():
    values = [tf.constant([[1.0, 2.0]]), tf.constant(3.0), tf.zeros([0])]
    sums, meetings = _summed(values)
    assert meetings == 1
    for value, total in zip(values, sums, strict=True):
        np.testing.assert_array_equal(total, 2 * value)
        assert total.shape == value.shape


def test_tensors_of_several_dtypes_are_summed_each_in_its_own():
    values = [tf.constant([1.0, 2.0]), tf.constant([[3.0]], tf.float64), tf.constant(4)]
    sums, meetings = _summed(values)
    assert meetings == 3
    for value, total in zip(values, sums, strict=True):
        np.testing.assert_array_equal(total, 2 * value)
        assert (total.shape, total.dtype) == (value.shape, value.dtype)


@pytest.mark.parametrize(
    ("device", "logical", "way"), [("GPU", 2, "nccl"), ("GPU", 4, "ring"), ("CPU", 2, "ring")]
)
def test_replicas_speak_by_nccl_where_each_has_a_gpu(device, logical, way, monkeypatch):
    replicas_of = tuple(f"/job:localhost/replica:0/task:0/device:{device}:{i}" for i in range(2))
    gpus = {"list_logical_devices": logical, "get_visible_devices": 2}
    for name, count in gpus.items():
        monkeypatch.setattr(tf.config, name, lambda kind, count=count: [kind] * count)
    assert replicas.communication(replicas_of) == way
