"""What happens while a model trains: samples are drawn, the best weights are kept."""

import os

import keras
import tensorflow as tf

from tfnvp import plotting


class BestModel(keras.callbacks.Callback):
    """Keeps the model that did best in validation in one file, whole at every moment.

    Args:
        path: of the `.keras` file.
        best: the figure to beat, bits/dim: of an earlier part of the same training.
    """

    def __init__(self, path, best=float("inf")):
        super().__init__()
        self.path = path
        self.best = best

    def on_epoch_end(self, epoch, logs=None):
        """Saves the model if its validation is the best so far."""
        if logs["val_bits_per_dim"] < self.best:
            self.best = logs["val_bits_per_dim"]
            written = self.path.with_name(f".writing-{self.path.name}")
            self.model.save(written)
            os.replace(written, self.path)


class Samples(keras.callbacks.Callback):
    """Draws a grid of samples, always of the same latents, as PNG files and for TensorBoard.

    Args:
        directory: for the PNG files, `epoch_0001.png` and so on.
        log_dir: of TensorBoard.
        every: epochs from one grid to the next.
        count: samples in a grid.
    """

    def __init__(self, directory, log_dir, every, count=64):
        super().__init__()
        self.directory = directory
        self.log_dir = log_dir
        self.every = every
        self.count = count

    def on_epoch_end(self, epoch, logs=None):
        """Draws the grid."""
        if (epoch + 1) % self.every:
            return
        self.directory.mkdir(exist_ok=True)
        grid = plotting.image_grid(self.model.sample(self.count, seed=0))
        plotting.save_png(grid, self.directory / f"epoch_{epoch + 1:04d}.png")
        with tf.summary.create_file_writer(str(self.log_dir)).as_default():
            tf.summary.image("samples", grid[tf.newaxis], step=epoch + 1)


class StopAfter(keras.callbacks.Callback):
    """Ends training after a number of optimizer steps.

    Args:
        steps: optimizer steps in all, those of an earlier part of the training included.
    """

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        """Asks Keras to stop."""
        if keras.ops.convert_to_numpy(self.model.optimizer.iterations) >= self.steps:
            self.model.stop_training = True
