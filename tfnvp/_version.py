"""The version of tfnvp, which setup.cfg reads too: without TensorFlow, so in a file by itself."""

__version__ = "0.2.0"
