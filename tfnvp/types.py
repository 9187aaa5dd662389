"""Names for the types that several rooms of tfnvp use in their hints."""

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

# Whatever `tf.convert_to_tensor` takes: tensors, variables, arrays, numbers and lists of these.
TensorLike = tf.Tensor | tf.Variable | keras.Variable | np.ndarray | ArrayLike
