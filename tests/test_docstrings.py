"""The examples in docstrings run after `import tfnvp` alone, and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import tfnvp

MODULES = ["tfnvp"] + [m.name for m in pkgutil.walk_packages(tfnvp.__path__, "tfnvp.")]
_FINDER = doctest.DocTestFinder(exclude_empty=True)


def _examples(name):
    module = importlib.import_module(name)
    return [test for test in _FINDER.find(module, globs={"tfnvp": tfnvp}) if test.examples]


# These take ten seconds and more.
SLOW = ("tfnvp.callbacks", "tfnvp.latent", "tfnvp.plotting", "tfnvp.serving.saved_model")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW))
        for name in MODULES
        if _examples(name)
    ],
)
def test_examples_run(name):
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in _examples(name):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_public_classes_have_an_example():
    """Bijectors and models have one; layers that stand within these need none."""
    public = [
        getattr(module, name)
        for module in (tfnvp, tfnvp.bijectors)
        for name in module.__all__
        if isinstance(getattr(module, name), type)
    ]
    without = {cls.__name__ for cls in public if ">>>" not in cls.__doc__}
    assert without == {"FlowBijector"}
