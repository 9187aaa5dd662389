import itertools
import os
import warnings

import numpy as np
import pytest
from PIL import Image

import tfnvp.data
from tfnvp.data import folder, image_files


def _save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path, **options)


def _fill(directory, n, suffix=".png"):
    """`n` grey images, whose level is their number."""
    for i in range(n):
        _save(directory / f"{i:03}{suffix}", np.full([9, 11, 3], i, np.uint8))


def _images(directory, size=4, split="train", **options):
    options = {"shuffle": False, **options}
    dataset = tfnvp.data.load_folder(directory, size, split, **options)
    return np.stack(list(dataset.as_numpy_iterator()))


def _one(path, size=4):
    """The image that becomes of a single file, through the public function."""
    _fill(path.parent / "others", 2)
    images = [_images(path.parent, size, split)[0] for split in tfnvp.data.SPLITS]
    order = np.random.RandomState(0).permutation(3).tolist()  # validation, test, train
    by_path = dict(zip(order, [images[1], images[2], images[0]], strict=True))
    return by_path[folder.find_pictures(str(path.parent))[0].index(str(path))]


def test_splits_are_disjoint_complete_and_stable(tmp_path):
    _fill(tmp_path, 40)
    levels = {s: _images(tmp_path, split=s)[:, 0, 0, 0].tolist() for s in tfnvp.data.SPLITS}
    assert [len(levels[split]) for split in tfnvp.data.SPLITS] == [32, 4, 4]
    assert sorted(itertools.chain(*levels.values())) == list(range(40))
    assert levels["test"] == np.random.RandomState(0).permutation(40)[4:8].tolist()


def test_three_images_are_enough(tmp_path):
    _fill(tmp_path, 3)
    assert [len(_images(tmp_path, split=split)) for split in tfnvp.data.SPLITS] == [1, 1, 1]


def test_batches(tmp_path):
    _fill(tmp_path, 10)
    dataset = tfnvp.data.load_folder(str(tmp_path), 4, "train", 3, flip=True)
    assert len(dataset) == 3
    assert [batch.shape for batch in dataset] == [(3, 4, 4, 3), (3, 4, 4, 3), (2, 4, 4, 3)]


def test_suffixes_subdirectories_and_hidden_files(tmp_path):
    for i, name in enumerate(["a.PNG", "sub/b.jpg", "sub/deep/c.JPEG", "d.Jpg"]):
        _save(tmp_path / name, np.full([8, 8, 3], 10 * i, np.uint8))
    for name in ["._a.png", ".thumbnails/a.png", "notes.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no image")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sizes = [len(_images(tmp_path, split=split)) for split in tfnvp.data.SPLITS]
    assert sum(sizes) == 4


def test_pictures_of_other_suffixes_are_counted_in_one_line(tmp_path):
    for name in ("a.webp", "b.WEBP", "sub/c.heic", ".hidden.webp", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"no PNG or JPEG file in .*, but 1 .heic, 2 .webp; give"):
        _images(tmp_path)
    _fill(tmp_path, 8)
    message = f"passed over 1 .heic, 2 .webp in {tmp_path}: PNG and JPEG files are read"
    with pytest.warns(UserWarning) as caught:
        for split in tfnvp.data.SPLITS:
            _images(tmp_path, split=split)
    assert [str(warning.message) for warning in caught] == [message]


