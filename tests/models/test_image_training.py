"""The image model learns."""

import keras
import numpy as np
from helpers.small_images import LEVELS

import tfnvp


def test_training_lowers_the_loss_of_discrete_images():
    """Images of one grey each take less than the 4 bits that independent values would."""
    keras.utils.set_random_seed(0)
    model = tfnvp.ImageRealNVP((4, 4, 2), 1, filters=8, residual_blocks=1, levels=LEVELS)
    before = [np.array(v) for v in model.trainable_variables]
    grey = np.random.default_rng(0).integers(0, LEVELS, size=(64, 1, 1, 1)).astype("uint8")
    images = np.broadcast_to(grey, (64, 4, 4, 2))
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    history = model.fit(images, batch_size=64, epochs=25, verbose=0).history["bits_per_dim"]
    assert history[0] > 3.8 and history[-1] < 2.8
    for variable, value in zip(model.trainable_variables, before, strict=True):
        # A bias before a batch normalization makes no difference in training.
        idle = variable.name == "bias" and "output_conv" not in variable.path
        assert np.array_equal(variable, value) == idle, variable.path
    evaluated = model.evaluate(images, verbose=0, return_dict=True)["bits_per_dim"]
    assert evaluated < 3, "inference uses what training has gathered"
