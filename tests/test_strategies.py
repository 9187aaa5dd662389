"""Training under MirroredStrategy is the training of one device."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# In a process of its own: logical devices are set up before TensorFlow starts.
PROGRAM = """
import contextlib, dataclasses, json, pathlib, sys, tempfile
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np, tfnvp

random = np.random.RandomState(0)
# 21 rows in batches of 8: the last batch, of 5, is split 3 and 2.
images = random.uniform(size=(21, 4, 4, 1))

def fit(scope, remat=False):
    keras.utils.set_random_seed(0)
    with scope:
        model = tfnvp.ImageRealNVP((4, 4, 1), 1, 4, 1, remat=remat, dtype="float64")
        model.compile(optimizer=tfnvp.optimizers.Adam(1e-2))
    data = tf.data.Dataset.from_tensor_slices(images).batch(8)
    history = model.fit(data, epochs=3, verbose=0, shuffle=False).history
    evaluation = model.evaluate(data, verbose=0, return_dict=True)
    weights = [w.numpy().tolist() for w in model.weights if "float" in w.dtype]
    return {"history": history, "evaluation": evaluation, "weights": weights}

one = fit(contextlib.nullcontext())
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
two = fit(strategy.scope())
remat = fit(strategy.scope(), remat=True)

layer = tfnvp.layers.Dequantization(256, seed=0)
noise = strategy.run(lambda: layer(tf.zeros([1, 4, 4, 1], tf.uint8), training=True))
noise = [n.numpy().tolist() for n in strategy.experimental_local_results(noise)]

# The training program, which would take GPUs, takes these devices.
sys.path.insert(0, sys.argv[1])
import train.run
from train import recipe as recipes

runs = []
run = strategy.run
strategy.run = lambda *args, **kwargs: runs.append(args) or run(*args, **kwargs)
train.run.STRATEGIES["mirrored"] = lambda: strategy
recipe = dataclasses.replace(
    recipes.get("digits"), overrides={"filters": 4, "residual_blocks": 1, "num_scales": 1}
)
with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(sys.stderr):
    settings = train.run.Settings(
        recipe_name="digits",
        run_dir=pathlib.Path(directory) / "run",
        epochs=2,
        batch_size=64,
        learning_rate=2e-3,
        mixed_precision=False,
        remat=False,
        seed=0,
        resume=False,
        limit_steps=3,
        export_to=None,
        strategy="mirrored",
    )
    figures = train.run.train(recipe, settings)
program = {"figures": figures, "runs": len(runs)}
results = {"one": one, "two": two, "two rematerialised": remat}
print(json.dumps({**results, "noise": noise, "program": program}))
"""


@pytest.fixture(scope="module")
def results():
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", PROGRAM, root], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("replicas", ["two", "two rematerialised"])
def test_two_replicas_train_as_one_device_does(replicas, results):
    one, two = results["one"], results[replicas]
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


def test_the_training_program_runs_under_a_strategy(results):
    figures = results["program"]["figures"]
    assert results["program"]["runs"] > 0
    assert figures["images_seen"] == 3 * 64
    assert all(3 < figures[split] < 6 for split in ("train", "validation", "test"))
