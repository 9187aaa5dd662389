import numpy as np
import pytest
import tensorflow as tf

from tfnvp.masks import ChannelHalves, Checkerboard, checkerboard


@pytest.mark.parametrize("parity", [0, 1])
def test_checkerboard(parity):
    """The board is that of the paper's figure 3; parity 0 keeps the corner."""
    board = checkerboard(3, 4, parity, tf.float64)
    assert board.dtype == tf.float64 and board.shape == (3, 4, 1)
    expected = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])
    np.testing.assert_array_equal(board[..., 0], 1 - expected if parity else expected)


def test_boards_of_both_parities_cover_every_pixel_once():
    total = checkerboard(5, 3, 0) + checkerboard(5, 3, 1)
    np.testing.assert_array_equal(total, np.ones((5, 3, 1)))


@pytest.mark.parametrize("parity", [0, 1])
def test_checkerboard_of_sizes_unknown_in_the_graph(parity):
    mask = Checkerboard(parity)
    signature = [tf.TensorSpec([None, None, None, 2], tf.float16)]
    stays = tf.function(mask.stays, input_signature=signature)
    for shape in [(1, 3, 4, 2), (2, 6, 5, 2)]:
        x = tf.zeros(shape, tf.float16)
        np.testing.assert_array_equal(stays(x), checkerboard(*shape[1:3], parity))
        np.testing.assert_array_equal(mask.stays(x), stays(x))
        assert mask.stays(x).dtype == tf.float16


@pytest.mark.parametrize(("size", "cut"), [(2, 1), (4, 2), (5, 2)])
def test_channel_halves_are_cut_and_joined(size, cut):
    x = np.arange(3 * size).reshape(3, size)
    first, second = x[:, :cut], x[:, cut:]
    for parity, expected in [(0, (first, second)), (1, (second, first))]:
        mask = ChannelHalves(parity, event_ndims=1)
        stays, changes, merge = mask.split(tf.constant(x))
        np.testing.assert_array_equal(stays, expected[0])
        np.testing.assert_array_equal(changes, expected[1])
        np.testing.assert_array_equal(merge(changes), x)


def test_event_ranks():
    assert Checkerboard(0).event_ndims == ChannelHalves(0).event_ndims == 3
    assert ChannelHalves(0, event_ndims=1).event_ndims == 1


def test_bad_arguments_are_named():
    for make in (Checkerboard, ChannelHalves, lambda parity: checkerboard(2, 2, parity)):
        for parity in (2, -1, None):
            with pytest.raises(ValueError, match=f"must be 0 or 1, got parity={parity}"):
                make(parity)
    with pytest.raises(ValueError, match=r"event_ndims must be .*got event_ndims=2"):
        ChannelHalves(0, event_ndims=2)


@pytest.mark.parametrize(("size", "parity"), [(1, 1), (None, 0), (None, 1)])
def test_a_single_channel_cannot_be_halved(size, parity):
    @tf.function(input_signature=[tf.TensorSpec([2, size])])
    def split(x):
        return ChannelHalves(parity, event_ndims=1).split(x)

    with pytest.raises(ValueError, match=rf"size 2 or more, got shape \(2, {size}\)"):
        split.get_concrete_function()
    with pytest.raises(ValueError, match=r"size 2 or more, got shape \(4, 4, 1\)"):
        ChannelHalves(parity).split(tf.ones([4, 4, 1]))


def test_of_a_single_dimension_nothing_stays():
    stays, changes, merge = ChannelHalves(0, event_ndims=1).split(tf.ones([3, 1]))
    assert stays.shape == (3, 0) and changes.shape == merge(changes).shape == (3, 1)


def test_repr_names_the_parity():
    """Error messages of a coupling show it."""
    assert repr(Checkerboard(1)) == "Checkerboard(parity=1)"
    assert repr(ChannelHalves(0, event_ndims=1)) == "ChannelHalves(parity=0, event_ndims=1)"


@pytest.mark.parametrize("parity", [0, 1])
@pytest.mark.parametrize("shape", [(4, 6, 2), (3, 5, 1), (1, 1, 3), (2, 3, 4, 3, 2)])
@pytest.mark.parametrize("known", [True, False], ids=["known sizes", "unknown sizes"])
def test_checkerboard_picks_what_changes_and_puts_it_back(parity, shape, known):
    mask = Checkerboard(parity)
    x = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)

    def picked_and_put(x):
        picked = mask.pick(x)
        return picked, mask.put(x, -picked)

    if not known:
        sizes = [*[None] * (len(shape) - 1), shape[-1]]
        picked_and_put = tf.function(picked_and_put, [tf.TensorSpec(sizes, tf.float64)])
    picked, put = picked_and_put(tf.constant(x))
    changing = np.broadcast_to(mask.changing(tf.constant(x)) == 1, shape)
    # Odd sizes are filled up by zeros.
    np.testing.assert_array_equal(np.sort(picked[picked != 0]), np.sort(x[changing]))
    *batch, height, width, channels = shape
    assert picked.shape == (*batch, (height + 1) // 2, 2 * ((width + 1) // 2), channels)
    np.testing.assert_array_equal(put, np.where(changing, -x, x))


@pytest.mark.parametrize("mask", [ChannelHalves(0), ChannelHalves(1, event_ndims=1)])
def test_all_of_a_half_is_picked(mask):
    x = tf.ones([2, 3, 4, 5])
    assert mask.pick(x) is x
    assert mask.put(x, x + 1)[0, 0, 0, 0] == 2
