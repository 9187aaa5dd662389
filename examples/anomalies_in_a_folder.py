"""Anomaly detection on a folder of pictures: which of them are unlike the others, and where.

A flow learns the folder's pictures, a few damaged ones among them; pictures that it has not trained
on say what scores are usual. For files of your own leave `make_folder` out; docs/anomalies.md tells
which score is for what. The program prints the ten most unusual files, the most unusual first, with
their p-values, and writes them beside maps of where they are unlikely to unusual.png. Those that
were damaged are called so, as a check: most of the ten are.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import tfnvp


def make_folder(folder):
    """Writes handwritten digits as PNG files; eight of them are damaged: two lines are noise."""
    digits = np.concatenate(list(tfnvp.data.load("digits", "train", 500, shuffle=False)))
    random = np.random.default_rng(0)
    damaged = set(random.choice(len(digits), 8, replace=False))
    for i, picture in enumerate((digits[..., 0] * 15).astype("uint8")):
        if i in damaged:
            picture[random.integers(8, size=2)] = random.integers(256, size=(2, 8))
        name = f"damaged_{i}" if i in damaged else f"digit_{i}"
        Image.fromarray(picture).save(folder / f"{name}.png")


folder = Path(tempfile.mkdtemp())
make_folder(folder)

files = np.array(sorted(folder.glob("*.png")))
images = tfnvp.data.read_images(files, image_shape=(8, 8, 1), levels=17)
keras.utils.set_random_seed(0)
order = np.random.default_rng(0).permutation(len(images))
held_out, trained_on = order[:200], order[200:]

model = tfnvp.ImageRealNVP((8, 8, 1), num_scales=2, filters=16, residual_blocks=1, levels=17)
model.compile(optimizer="adam")
model.fit(images[trained_on], batch_size=64, epochs=30, verbose=0)

detector = tfnvp.anomaly.Detector(model, images[held_out])
scores = detector.scores(images)
p_values = detector.calibrated(scores)
unusual = np.argsort(-scores["bits_per_dim"])[:10]
for i in unusual:
    bits, p = scores["bits_per_dim"][i], p_values["bits_per_dim"][i]
    print(f"{files[i].name}: {bits:.2f} bits/dim, p = {p:.3f}")

maps = tfnvp.anomaly.latent_map(model, images[unusual])
names = [files[i].stem for i in unusual]
figure = tfnvp.plotting.beside_maps(images[unusual] / 16, maps, names, columns=5)
tfnvp.plotting.save_png(tfnvp.plotting.pixels(figure), "unusual.png")
