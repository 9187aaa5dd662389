"""Training on several GPUs: one model, whose every step shares its batch out among them.

`tf.distribute.MirroredStrategy` keeps a copy of the weights on each device; tfnvp averages
gradients over all rows and takes the batch normalizations of all devices as one, so that training
is that of one device with the whole batch. Without GPUs the program runs on the CPU. It prints the
number of devices, and bits/dim of the test images, and writes many_gpus.keras, which loads on any
machine. On several hosts see docs/scaling.md; `tfnvp train digits --strategy mirrored` does the
same as this, with checkpoints.
"""

import keras
import tensorflow as tf

import tfnvp

keras.utils.set_random_seed(0)
devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
print(f"{strategy.num_replicas_in_sync} devices")

# It is the batch of all devices together.
batch_size = 64 * strategy.num_replicas_in_sync
images = tfnvp.data.load("digits", split="train", batch_size=batch_size)
with strategy.scope():  # Weights and the optimizer's state are made on every device.
    model = tfnvp.ImageRealNVP.from_preset("digits")
    model.compile(optimizer=keras.optimizers.Adam(1e-3, global_clipnorm=100.0))

model.fit(images, epochs=30)
test = tfnvp.data.load("digits", split="test", batch_size=batch_size)
print(f"{model.evaluate(test, return_dict=True, verbose=0)['bits_per_dim']:.3f} bits/dim")
model.save("many_gpus.keras")
