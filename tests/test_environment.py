"""`import tfnvp` where something around it is wrong says so in one line."""

import importlib.metadata
import os
import subprocess
import sys

import pytest

VERSION = importlib.metadata.version("tfnvp")

_OTHER_BACKEND = """
import sys, types

keras = types.ModuleType("keras")
keras.backend = types.SimpleNamespace(backend=lambda: "torch")
sys.modules["keras"] = keras
import tfnvp
"""


def _hiding(*modules):
    """A program that imports tfnvp where some modules are not installed."""
    return f"""
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *args):
        return None if name.split(".")[0] in {modules} else self.finder.find_spec(name, *args)

sys.meta_path[:] = map(Hiding, sys.meta_path)
import tfnvp
"""


# Nothing heavy is imported before versions are looked at.
_WITH_KERAS_3_8 = """
import importlib.metadata

version = importlib.metadata.version
importlib.metadata.version = lambda name: "3.8.0" if name == "keras" else version(name)
import tfnvp
"""

_ON_PYTHON_3_10 = """
import sys

sys.version_info = (3, 10, 13, "final", 0)
import tfnvp
"""

# The modules of all extras, and pyarrow, which comes with TFDS.
_EXTRAS = ("tensorflow_datasets", "importlib_resources", "pyarrow", "tensorflow_serving", "grpc")
_EXTRAS += ("httpx", "fastapi", "uvicorn", "yaml", "pandas", "jax")


def _import(code, cwd=None, **environment):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
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
            _hiding("jax"),
            {"KERAS_BACKEND": "jax"},
            "tfnvp needs Keras' tensorflow backend, but Keras is set to one that needs jax: set "
            "KERAS_BACKEND=tensorflow before keras is imported",
        ),
        (
            _hiding("tf_keras"),
            {},
            "tfnvp needs tf-keras, which tensorflow-probability imports: pip install tf-keras",
        ),
        (
            _WITH_KERAS_3_8,
            {},
            f"tfnvp {VERSION} needs keras>=3.10,<4, but 3.8.0 is installed: "
            "pip install 'keras>=3.10,<4'",
        ),
        (
            _ON_PYTHON_3_10,
            {},
            f"tfnvp {VERSION} needs Python >=3.11,<3.14, this is 3.10.13",
        ),
    ],
    ids=["backend", "missing backend", "tf-keras", "keras", "python"],
)
def test_what_is_wrong_is_said_in_one_line(code, environment, message):
    result = _import(code, **environment)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"ImportError: {message}"
    # The first and only error, not one on the way from another.
    assert result.stderr.count("Error: ") == 1


def test_the_core_does_without_every_extra(tmp_path):
    """A data set that is embedded, a model that ships, a picture; sets of TFDS say what to do."""
    program = (
        _hiding(*_EXTRAS)
        + """
from tfnvp import cli

print(tfnvp.data.load("digits", "test", 64).cardinality().numpy())
try:
    tfnvp.data.load("mnist")
except ImportError as error:
    print(error)
cli.app(["sample", "digits", "--to", "samples.png", "-n", "4"], prog_name="tfnvp")
"""
    )
    result = _import(program, TF_CPP_MIN_LOG_LEVEL="3", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[:2] == [
        "5",
        "the TFDS set mnist is read by tensorflow-datasets, of the extra `data`: "
        "pip install '.[data]' in tfnvp's checkout, or "
        f"'tfnvp-{importlib.metadata.version('tfnvp')}-py3-none-any.whl[data]'",
    ]
    assert (tmp_path / "samples.png").stat().st_size > 100
    assert "Warning" not in result.stderr


def test_public_names_are_there():
    import tfnvp

    assert all(hasattr(tfnvp, name) for name in tfnvp.__all__)
    assert tfnvp.__version__ == importlib.metadata.version("tfnvp")
