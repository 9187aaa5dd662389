"""Workers and the data of other people, for processes of their own."""

import json
import os
import random
import sys

import keras
import numpy as np
import tensorflow as tf

import tfnvp
from tfnvp.models.worker_data import check_for_workers

ROWS = 12


def main(directory):
    """Prints JSON: which rows this worker is given, what is refused, and what was saved."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    worker = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    random.seed(worker)  # Workers that draw for themselves draw differently.
    x = np.random.RandomState(0).normal(size=(ROWS, 2)).astype("float32")
    x[:, 0] = np.arange(ROWS)
    with strategy.scope():
        model = tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=(4,))
        model.adapt(x)
        model.compile(optimizer=keras.optimizers.SGD(0.01))
    results = {}

    given = {"x": x, "batch_size": 4}
    check_for_workers(model, "fit", given)
    local = strategy.experimental_local_results
    batches = strategy.experimental_distribute_dataset(given["x"])
    results["rows"] = [
        [int(row) for rows, *_ in batches for row in local(rows)[0].numpy()[:, 0]] for _ in range(2)
    ]

    rows = tf.data.Dataset.from_tensor_slices(x)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    sets = {
        "unseeded": rows.shuffle(ROWS).batch(4),
        "seeded": rows.shuffle(ROWS, seed=1).batch(4),
        "off": rows.batch(4).with_options(options),
        "sharded": rows.shard(2, worker).batch(2).with_options(options),
        "mixed": tf.data.Dataset.sample_from_datasets([rows, rows]).batch(4),
    }
    # TensorFlow mixes the global seed into the seed of a shuffle.
    tf.random.set_seed(worker)
    sets["other seeds"] = rows.shuffle(ROWS, seed=1).batch(4)
    tf.random.set_seed(None)
    for name, data in sets.items():
        try:
            model.fit(data, verbose=0, shuffle=False)
            results[name] = "trains"
        except ValueError as error:
            results[name] = str(error)

    history = model.fit(x, batch_size=4, validation_split=0.25, verbose=0).history
    results["held out"] = history["val_bits_per_dim"]

    # Each worker keeps files of its own: reading variables takes all workers, writing does not.
    own = f"{directory}/{worker}"
    callbacks = [
        keras.callbacks.BackupAndRestore(f"{own}/backup", delete_checkpoint=False),
        keras.callbacks.ModelCheckpoint(f"{own}/best.keras"),
    ]
    model.fit(x, batch_size=4, epochs=2, verbose=0, callbacks=callbacks)
    # It goes on with the third epoch.
    history = model.fit(x, batch_size=4, epochs=3, verbose=0, callbacks=callbacks)
    results["epochs"] = history.epoch
    saved = keras.models.load_model(f"{own}/best.keras")
    results["score"] = saved.log_prob(x).numpy().tolist()
    results["expected"] = model.log_prob(x).numpy().tolist()

    expected = results["expected"]
    compiled = tf.function(model.distribution.log_prob)
    answers = {
        "log_prob in a function": compiled(x).numpy().tolist(),
        "predict": np.ravel(model.predict(x, batch_size=4, verbose=0)).tolist(),
        "export": tf.saved_model.load(str(tfnvp.export_saved_model(model, f"{own}/export")))
        .signatures["log_prob"](vectors=tf.constant(x))["log_prob"].numpy().tolist(),
    }  # fmt: skip
    results["answers"] = {k: [v, expected] for k, v in answers.items()}
    bits = model.evaluate(x, batch_size=4, verbose=0, return_dict=True)["bits_per_dim"]
    results["evaluated"] = [bits, float(np.mean(model.bits_per_dim(x)))]
    results["drawn"] = [model.sample(2, seed=1).numpy().tolist() for _ in range(2)]
    results["drawn"].append(saved.sample(2, seed=1).numpy().tolist())
    print(json.dumps(results), file=sys.stdout)
