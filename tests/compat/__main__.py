"""Tries tfnvp with the oldest, a middle and the newest versions of what it stands on.

    python tests/compat            # `make compat`: every set, and docs/compatibility.md
    python tests/compat --short    # `make test-oldest`: the oldest set, what matters most

It makes an environment for each set in .compat/ with uv, which fetches the Python where it is not
there. In each the laws, the models and the exports are tested, and each set reads models that each
other one has written. The page has how many tests passed and the largest difference of log_prob.
The short part has a few of the tests, and the oldest set reads what this environment has written.
It says so and passes where there is no uv, no Python of that version or no index.
"""

import argparse
import configparser
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "compatibility.md"

# Each set: its Python, and what is asked of the resolver beyond setup.cfg.
SETS = {
    "oldest": ("3.11", ["--resolution", "lowest-direct"]),
    "middle": ("3.12", ["tensorflow==2.20.*", "keras==3.12.*"]),
    "newest": ("3.13", []),
}
LIBRARIES = ("tensorflow", "tf-keras", "keras", "tensorflow-probability", "numpy", "protobuf")
EXTRAS = "data,serving,serve"
TOOLS = ["pytest>=8", "pytest-xdist>=3", "pandas>=2.2", "jax>=0.10,<0.11"]

TESTS = {
    "laws": ["bijectors/test_laws.py", "layers/test_laws.py", "graph/test_internals.py"],
    "models": [
        "models/test_flow_model.py",
        "models/test_image_saved.py",
        "models/test_image_training.py",
        "models/test_presets.py",
        "models/test_row_weights.py",
        "models/test_saved_variables.py",
        "models/test_vector_real_nvp.py",
        "test_optimizers.py",
        "data/test_tfds_sets.py",
    ],
    "exports": ["serving/test_export.py", "test_stablehlo.py"],
}
SHORT = ["graph/test_internals.py", "models/test_row_weights.py::test_arrays_have_weights"]

ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


class Unavailable(SystemExit):
    """There is not here what environments are made with."""


class Environment:
    """An environment in which tfnvp is installed.

    Attributes:
        python: its interpreter.
    """

    def __init__(self, python):
        self.python = Path(python)

    @classmethod
    def of_set(cls, name):
        """Makes that of a set anew."""
        directory = ROOT / ".compat" / name
        version, asked = SETS[name]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        uv = shutil.which("uv", path=path)
        if uv is None:
            raise Unavailable("environments are made with uv: pip install uv")
        new = cls(directory / "bin" / "python")
        made = _uv(uv, "venv", "--clear", "--python", version, directory)
        if made.returncode:
            raise Unavailable(f"uv has no Python {version}: {made.stderr.strip()}")
        package = ["--editable", f".[{EXTRAS}]"]
        made = _uv(uv, "pip", "install", "--python", new.python, *package, *TOOLS, *asked)
        # It is 1 where no versions satisfy what is asked, and 2 where no index answers.
        if made.returncode:
            raise (Unavailable if made.returncode == 2 else SystemExit)(made.stderr.strip())
        return new

    def versions(self):
        """The versions of Python and of what tfnvp stands on."""
        program = "import importlib.metadata as m, json, platform, sys\n"
        program += "found = [platform.python_version(), *map(m.version, sys.argv[1:])]\n"
        program += "print(json.dumps(found))"
        return json.loads(self.printed("-c", program, *LIBRARIES))

    def printed(self, *arguments):
        """The last line that a program prints."""
        done = subprocess.run(
            [self.python, *arguments], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{self.python} {' '.join(map(str, arguments))}:\n{done.stderr}")
        return done.stdout.splitlines()[-1] if done.stdout else ""

    def test(self, paths):
        """The closing line of pytest over some files of tests, which all have to pass."""
        options = ["-p", "no:cacheprovider", "-m", "not slow", "--numprocesses", "2"]
        files = [HERE.parent / path for path in paths]
        command = [self.python, "-m", "pytest", *options, "--dist", "loadfile", *files]
        done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
        print(done.stdout if done.returncode else done.stdout.splitlines()[-1], flush=True)
        if done.returncode:
            raise SystemExit(f"tests failed in {self.python}")
        return done.stdout.splitlines()[-1]


def _uv(uv, *arguments):
    command = [uv, *map(str, arguments), "--quiet"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def exchange(environments, directory):
    """Has every set write, and then read: the largest differences by reader, then writer."""
    for writer, one in environments.items():
        one.printed(HERE / "exchange.py", "write", directory / writer)
    written = [directory / writer for writer in environments]
    return {
        reader: json.loads(one.printed(HERE / "exchange.py", "read", *written))
        for reader, one in environments.items()
    }


def table(*rows):
    """Rows of a table in Markdown, the first of which is its head."""
    head, *rest = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *rest])


def page(versions, tests, differences):
    """The text of docs/compatibility.md."""
    passed = {
        name: [re.search(r"\d+ passed(, \d+ skipped)?", line)[0] for line in of_set.values()]
        for name, of_set in tests.items()
    }
    figures = {
        name: [f"{difference:.1e}" for difference in of_reader]
        for name, of_reader in differences.items()
    }
    filled = {
        "ranges": table(("what", "versions"), *ranges()),
        "machine": f"{platform.system()} {platform.machine()}, {time.strftime('%Y-%m-%d')}",
        "versions": table(("set", "Python", *LIBRARIES), *_rows(versions)),
        "tests": table(("set", *TESTS), *_rows(passed)),
        "differences": table(("read by", *(f"written by {x}" for x in SETS)), *_rows(figures)),
    }
    return (HERE / "page.md").read_text().format(**filled)


def _rows(cells):
    return [(name, *of_name) for name, of_name in cells.items()]


def ranges():
    """The versions that setup.cfg allows: rows of a name and a range."""
    # It is read as a configuration: a source distribution has it in other spaces.
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    yield "Python", config["options"]["python_requires"]
    needed = map(str.split, config["options"]["install_requires"].strip().splitlines())
    versions = {name: " ".join(allowed) for name, *allowed in needed}
    for name in LIBRARIES[:-1]:
        yield name, versions[name]


def main():
    """Does what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="the oldest set alone, a few tests")
    short = parser.parse_args().short
    with tempfile.TemporaryDirectory() as directory:
        if short:
            try:
                here, oldest = Environment(sys.executable), Environment.of_set("oldest")
            except Unavailable as reason:
                print(f"the oldest versions are not tried: {str(reason).partition(chr(10))[0]}")
                return
            oldest.test(SHORT)
            here.printed(HERE / "exchange.py", "write", Path(directory, "here"))
            difference = oldest.printed(HERE / "exchange.py", "read", Path(directory, "here"))
            print(f"models written here, read there: log_prob differs by at most {difference} nats")
            return
        environments = {name: Environment.of_set(name) for name in SETS}
        versions = {name: one.versions() for name, one in environments.items()}
        differences = exchange(environments, Path(directory))
        tests = {
            name: {room: one.test(paths) for room, paths in TESTS.items()}
            for name, one in environments.items()
        }
    PAGE.write_text(page(versions, tests, differences))
    print(f"written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
