"""Training under MirroredStrategy is the training of one device."""

import json
import subprocess
import sys

import numpy as np
import pytest

# In a process of its own: logical devices are set up before TensorFlow starts.
PROGRAM = """
import contextlib, json
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np, tfnvp

random = np.random.RandomState(0)
# 21 rows in batches of 8: the last batch, of 5, is split 3 and 2.
images = random.uniform(size=(21, 4, 4, 1))

def train(scope):
    keras.utils.set_random_seed(0)
    with scope:
        model = tfnvp.ImageRealNVP((4, 4, 1), 1, 4, 1, dtype="float64")
        model.compile(optimizer=keras.optimizers.Adam(1e-2))
    data = tf.data.Dataset.from_tensor_slices(images).batch(8)
    history = model.fit(data, epochs=3, verbose=0, shuffle=False).history
    evaluation = model.evaluate(data, verbose=0, return_dict=True)
    weights = [w.numpy().tolist() for w in model.weights if "float" in w.dtype]
    return {"history": history, "evaluation": evaluation, "weights": weights}

one = train(contextlib.nullcontext())
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
two = train(strategy.scope())

layer = tfnvp.layers.Dequantization(256, seed=0)
noise = strategy.run(lambda: layer(tf.zeros([1, 4, 4, 1], tf.uint8), training=True))
noise = [n.numpy().tolist() for n in strategy.experimental_local_results(noise)]
print(json.dumps({"one": one, "two": two, "noise": noise}))
"""


@pytest.fixture(scope="module")
def results():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_two_replicas_train_as_one_device_does(results):
    one, two = results["one"], results["two"]
    assert one["history"]["loss"][-1] < one["history"]["loss"][0]
    for key in ("loss", "bits_per_dim"):
        np.testing.assert_allclose(two["history"][key], one["history"][key], rtol=1e-5)
        assert two["evaluation"][key] == pytest.approx(one["evaluation"][key], rel=1e-5)
    for a, b in zip(one["weights"], two["weights"], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-8)


def test_replicas_draw_noise_of_their_own(results):
    first, second = (np.array(noise) for noise in results["noise"])
    assert first.shape == second.shape == (1, 4, 4, 1)
    assert not np.isclose(first, second).any()
