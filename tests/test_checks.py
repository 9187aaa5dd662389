import numpy as np
import pytest
import tensorflow as tf

from tfnvp.checks import assert_all, check_choice, check_positive_int, plain_errors


@tf.function
def _checked(x):
    assert_all(x < 3, "x must be less than 3, got up to", tf.reduce_max(x))
    return x + 1


def test_what_holds_passes():
    with plain_errors():
        assert _checked(tf.constant([1, 2]))[1] == 3


@pytest.mark.parametrize("compiled", [tf.function, lambda f: f], ids=["graph", "eager"])
def test_failed_assertion_is_one_line_with_the_value(compiled, refuses):
    def check(x):
        assert_all(x < 3, "x must be less than 3, got", tf.reduce_max(x), tf.reduce_min(x))
        return x + 1

    def run(x):
        with plain_errors():
            return compiled(check)(x)

    refuses(run, tf.constant([7, 1]), match=r"^x must be less than 3, got 7 1$")


def test_what_waits_for_the_assertion_does_not_fail_first(refuses):
    @tf.function
    def check(x):
        with tf.control_dependencies([assert_all(x > 0, "x must be positive, got", x)]):
            return tf.debugging.check_numerics(1 / x, "less clear")

    def run():
        with plain_errors():
            return check(tf.constant(0.0))

    refuses(run, match=r"^x must be positive, got 0$")


def test_failed_assertion_within_a_data_set(refuses):
    """The error then passes through an iterator, which adds its own words."""

    def run():
        with plain_errors():
            return list(tf.data.Dataset.from_tensors([7]).map(_checked))

    refuses(run, match=r"^x must be less than 3, got up to 7$")


def test_wrong_shape_found_at_run_time(refuses):
    @tf.function(input_signature=[tf.TensorSpec(None)])
    def shaped(x):
        return tf.ensure_shape(x, [None, 2])

    def run():
        with plain_errors():
            return shaped(tf.zeros([4, 3]))

    refuses(run, match=r"^data must have the shape \[\?,2\], got \[4,3\]$")


def test_other_errors_pass():
    with pytest.raises(tf.errors.InvalidArgumentError, match="Incompatible"), plain_errors():
        tf.constant([1.0, 2.0]) + tf.constant([1.0, 2.0, 3.0])
    with pytest.raises(KeyError), plain_errors():
        {}["key"]


def test_positive_integers():
    check_positive_int("filters", 1)
    check_positive_int("filters", np.int64(3))
    check_positive_int("num_classes", None, optional=True)
    with pytest.raises(ValueError, match="num_classes must be a positive integer or None, got"):
        check_positive_int("num_classes", 0, optional=True)
    for bad in (0, -1, 2.0, "3", None, True):
        with pytest.raises(ValueError, match=f"filters must be .*got filters={bad!r}"):
            check_positive_int("filters", bad)


def test_choices():
    check_choice("split", "train", ("train", "test"))
    with pytest.raises(ValueError, match="unknown split 'tset'; known: train, test"):
        check_choice("split", "tset", ("train", "test"))
