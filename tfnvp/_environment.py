"""The checks of what tfnvp needs around it, done when it is imported."""

import contextlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def quiet_if_asked() -> Iterator[None]:
    """Holds TensorFlow's own lines back while it is imported, if TF_CPP_MIN_LOG_LEVEL is 3.

    TensorFlow does not heed that variable before it is set up, and it writes from C++, past
    sys.stderr. An error lets everything through.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "3":
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(stderr, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def check() -> None:
    """Raises an ImportError that says what to install or set."""
    needs = "tfnvp needs Keras' tensorflow backend, but"
    remedy = "set KERAS_BACKEND=tensorflow before keras is imported"
    try:
        import keras
    except ModuleNotFoundError as error:
        if error.name.partition(".")[0] in ("keras", "tensorflow"):
            raise
        name = error.name
        raise ImportError(f"{needs} Keras is set to one that needs {name}: {remedy}") from None
    if (backend := keras.backend.backend()) != "tensorflow":
        raise ImportError(f"{needs} it is {backend!r}: {remedy}")
    if importlib.util.find_spec("tf_keras") is None:
        raise ImportError(
            "tfnvp needs tf-keras, which tensorflow-probability imports: pip install tf-keras"
        )


# TensorFlow turns oneDNN on by itself only on CPUs with AVX-512, and trains half as fast without it
# on the others. It reads this when it is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

if Path(sys.argv[0]).stem == "tfnvp":
    # The installed command has no earlier chance to ask for a quiet TensorFlow.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
