"""The steps of `make release-check` are all that the README has a newcomer run."""

from release.__main__ import ROOT, newcomers_steps

STEPS = list(newcomers_steps((ROOT / "README.md").read_text()))


def test_the_first_picture_is_the_first_step():
    """Which with `pip install` makes two commands."""
    kind, command = STEPS[0]
    assert kind == "sh" and command.startswith("tfnvp sample") and ".png" in command


def test_all_programs_and_commands_are_steps():
    text = (ROOT / "README.md").read_text()
    assert [kind for kind, _ in STEPS].count("python") == text.count("```python") > 3
    commands = [command for kind, command in STEPS if kind == "sh"]
    assert commands[-1] == "tfnvp info digits" and len(commands) == text.count("\n    tfnvp ") - 1


def test_a_usage_and_a_comment_are_no_commands():
    text = (
        "    tfnvp train RECIPE [--epochs N]\n\n    tfnvp info x   # says\n```python\nx = 1\n```\n"
    )
    assert list(newcomers_steps(text)) == [("sh", "tfnvp info x"), ("python", "x = 1\n")]
