"""Checks what is about to be released, by the archives that a user would get.

    python tests/release archives    # builds dist/, and looks at it as a package index would
    python tests/release source      # unpacks the source distribution and runs its tests
    python tests/release readme      # installs the wheel alone and runs the README, top to bottom

`make release-check` runs all of them. The last one is in an empty environment and an empty
directory: each step has its seconds, and what it says on the standard error, but for TensorFlow's
import. A step that fails or warns is an error.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"
BIN = Path(sys.executable).parent
# TensorFlow's import writes such lines from C++.
_NOISE = r"WARNING: All log messages|[IWE]\d{4} |\d{4}-\d\d-\d\d .* [IWE] |To enable the following"


def _run(*command, cwd=ROOT, **more):
    return subprocess.run(list(map(str, command)), cwd=cwd, check=True, **more)


def archives():
    """Builds both archives, of which nothing is left from an earlier build."""
    for directory in (DIST, ROOT / "build"):
        shutil.rmtree(directory, ignore_errors=True)
    _run(BIN / "uv", "build", "--quiet")
    _run(BIN / "uv", "tool", "run", "--quiet", "twine", "check", "--strict", *DIST.glob("tfnvp-*"))


def source():
    """Runs `make test` in the unpacked source distribution."""
    (archive,) = DIST.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as directory:
        with tarfile.open(archive) as unpacked:
            unpacked.extractall(directory, filter="data")
        (unpacked,) = Path(directory).iterdir()
        _run("make", "test", cwd=unpacked)


def newcomers_steps(text):
    """Yields what a README has a reader run anywhere: commands of tfnvp and programs, in order.

    A usage, which has RECIPE for a name, is no command.
    """
    found = re.finditer(
        r"^```python\n(.*?)^```$|^    (tfnvp [^\n#]*)", text, re.DOTALL | re.MULTILINE
    )
    for match in found:
        program, command = match.groups()
        if program is not None:
            yield "python", program
        elif "RECIPE" not in command:
            yield "sh", command.rstrip()


def readme():
    """Runs the README's steps with the wheel and what it asks for, and nothing else."""
    (wheel,) = DIST.glob("*.whl")
    with tempfile.TemporaryDirectory() as directory:
        environment, empty = Path(directory, "environment"), Path(directory, "empty")
        empty.mkdir()
        variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        variables["PATH"] = f"{environment / 'bin'}{os.pathsep}{variables['PATH']}"
        started = time.monotonic()
        _run(sys.executable, "-m", "venv", environment)
        _run(environment / "bin" / "python", "-m", "pip", "install", "--quiet", wheel, cwd=empty)
        print(f"{time.monotonic() - started:6.1f} s  pip install {wheel.name}", flush=True)
        for kind, text in newcomers_steps((ROOT / "README.md").read_text()):
            before = time.monotonic()
            program = [environment / "bin" / "python", "-c"] if kind == "python" else ["sh", "-c"]
            done = subprocess.run(
                [*program, text], cwd=empty, env=variables, capture_output=True, text=True
            )
            first, seconds = text.splitlines()[0], time.monotonic() - before
            print(f"{seconds:6.1f} s  {first}", flush=True)
            said = [line for line in done.stderr.splitlines() if not re.match(_NOISE, line)]
            print("".join(f"          {line}\n" for line in said), end="", flush=True)
            if done.returncode or re.search("warn", "".join(said), re.IGNORECASE):
                raise SystemExit(f"{text}\n{done.stdout}\n{done.stderr}")


if __name__ == "__main__":
    steps = {"archives": archives, "source": source, "readme": readme}
    if sys.argv[1:] not in [[name] for name in steps]:
        raise SystemExit(__doc__)
    steps[sys.argv[1]]()
