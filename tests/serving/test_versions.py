"""`tfnvp promote` and `tfnvp rollback` edit models.config."""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tfnvp import atomic_file
from tfnvp.cli import app
from tfnvp.serving import versions

pytest.importorskip("tensorflow_serving", reason="the extra `serving` is not installed")
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

SHIPPED = Path(__file__).parents[2] / "serving" / "models.config"


@pytest.fixture
def room(tmp_path):
    """A directory with the shipped models.config, and models of versions 1, 2 and 3."""
    shutil.copy(SHIPPED, tmp_path / "models.config")
    for name in ("digits", "cifar10_small", "mnist"):
        for version in ("1", "2", "3"):
            (tmp_path / "models" / name / version).mkdir(parents=True)
            (tmp_path / "models" / name / version / "saved_model.pb").touch()
    return tmp_path


def run(room, *args):
    places = ["--config", str(room / "models.config"), "--models", str(room / "models")]
    return CliRunner().invoke(app, [*args, *places])


def served(room, name="digits"):
    """The labels of a model, and the versions that stay loaded."""
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((room / "models.config").read_text(), config)
    (model,) = (model for model in config.model_config_list.config if model.name == name)
    return dict(model.version_labels), list(model.model_version_policy.specific.versions)


def test_labels_move_and_what_has_one_stays_loaded(room):
    result = run(room, "promote", "digits", "2", "--label", "canary")
    assert result.output == "digits: canary is version 2, before it was 1\n"
    assert served(room) == ({"stable": 1, "canary": 2}, [1, 2])
    run(room, "promote", "digits", "2")
    assert served(room) == ({"stable": 2, "canary": 2, "previous": 1}, [1, 2])
    # Two exports later the stable version is still named.
    run(room, "promote", "digits", "3", "--label", "canary")
    assert served(room) == ({"stable": 2, "canary": 3, "previous": 1}, [1, 2, 3])
    assert served(room, "cifar10_small") == ({"stable": 1, "canary": 1}, [1])
    comment = SHIPPED.read_text().partition("model_config_list")[0]
    assert (room / "models.config").read_text().startswith(comment)


def test_the_last_promotion_is_taken_back(room):
    run(room, "promote", "digits", "3")
    run(room, "promote", "digits", "3")  # It is stable already, and version 1 is still before it.
    result = run(room, "rollback", "digits")
    assert result.output == "digits: stable is version 1, before it was 3\n"
    assert served(room) == ({"stable": 1, "canary": 1, "previous": 3}, [1, 3])
    run(room, "rollback", "digits")
    assert served(room)[0]["stable"] == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("promote", "digits", "4"), "version 4 is not in"),
        (("promote", "letters", "1"), "has no model 'letters'; it has: digits, cifar10_small"),
        (("rollback", "digits"), "has no version of digits to go back to"),
        (("promote", "digits", "2", "--label", ""), "label must be a text"),
        (("promote", "digits", "2", "--label", "a\n"), "label must be a text"),
        (("promote", "digits", "2", "--label", "a/b"), "label must be a text"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_changes_nothing(room, args, message):
    before = (room / "models.config").read_text()
    result = run(room, *args)
    assert result.exit_code == 2 and message in result.output and result.output.count("\n") == 1
    assert (room / "models.config").read_text() == before


def test_versions_are_told_in_the_order_of_their_numbers(room):
    models = room / "models" / "digits"
    shutil.copytree(models / "2", models / "10")
    result = run(room, "promote", "digits", "4")
    assert "is not in" in result.output and "which has: 1, 2, 3, 10\n" in result.output


def test_a_version_that_is_gone_is_not_gone_back_to(room):
    run(room, "promote", "digits", "2")
    shutil.rmtree(room / "models" / "digits" / "1")
    result = run(room, "rollback", "digits")
    assert result.exit_code == 2 and "version 1 is not in" in result.output
    assert served(room)[0]["stable"] == 2


def test_a_file_that_is_none_or_cannot_be_written_is_left_alone(room, monkeypatch):
    for content in (b"model_config_list {", b"\xff"):
        (room / "models.config").write_bytes(content)
        result = run(room, "promote", "digits", "2")
        assert result.exit_code == 2 and "models.config is no models.config" in result.output
        assert (room / "models.config").read_bytes() == content
    shutil.copy(SHIPPED, room / "models.config")

    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(atomic_file.os, "replace", full)
    assert run(room, "promote", "digits", "2").exit_code == 2
    assert (room / "models.config").read_text() == SHIPPED.read_text()


def test_a_link_stays_one_and_names_may_be_of_any_language(room):
    (room / "models.config").rename(room / "real.config")
    (room / "models.config").symlink_to(room / "real.config")
    for label in ('ünï"\\', "stable"):
        assert run(room, "promote", "digits", "2", "--label", label).exit_code == 0
        assert served(room)[0][label] == 2
    assert (room / "models.config").is_symlink()


def test_without_the_extra_the_command_says_so(room, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.config", None)
    result = run(room, "rollback", "digits")
    assert result.exit_code == 2 and "of the extra `serving`" in result.output
    assert result.output.count("\n") == 1


def test_edits_at_the_same_time_are_all_kept(room):
    """Each waits for the one before."""
    names = ("digits", "cifar10_small", "mnist")
    places = (room / "models.config", room / "models")
    for version in (2, 3) * 5:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda name, v=version: versions.promote(*places, name, v), names))
        assert [served(room, name)[0]["stable"] for name in names] == [version] * 3


def test_the_file_keeps_its_mode(room):
    """A server that runs as another user goes on reading it."""
    (room / "models.config").chmod(0o640)
    run(room, "promote", "digits", "2")
    assert (room / "models.config").stat().st_mode & 0o777 == 0o640


def test_labels_of_versions_that_are_gone_are_taken_away(room):
    run(room, "promote", "digits", "3", "--label", "canary")
    shutil.rmtree(room / "models" / "digits" / "3")
    result = run(room, "promote", "digits", "2")
    assert "the label canary is taken away, for version 3 is gone" in result.output
    assert served(room) == ({"previous": 1, "stable": 2}, [1, 2])
    shutil.rmtree(room / "models" / "digits" / "1")
    moved = versions.promote(room / "models.config", room / "models", "digits", 2)
    assert moved == (2, 2, {"previous": 1})
    assert served(room) == ({"stable": 2}, [2])


def test_the_label_of_rollback_is_not_given_by_hand(room):
    result = run(room, "promote", "digits", "2", "--label", "previous")
    assert result.exit_code == 2 and "must be another than previous" in result.output
