"""Training under MirroredStrategy is the training of one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# In processes of their own: logical devices are set up before TensorFlow starts, and strategies of
# different sizes do not go together in one.
PROGRAM = """
import contextlib, json, sys
import tensorflow as tf
replicas = int(sys.argv[1])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
import keras, numpy as np, tfnvp

strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
random = np.random.RandomState(0)
# 17 rows in batches of 8: the last batch, of 1, leaves all replicas but one without rows.
images = random.uniform(size=(17, 4, 4, 1))
labels = random.randint(0, 3, size=17)
vectors = random.normal(size=(17, 2))

def image(dtype, **options):
    return tfnvp.ImageRealNVP((4, 4, 1), 1, 4, 1, dtype=dtype, **options)

def fit(model, data, scope, dtype="float64", epochs=7, adam=tfnvp.optimizers.Adam):
    keras.utils.set_random_seed(0)
    with scope:
        model = model(dtype)
        # A bound that the gradient of all rows exceeds, those of a replica's rows mostly do not.
        model.compile(optimizer=adam(1e-2, global_clipnorm=0.5))
    parts = tuple(part.astype(dtype) if part.dtype.kind == "f" else part for part in data)
    data = tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0]).batch(8)
    history = model.fit(data, epochs=epochs, verbose=0, shuffle=False).history
    evaluation = model.evaluate(data, verbose=0, return_dict=True)
    weights = [w.numpy().tolist() for w in model.weights if "float" in w.dtype]
    return model, {"history": history, "evaluation": evaluation, "weights": weights}

def differ(model):
    # By how much a variable is not the same on all replicas.
    variables = [*model.variables, *model.optimizer.variables]
    parts = [strategy.experimental_local_results(variable.value) for variable in variables]
    return max(float(np.ptp([p.numpy() for p in all], axis=0).max()) for all in parts)

results = {}
cases = {
    "images": (image, (images,)),
    "rematerialised": (lambda dtype: image(dtype, remat=True), (images,)),
    "labelled vectors": (
        lambda dtype: tfnvp.VectorRealNVP(
            2, 2, (4,), num_classes=3, conditional_base=True, dtype=dtype
        ),
        (vectors, labels),
    ),
}
if replicas == 4:
    cases = {"images": cases["images"]}
one = None
for name, (model, data) in cases.items():
    # Keras' own clips and sums in another order.
    adam = keras.optimizers.Adam if name == "labelled vectors" else tfnvp.optimizers.Adam
    # Rematerialised, one device does the same (see tests/layers); and one will do for 2 and 4.
    if replicas == 2 and name != "rematerialised":
        _, one = fit(model, data, contextlib.nullcontext(), adam=adam)
    trained, several = fit(model, data, strategy.scope(), adam=adam)
    results[name] = [one, several]
    if name == "images":
        mirrored = trained
if replicas == 2:
    results["float32"] = [
        fit(image, (images,), scope, "float32")[1]
        for scope in (contextlib.nullcontext(), strategy.scope())
    ]
    own, results["own"] = fit(
        lambda dtype: image(dtype, synchronized=False), (images,), strategy.scope()
    )
    results["own differ"] = differ(own)
results["differ"] = differ(mirrored)

# In a function in the function that replicas run, they cannot meet.
nested = tf.function(lambda x: mirrored(x, training=True))
try:
    tf.function(lambda: strategy.run(lambda: nested(tf.constant(images))))()
except RuntimeError as error:
    results["nested"] = str(error)

# Inside the scope and outside, and saved under one number of replicas for another.
directory = sys.argv[2]
mirrored.save(f"{directory}/{replicas}.keras")
with strategy.scope():
    inside = keras.models.load_model(f"{directory}/{replicas}.keras")
    scores = [inside.log_prob(images), inside.sample(2, seed=1)]
    tfnvp.export_saved_model(inside, f"{directory}/export{replicas}")
outside = keras.models.load_model(f"{directory}/{replicas}.keras")
results["inside"] = [score.numpy().tolist() for score in scores]
scores = [outside.log_prob(images), outside.sample(2, seed=1)]
results["outside"] = [score.numpy().tolist() for score in scores]
results["mirrored"] = mirrored.log_prob(images).numpy().tolist()

layer = tfnvp.layers.Dequantization(256, seed=0)
noise = strategy.run(lambda: layer(tf.zeros([1, 4, 4, 1], tf.uint8), training=True))
results["noise"] = [n.numpy().tolist() for n in strategy.experimental_local_results(noise)]
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    directory = tmp_path_factory.mktemp("strategies")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    processes = {
        replicas: subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(replicas), directory],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for replicas in (2, 4)
    }
    found = {}
    for replicas, process in processes.items():
        out, errors = process.communicate()
        assert process.returncode == 0, errors
        found[replicas] = json.loads(out.splitlines()[-1])
    found[4]["images"][0] = found[2]["images"][0]
    return found


def compare(one, several, tolerance):
    assert one["history"]["loss"][-1] < one["history"]["loss"][0]
    for key in ("loss", "bits_per_dim"):
        np.testing.assert_allclose(several["history"][key], one["history"][key], rtol=tolerance)
        assert several["evaluation"][key] == pytest.approx(one["evaluation"][key], rel=tolerance)
    # Of all weights together: some are nearly 0, and all their digits are rounding.
    one, several = (np.concatenate([*map(np.ravel, run["weights"])]) for run in (one, several))
    assert np.linalg.norm(one - several) <= tolerance * np.linalg.norm(one)


@pytest.mark.parametrize(
    ("replicas", "case"),
    [(2, "images"), (4, "images"), (2, "rematerialised"), (2, "labelled vectors")],
)
def test_replicas_train_as_one_device_does(replicas, case, results):
    """21 steps, a third of them with replicas that have no rows."""
    compare(*results[replicas][case], tolerance=1e-9)


def test_in_float32(results):
    """Whose batch normalizations are fused, with a gradient of their own."""
    compare(*results[2]["float32"], tolerance=1e-4)


def test_batch_statistics_may_be_each_replicas_own(results):
    """Another training, about as good."""
    one, _ = results[2]["images"]
    own = results[2]["own"]
    assert own["history"]["loss"][-1] < own["history"]["loss"][0]
    assert abs(own["history"]["loss"][0] - one["history"]["loss"][0]) > 1e-6
    assert abs(own["evaluation"]["loss"] - one["evaluation"]["loss"]) < 0.1
    assert results[2]["own differ"] == 0


@pytest.mark.parametrize("replicas", [2, 4])
def test_variables_stay_the_same_on_all_replicas(replicas, results):
    """To the bit: those of the model and of the optimizer."""
    assert results[replicas]["differ"] == 0


def test_a_step_in_a_function_of_ones_own_is_refused(results):
    """Where replicas would wait for each other for ever."""
    assert "`merge_call` called while defining a new graph" in results[2]["nested"]


@pytest.mark.parametrize("replicas", [2, 4])
def test_a_model_of_several_replicas_is_one_everywhere(replicas, results):
    found = results[replicas]
    for inside, outside in zip(found["inside"], found["outside"], strict=True):
        np.testing.assert_allclose(inside, outside, rtol=1e-9)
    np.testing.assert_allclose(found["mirrored"], found["outside"][0], rtol=1e-9)


def test_replicas_draw_noise_of_their_own(results):
    first, second = (np.array(noise) for noise in results[2]["noise"])
    assert first.shape == second.shape == (1, 4, 4, 1)
    assert not np.isclose(first, second).any()
