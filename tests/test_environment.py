"""`import tfnvp` where something around it is wrong says so in one line."""

import importlib.metadata
import os
import subprocess
import sys

import pytest

_OTHER_BACKEND = """
import sys, types

keras = types.ModuleType("keras")
keras.backend = types.SimpleNamespace(backend=lambda: "torch")
sys.modules["keras"] = keras
import tfnvp
"""

_HIDING_TF_KERAS = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *args):
        return None if name.split(".")[0] == "tf_keras" else self.finder.find_spec(name, *args)

sys.meta_path[:] = map(Hiding, sys.meta_path)
import tfnvp
"""

_HIDING_JAX = _HIDING_TF_KERAS.replace("tf_keras", "jax")


def _import(code="import tfnvp", **environment):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("code", "environment", "message"),
    [
        (
            _OTHER_BACKEND,
            {},
            "tfnvp needs Keras' tensorflow backend, but it is 'torch': set "
            "KERAS_BACKEND=tensorflow before keras is imported",
        ),
        (
            _HIDING_JAX,
            {"KERAS_BACKEND": "jax"},
            "tfnvp needs Keras' tensorflow backend, but Keras is set to one that needs jax: set "
            "KERAS_BACKEND=tensorflow before keras is imported",
        ),
        (
            _HIDING_TF_KERAS,
            {},
            "tfnvp needs tf-keras, which tensorflow-probability imports: pip install tf-keras",
        ),
    ],
    ids=["backend", "missing backend", "tf-keras"],
)
def test_what_is_wrong_is_said_in_one_line(code, environment, message):
    result = _import(code, **environment)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"ImportError: {message}"
    # The first and only error, not one on the way from another.
    assert result.stderr.count("Error: ") == 1


def test_public_names_are_there():
    import tfnvp

    assert all(hasattr(tfnvp, name) for name in tfnvp.__all__)
    assert tfnvp.__version__ == importlib.metadata.version("tfnvp")
