"""The launchers tell each worker of the others, and pass on what training is asked for."""

import json
import os
import subprocess
import textwrap
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "train" / "launch"
SHOW = '#!/usr/bin/env bash\necho "$TF_CONFIG" >> "$SHOWN"\necho "$@" >> "$SHOWN"\n'


@pytest.fixture
def launched(tmp_path):
    """launched(command, **programs): status, and what each worker was told and asked for."""

    def launch(command, environment=None, **programs):
        for name, text in {"python": SHOW, **programs}.items():
            path = tmp_path / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        shown = tmp_path / "shown"
        environment = {
            **os.environ,
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "PYTHON": "python",
            "SHOWN": str(shown),
            **(environment or {}),
        }
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        lines = shown.read_text().splitlines() if shown.exists() else []
        workers = [
            (json.loads(config), args) for config, args in zip(lines[::2], lines[1::2], strict=True)
        ]
        return done, sorted(workers, key=lambda worker: worker[0]["task"]["index"])

    return launch


def check(workers, addresses, args):
    for index, (config, given) in enumerate(workers):
        assert config["cluster"] == {"worker": addresses}
        assert config["task"] == {"type": "worker", "index": index}
        assert given == args
    assert len(workers) == len(addresses)


def test_local(launched, tmp_path):
    # Lines of workers that write at once would mix.
    program = SHOW.replace("\necho", "\nexec 9> lock; flock 9\necho", 1)
    command = [LAUNCH / "local.sh", "2", "digits", "--run-dir", "runs/two"]
    done, workers = launched(command, {"PORT": "30000"}, python=program)
    assert done.returncode == 0, done.stderr
    args = "-m train digits --run-dir runs/two --strategy multi_worker"
    check(workers, ["127.0.0.1:30000", "127.0.0.1:30001"], args)
    done, _ = launched([*command[:3]])
    assert done.returncode == 2 and "--run-dir DIR is needed" in done.stderr
    done, _ = launched(command, python="#!/usr/bin/env bash\nexit 143\n")
    assert done.returncode == 143


@pytest.mark.parametrize(("restarts", "begun"), [(0, False), (1, False), (1, True)])
def test_slurm(restarts, begun, launched, tmp_path):
    if begun:
        (tmp_path / "a run").mkdir()
        (tmp_path / "a run" / "config.json").touch()
    done, workers = launched(
        [LAUNCH / "slurm.sh", "cifar10", "--run-dir", "a run"],
        {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_RESTART_COUNT": str(restarts)},
        srun='#!/usr/bin/env bash\nfor i in 0 1; do SLURM_PROCID=$i "$@"; done\n',
        scontrol='#!/usr/bin/env bash\n[[ "$3" == "node[1-2]" ]] && echo node1 node2\n',
    )
    assert done.returncode == 0, done.stderr
    resume = " --resume" if begun else ""
    args = f"-m train cifar10 --run-dir a run{resume} --strategy multi_worker"
    check(workers, ["node1:29400", "node2:29400"], args)


@pytest.mark.parametrize("begun", [False, True])
def test_kubernetes(begun, launched, tmp_path):
    manifest = (LAUNCH / "kubernetes.yaml").read_text()
    script = manifest.split("            - |\n")[1].split("          env:")[0]
    script = textwrap.dedent(script).replace(".venv/bin/python", "python")
    if begun:
        (tmp_path / "config.json").touch()
    for index in range(2):
        environment = {"JOB_COMPLETION_INDEX": str(index), "RUN_DIR": str(tmp_path)}
        done, workers = launched(["bash", "-c", script], environment)
        assert done.returncode == 0, done.stderr
    args = f"-m train cifar10 --strategy multi_worker --run-dir {tmp_path}"
    hosts = [f"tfnvp-train-{i}.tfnvp-train:29400" for i in range(2)]
    check(workers, hosts, args + (" --resume" if begun else ""))
