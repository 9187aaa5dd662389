"""What happens while a model trains: the best weights are kept, and it ends when it should."""

import os

import keras


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