def test_broken_images_are_named_skipped_and_counted_once(tmp_path):
    _fill(tmp_path, 8)
    noise = np.random.RandomState(0).randint(0, 256, [64, 64, 3]).astype(np.uint8)
    _save(tmp_path / "torn.jpg", noise)
    whole = (tmp_path / "torn.jpg").read_bytes()
    (tmp_path / "torn.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("this is no image\n")
    with pytest.warns(UserWarning) as caught:
        images = _images(tmp_path)
    (warning,) = caught
    message = str(warning.message)
    assert message.startswith("skipped 2 of 10 images that could not be read: ")
    assert f"{tmp_path}/text.png (not a PNG or JPEG file)" in message
    assert f"{tmp_path}/torn.jpg (" in message and "truncated" in message
    assert "\n" not in message
    assert warning.filename == __file__
    with warnings.catch_warnings():  # the other splits neither decode nor warn again
        warnings.simplefilter("error")
        rest = [_images(tmp_path, split=split) for split in ("validation", "test")]
    assert len(images) + sum(map(len, rest)) == 8


def test_at_most_five_are_listed(tmp_path):
    _fill(tmp_path, 3)
    for i in range(7):
        (tmp_path / f"empty{i}.png").touch()
    with pytest.warns(UserWarning, match=r"skipped 7 of 10 .*empty4\.png \([^)]*\), \.\.\.$"):
        _images(tmp_path)


def test_changed_directory_is_read_again(tmp_path):
    _fill(tmp_path, 10)
    assert len(_images(tmp_path)) == 8
    _fill(tmp_path, 20)
    assert len(_images(tmp_path)) == 16


def test_decoded_once_for_all_splits(tmp_path, monkeypatch):
    _fill(tmp_path, 10)
    calls = []
    read = image_files.read
    monkeypatch.setattr(image_files, "read", lambda *args: calls.append(args) or read(*args))
    for split in tfnvp.data.SPLITS:
        _images(tmp_path, split=split)
    assert len(calls) == 10


def test_central_square_averaged(tmp_path):
    wide = np.zeros([8, 24, 3], np.uint8)
    wide[:, :8] = 255  # outside the central square
    wide[:4, 8:12, 0] = np.tile([[0, 100], [100, 200]], (2, 2))
    _save(tmp_path / "wide.png", wide)
    image = _one(tmp_path / "wide.png", size=2)
    np.testing.assert_array_equal(image[..., 0], [[100, 0], [0, 0]])
    assert not image[..., 1:].any()


@pytest.mark.parametrize("shape", [(7, 13), (13, 7), (1, 1), (3, 400)])
def test_odd_sizes(tmp_path, shape):
    _save(tmp_path / "odd.png", np.full([*shape, 3], 50, np.uint8))
    np.testing.assert_array_equal(_one(tmp_path / "odd.png"), np.full([4, 4, 3], 50))


def test_grey(tmp_path):
    _save(tmp_path / "grey.jpg", np.full([8, 8], 77, np.uint8))
    np.testing.assert_array_equal(_one(tmp_path / "grey.jpg"), np.full([4, 4, 3], 77))


def test_sixteen_bits_keep_the_upper_eight(tmp_path):
    levels = np.repeat(np.arange(4, dtype=np.uint16) * 0x5000, 16).reshape(8, 8)
    _save(tmp_path / "deep.png", levels)
    image = _one(tmp_path / "deep.png", size=8)
    np.testing.assert_array_equal(image[..., 0], levels // 256)


def test_transparent_lies_on_white(tmp_path):
    rgba = np.zeros([8, 8, 4], np.uint8)
    rgba[4:] = [10, 20, 30, 255]
    _save(tmp_path / "rgba.png", rgba)
    image = _one(tmp_path / "rgba.png", size=2)
    np.testing.assert_array_equal(image[0], np.full([2, 3], 255))
    np.testing.assert_array_equal(image[1], [[10, 20, 30]] * 2)


def test_transparent_palette(tmp_path):
    image = Image.new("P", (8, 8), 0)
    image.putpalette([200, 0, 0] + [0] * 765)
    image.save(tmp_path / "palette.png", transparency=0)
    np.testing.assert_array_equal(_one(tmp_path / "palette.png"), np.full([4, 4, 3], 255))


def test_exif_orientation(tmp_path):
    upright = np.zeros([8, 8, 3], np.uint8)
    upright[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    _save(tmp_path / "turned.png", upright, exif=exif)
    image = _one(tmp_path / "turned.png", size=2)
    np.testing.assert_array_equal(image[..., 0], [[0, 255], [0, 255]])


def test_bad_directories(tmp_path):
    (tmp_path / "file.png").write_text("no directory")
    (tmp_path / "empty").mkdir()
    for name, problem in [
        ("absent", "no such directory"),
        ("file.png", "not a directory"),
        ("empty", "no PNG or JPEG file"),
    ]:
        with pytest.raises(ValueError, match=f"^directory: {problem}.*{name}.*; give a directory"):
            tfnvp.data.load_folder(tmp_path / name, 8)


def test_unreadable_directory(tmp_path, monkeypatch):
    def scandir(path):  # tests may run as root, whom no permission stops
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ValueError, match=f"cannot read '{tmp_path}' .Permission denied.; give"):
        tfnvp.data.load_folder(tmp_path, 8)


def test_too_few_readable_images(tmp_path):
    _fill(tmp_path, 2)
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(ValueError, match=r"2 readable images.*at least 3; skipped 1 of 3.*broken"):
        tfnvp.data.load_folder(tmp_path, 8)


def test_bad_arguments(tmp_path):
    _fill(tmp_path, 3)
    with pytest.raises(ValueError, match="image_size must be a positive integer, got image_size=0"):
        tfnvp.data.load_folder(tmp_path, 0)
    with pytest.raises(ValueError, match="unknown split 'all'"):
        tfnvp.data.load_folder(tmp_path, 8, "all")
    with pytest.raises(ValueError, match=r"batch_size must be .*, got batch_size=-3"):
        tfnvp.data.load_folder(tmp_path, 8, "train", -3)
