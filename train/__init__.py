"""The training program from a checkout: `python -m train RECIPE`, launchers, and releases."""

import os

# The programs of this package want a quiet TensorFlow, which listens only before it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
