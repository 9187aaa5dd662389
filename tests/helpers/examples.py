"""The programs of examples/, run as they stand but for numbers."""

import os
import re
from pathlib import Path

from helpers import strategy_program

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name, **replaced):
    """Runs a program of examples/ and returns its names; patterns are replaced in it before."""
    program = (EXAMPLES / f"{name}.py").read_text()
    for pattern, replacement in replaced.values():
        program, count = re.subn(pattern, replacement, program)
        assert count == 1, pattern
    names = {"__name__": "__main__"}
    exec(program, names)
    return names


# Two batches and one scale: most of the time goes into graphs.
SHORT = {
    "epochs": (r"epochs=\d+", "epochs=1"),
    "images": (r"(images = tfnvp\.data\.load\(.*\))", r"\1.take(2)"),
}


def several_devices(count, directory):
    """Runs the example of several GPUs on so many logical CPUs, for a process of its own."""
    os.chdir(directory)
    strategy_program.several(count)
    small = (r'"digits"\)\n', '"digits", num_scales=1, filters=4)\n')
    names = run("multi_gpu", small=small, **SHORT)
    print(f"differ by {strategy_program.differ(names['strategy'], names['model'])}")
