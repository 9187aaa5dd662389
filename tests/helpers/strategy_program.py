"""Training under MirroredStrategy, for a process of its own."""

import contextlib
import json

import keras
import numpy as np
import tensorflow as tf

import tfnvp
from helpers.few_couplings import FewCouplings

random = np.random.RandomState(0)
# 17 rows in batches of 8: the last batch, of 1, leaves all replicas but one without rows.
images = random.uniform(size=(17, 4, 4, 1))
labels = random.randint(0, 3, size=17)
vectors = random.normal(size=(17, 2))
# Each third row counts, the first rows of the second batch do not: whole replicas have weight 0.
weights = np.where(np.arange(17) % 3 == 0, random.uniform(size=17), 0)
weights[8:14] = 0


def image(dtype, **options):
    return FewCouplings((4, 4, 1), 1, 4, 1, dtype=dtype, **options)


def fit(model, data, scope, dtype="float64", adam=tfnvp.optimizers.Adam, evaluated=True):
    keras.utils.set_random_seed(0)
    with scope:
        model = model(dtype)
        # A bound that the gradient of all rows exceeds, those of a replica's rows mostly do not.
        model.compile(optimizer=adam(1e-2, global_clipnorm=0.5))
    options = {"verbose": 0}
    if isinstance(data, dict):
        options |= {**data, "batch_size": 8}
    else:
        cast = (np.asarray(part, dtype if part.dtype.kind == "f" else None) for part in data)
        parts = tuple(cast)
        parts = parts if len(parts) > 1 else parts[0]
        options["x"] = tf.data.Dataset.from_tensor_slices(parts).batch(8)
        if len(data) == 3:
            # The model has no use for labels, and weights may come without.
            options["x"] = options["x"].map(lambda x, _, weights: (x, None, weights))
    history = model.fit(epochs=7, shuffle=False, **options).history
    evaluation = model.evaluate(return_dict=True, **options) if evaluated else {}
    weights = [w.numpy().tolist() for w in model.weights if "float" in w.dtype]
    return model, {"history": history, "evaluation": evaluation, "weights": weights}


def differ(strategy, model):
    """By how much a variable is not the same on all replicas."""
    variables = [*model.variables, *model.optimizer.variables]
    parts = [strategy.experimental_local_results(variable.value) for variable in variables]
    return max(float(np.ptp([p.numpy() for p in all], axis=0).max()) for all in parts)


def several(replicas):
    """A strategy of so many logical CPUs."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
    )
    # No value that is looked at depends on the optimizer of graphs.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])


def both(strategy, model, data, **options):
    """The same training by one device and by a strategy, and the model of the second."""
    _, one = fit(model, data, contextlib.nullcontext(), **options)
    trained, of_several = fit(model, data, strategy.scope(), **options)
    return trained, [one, of_several]


def further():
    """Prints JSON: what two replicas and one device have come to, of further models."""
    strategy, results = several(2), {}
    for name, model, data, options in (
        ("images", image, (images,), {}),
        ("rematerialised", lambda dtype: image(dtype, remat=True), (images,), {}),
        ("weighted", image, {"x": images, "sample_weight": weights}, {}),
        ("float32", image, (images,), {"dtype": "float32"}),
    ):
        _, results[name] = both(strategy, model, data, **options)
    own, results["own"] = fit(
        lambda dtype: image(dtype, synchronized=False), (images,), strategy.scope()
    )
    results["own differ"] = differ(strategy, own)
    print(json.dumps(results))


def main(replicas, directory):
    """Prints JSON: what several replicas and, beside them, one device have come to.

    Replicas are logical CPUs; models are saved in the directory.
    """
    strategy, results = several(replicas), {}
    mirrored, results["images"] = both(strategy, image, (images,))
    if replicas == 2:
        _, results["labelled vectors"] = both(
            strategy,
            lambda dtype: tfnvp.VectorRealNVP(
                2, 2, (4,), num_classes=3, conditional_base=True, dtype=dtype
            ),
            (vectors, labels),
            # Keras' own clips and sums in another order.
            adam=keras.optimizers.Adam,
        )
        # Keras' Muon takes no step in float64.
        _, results["weighted float32 by Muon"] = both(
            strategy,
            image,
            (images, labels, weights),
            dtype="float32",
            adam=tfnvp.optimizers.Muon,
            evaluated=False,
        )
    results["differ"] = differ(strategy, mirrored)

    with strategy.scope():
        try:
            image("float32").compile(optimizer="adam", jit_compile=True)
        except ValueError as error:
            results["jit"] = str(error)

    # In a function within the function that replicas run, they cannot meet.
    nested = tf.function(lambda x: mirrored(x, training=True))
    try:
        tf.function(lambda: strategy.run(lambda: nested(tf.constant(images))))()
    except RuntimeError as error:
        results["nested"] = str(error)

    # A model is the same inside the scope and outside, saved under one number of replicas for
    # another.
    mirrored.save(f"{directory}/{replicas}.keras")
    with strategy.scope():
        inside = keras.models.load_model(f"{directory}/{replicas}.keras")
        scores = [inside.log_prob(images), inside.sample(2, seed=1)]
        exported = str(tfnvp.export_saved_model(inside, f"{directory}/export{replicas}"))
    outside = keras.models.load_model(f"{directory}/{replicas}.keras")
    results["inside"] = [score.numpy().tolist() for score in scores]
    scores = [outside.log_prob(images), outside.sample(2, seed=1)]
    results["outside"] = [score.numpy().tolist() for score in scores]
    pixels = np.uint8(random.randint(0, 256, size=(3, 4, 4, 1)))
    served = tf.saved_model.load(exported).signatures["log_prob"](images=tf.constant(pixels))
    results["served"] = served["log_prob"].numpy().tolist()
    results["outside of pixels"] = outside.log_prob(pixels).numpy().tolist()
    results["mirrored"] = mirrored.log_prob(images).numpy().tolist()

    layer = tfnvp.layers.Dequantization(256, seed=0)
    noise = strategy.run(lambda: layer(tf.zeros([1, 4, 4, 1], tf.uint8), training=True))
    results["noise"] = [n.numpy().tolist() for n in strategy.experimental_local_results(noise)]
    print(json.dumps(results))
