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


def main(replicas, directory):
    """Prints JSON: what several replicas and, beside them, one device have come to.

    Replicas are logical CPUs; models are saved in the directory.
    """
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
    )
    # The optimizer of graphs takes a third of the time, and changes no value that is looked at.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
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
        "weighted": (image, {"x": images, "sample_weight": weights}),
    }
    if replicas == 4:
        cases = {"images": cases["images"]}
    one = None
    for name, (model, data) in cases.items():
        # Keras' own Adam clips and sums in another order.
        adam = keras.optimizers.Adam if name == "labelled vectors" else tfnvp.optimizers.Adam
        # Rematerialised, evaluation is that of all models.
        options = {"adam": adam, "evaluated": name != "rematerialised"}
        # Rematerialised, one device does the same (see tests/layers); one run serves 2 and 4
        # replicas.
        if replicas == 2 and name != "rematerialised":
            _, one = fit(model, data, contextlib.nullcontext(), **options)
        trained, several = fit(model, data, strategy.scope(), **options)
        results[name] = [one, several]
        if name == "images":
            mirrored = trained
    if replicas == 2:
        # Keras' Muon takes no step in float64.
        for name, data, adam in (
            ("float32", (images,), tfnvp.optimizers.Adam),
            ("weighted float32 by Muon", (images, labels, weights), tfnvp.optimizers.Muon),
        ):
            results[name] = [
                fit(image, data, scope, "float32", adam=adam, evaluated=False)[1]
                for scope in (contextlib.nullcontext(), strategy.scope())
            ]
        own, results["own"] = fit(
            lambda dtype: image(dtype, synchronized=False), (images,), strategy.scope()
        )
        results["own differ"] = differ(strategy, own)
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
