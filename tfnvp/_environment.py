"""The checks of what tfnvp needs around it, done when it is imported."""

import contextlib
import importlib.metadata
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tfnvp._version import __version__


def extra(name: str) -> str:
    """Names an extra that is missing, and how it is installed from a checkout or the wheel."""
    wheel = f"tfnvp-{__version__}-py3-none-any.whl"
    return f"the extra `{name}`: pip install '.[{name}]' in tfnvp's checkout, or '{wheel}[{name}]'"


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


def _check_versions() -> None:
    """Raises an ImportError at the first version that tfnvp's own metadata leave out.

    pip minds them when it installs, and not when something else is installed afterwards.
    """
    try:
        own = importlib.metadata.metadata("tfnvp")
    except importlib.metadata.PackageNotFoundError:
        return  # A directory on the path says nothing of what it needs.
    python = ".".join(map(str, sys.version_info[:3]))
    if python not in (known := SpecifierSet(own["Requires-Python"])):
        raise ImportError(f"tfnvp {own['Version']} needs Python {_plain(known)}, this is {python}")
    for requirement in map(Requirement, importlib.metadata.requires("tfnvp")):
        if requirement.marker:  # An extra is looked for where it is used.
            continue
        try:
            found = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue  # Its import says so, or finds it under the name of another distribution.
        if not requirement.specifier.contains(found, prereleases=True):
            needed = requirement.name + _plain(requirement.specifier)
            raise ImportError(
                f"tfnvp {own['Version']} needs {needed}, but {found} is installed: "
                f"pip install '{needed}'"
            )


def _plain(versions: SpecifierSet) -> str:
    """Writes a range of versions with its lower bound first."""
    return ",".join(sorted(map(str, versions), reverse=True))


def check() -> None:
    """Raises an ImportError that says what to install or set."""
    _check_versions()
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
