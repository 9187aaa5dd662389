"""Fixtures that many tests share: random weights, counts of operations, tiny models."""

import gc
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.few_couplings import FewCouplings


def _random_weight(variable, random):
    shape = variable.shape
    if variable.name == "averages":  # means, variances, and their weight
        channels = shape[0] // 2
        means, variances = random.normal(0, 0.5, channels), random.uniform(0.5, 2, channels)
        return np.concatenate([means, variances, [5]])
    if variable.name == "scale":
        return random.uniform(0.4, 0.9, shape)
    # The noise of training is that of data, which `adapt` has seen.
    if variable.name == "step":
        return np.zeros(shape)
    # The cells of common values lie apart. Other weights are the same with them and without.
    if variable.name == "cells":
        _, size, count = shape
        random = np.random.default_rng(0)
        middles = np.arange(count) / 4 + random.uniform(0.15, 0.2, (size, 1))
        widths = random.uniform(0.05, 0.2, (size, count))
        return np.stack([middles, widths, widths * random.uniform(1, 4, widths.shape)])
    # These make an invertible matrix that neither crushes nor, over a chain of them, scatters.
    if variable.name in ("lower", "upper"):
        return random.normal(0, 0.2, shape)
    if variable.name == "log_scale":
        return random.uniform(0.1, 0.5, shape)
    if len(shape) > 1:
        return random.normal(0, 1 / np.sqrt(np.prod(shape[:-1])), shape)
    return random.normal(0, 0.3, shape)


# These take minutes with few tests. They come first, so that of two processes that share the files
# out none waits at the end for the other.
_LONG = ("training/", "test_strategies", "serving/", "bijectors/test_laws", "test_distribution")


def pytest_configure(config):
    """Spares `make test` the optimizer of graphs, a fifth of the time of tests that trace them.

    It changes no value that a test looks at. `make test-all` has it, and so have the processes that
    tests start.
    """
    if config.option.markexpr == "not slow":
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def pytest_collection_finish():
    """Turns the garbage collector off, which would look at all modules again and again."""
    gc.freeze()
    gc.disable()


def pytest_runtest_teardown():
    """Collects the garbage of some tests at a time: a process of all of it fills the memory."""
    if gc.get_count()[0] > 1_000_000:
        gc.collect()


def pytest_sessionfinish():
    """Spares Python what is left at its end."""
    gc.freeze()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not any(part in item.nodeid for part in _LONG))


@pytest.fixture(autouse=True)
def seeded():
    """The same initial weights and noise in every run of a test."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def eagerly():
    """Without graphs: two steps take less time than tracing them."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def randomize():
    """randomize(*layers or models, seed=0): weights far from the identity that training starts at.

    Log-scales stay near 1, and running statistics are as after some training.
    """

    def randomize(*layers, seed=0):
        random = np.random.default_rng(seed)
        for layer in layers:
            assert layer.weights, f"{layer} has no weights yet: build it first"
            for variable in layer.weights:
                if np.issubdtype(variable.dtype, np.floating):
                    variable.assign(_random_weight(variable, random))
        return layers[0] if len(layers) == 1 else layers

    return randomize


@pytest.fixture(scope="session")
def count_operations():
    """count_operations(f, *args): a Counter of the kinds of operations that a call of f runs."""

    def count(function, *args):
        graph = tf.function(function).get_concrete_function(*args).graph.as_graph_def()
        functions = {f.signature.name: f.node_def for f in graph.library.function}

        def run(nodes):
            counter = Counter(node.op for node in nodes)
            for node in nodes:
                for name in (value.func.name for value in node.attr.values() if value.func.name):
                    counter += run(functions[name])
            return counter

        return run(graph.node)

    return count


@pytest.fixture(scope="session")
def identities():
    """identities(variables): which `tf.Variable`s they are, of TensorFlow's or Keras' kind."""

    def identities(variables):
        return [id(v.value if isinstance(v, keras.Variable) else v) for v in variables]

    return identities


