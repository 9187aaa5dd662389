"""Class-conditional digits: p(x | y), samples of each class, and a classifier by Bayes' rule.

A tenth of the labels is left out in training, so that the same weights know p(x) too. The program
prints bits/dim of the test images given their class and without, and the share of classes that
Bayes' rule gets right; classes.png has ten samples of each class, a class a column.
"""

import keras
import numpy as np

import tfnvp

keras.utils.set_random_seed(0)
images = tfnvp.data.load("digits", split="train", batch_size=64, labels=True)
model = tfnvp.ImageRealNVP.from_preset("digits_conditional")
model.compile(optimizer="adam")
model.fit(images, epochs=30, verbose=0)

test = tfnvp.data.load("digits", split="test", batch_size=300, labels=True)
x, y = next(iter(test))
given, without = model.bits_per_dim(x, labels=y), model.bits_per_dim(x)
print(f"{np.mean(given):.3f} bits/dim given the class, {np.mean(without):.3f} without")

accuracy = np.mean(np.argmax(model.classify(x), axis=1) == y)
print(f"{accuracy:.1%} of the classes right")

samples = model.sample(100, labels=np.tile(range(10), 10), temperature=0.8, seed=0)
tfnvp.plotting.save_png(tfnvp.plotting.image_grid(samples, columns=10), "classes.png")