@pytest.fixture(scope="session")
def tiny_model(randomize):
    """tiny_model(**overrides): an ImageRealNVP of few couplings, with random weights."""

    def make(image_shape=(4, 4, 1), seed=0, **overrides):
        sizes = {"num_scales": 1, "filters": 4, "residual_blocks": 1, "levels": 16}
        model = FewCouplings(image_shape, **{**sizes, **overrides})
        return randomize(model, seed=seed)

    return make


@pytest.fixture(scope="session")
def refuses():
    """refuses(f, *args, match=...): f raises a ValueError of one line, without graph internals."""

    def refuses(function, *args, match, **kwargs):
        with pytest.raises(ValueError, match=match) as caught:
            function(*args, **kwargs)
        message = str(caught.value)
        assert len(message.splitlines()) == 1 and len(message) < 250
        assert not any(word in message for word in ("Traceback", "node", "{{", "Tensor("))

    return refuses


@pytest.fixture(scope="session")
def tfds_images():
    """The images that the directory of `tfds_directory` holds, by set and TFDS split, uint8."""
    random = np.random.RandomState(0)

    def images(count, height, width, channels=3):
        # Smooth, so that JPEG keeps them about as they are.
        coarse = random.randint(0, 256, [count, 4, 4, channels]).astype("float32")
        return tf.cast(tf.image.resize(coarse, [height, width]), tf.uint8).numpy()

    lsun = {"train": images(50, 100, 150), "validation": images(5, 130, 110)}
    return {
        "cifar10": {"train": images(40, 32, 32), "test": images(5, 32, 32)},
        "downsampled_imagenet/32x32": {
            "train": images(50, 32, 32),
            "validation": images(5, 32, 32),
        },
        "downsampled_imagenet/64x64": {
            "train": images(50, 64, 64),
            "validation": images(5, 64, 64),
        },
        "lsun/bedroom": lsun,
        "lsun/tower": lsun,
        "lsun/church_outdoor": lsun,
        "celeb_a": {
            "train": images(6, 218, 178),
            "validation": images(5, 218, 178),
            "test": images(4, 218, 178),
        },
        "mnist": {"train": images(36, 28, 28, 1), "test": images(5, 28, 28, 1)},
        "fashion_mnist": {"train": images(24, 28, 28, 1), "test": images(4, 28, 28, 1)},
        "kmnist": {"train": images(24, 28, 28, 1), "test": images(4, 28, 28, 1)},
        "svhn_cropped": {
            "train": images(24, 32, 32),
            "test": images(4, 32, 32),
            "extra": images(2, 32, 32),
        },
    }


@pytest.fixture(scope="session")
def tfds_directory(tmp_path_factory, tfds_images):
    """A TFDS data directory with a few images of each set, as TFDS writes it.

    The labels of a split are 0, 1, ... 9, 0 and so on.
    """
    import tensorflow_datasets as tfds

    directory = tmp_path_factory.mktemp("tensorflow_datasets")
    versions = {"cifar10": "3.0.2", "downsampled_imagenet": "2.0.0", "lsun": "3.1.0"}
    versions |= {"celeb_a": "2.1.0", "svhn_cropped": "3.1.0"}
    labelled = ("cifar10", "mnist", "fashion_mnist", "kmnist", "svhn_cropped")
    for name, splits in tfds_images.items():
        name, _, config = name.partition("/")
        label = {"label": tfds.features.ClassLabel(num_classes=10)} if name in labelled else {}
        shape = (None, None, splits["train"].shape[-1])
        encoding = "jpeg" if name in ("lsun", "celeb_a") else "png"
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            config=config or None,
            version=versions.get(name, "3.0.1"),
            data_dir=directory,
            disable_shuffling=True,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=shape, encoding_format=encoding),
                    **label,
                }
            ),
            split_datasets={
                split: tf.data.Dataset.from_tensor_slices(
                    {"image": images, **{key: np.arange(len(images)) % 10 for key in label}}
                )
                for split, images in splits.items()
            },
        )
    return directory
