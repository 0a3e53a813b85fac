"""What lies in deploy/: the SLURM file run by a shell, the others read; no cluster is at hand."""

import importlib.util
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import fsspec
import pytest
import yaml

from kg4d.config.load import expand
from kg4d.config.schema import ExperimentConfig
from kg4d.utils.object_storage import StoredFolder

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SBATCH = DEPLOY / "slurm" / "fits.sbatch"


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def node(tmp_path: Path) -> dict[str, str]:
    """The environment of a task whose fits and whose SLURM write down what they are told."""
    program(tmp_path / "scontrol", f'echo "$@" >> {tmp_path}/slurm')
    python = program(tmp_path / "python", f'printf "%s\\n" "$@" > {tmp_path}/told')
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": str(python), "SLURM_JOB_ID": "7"}


def test_shell_scripts_are_sound() -> None:
    subprocess.run(["bash", "-n", str(SBATCH)], check=True)
    directives = re.findall(r"^#SBATCH --(\S+)", SBATCH.read_text(), re.M)
    assert {"requeue", "signal=B:TERM@180", "open-mode=append"} <= set(directives)


def test_the_tasks_of_an_array_are_all_fits_once(node: dict[str, str], tmp_path: Path) -> None:
    several = {"SCENES": "synthetic:walker synthetic:room", "SEEDS": "0 1"}
    told = []
    for task in range(12):
        subprocess.run(["bash", str(SBATCH)], env={**node, **several, "SLURM_ARRAY_TASK_ID": str(task)}, check=True)
        words = (tmp_path / "told").read_text().splitlines()
        assert words[:2] == ["-m", "kg4d.fit"]
        options = dict(zip(words[2:6:2], words[3:6:2]))
        overrides = words[7:]
        [one] = expand(ExperimentConfig, ROOT / options["--config"], overrides, variant=options["--variant"])
        assert words[6] == "--resume"
        told.append((one.scene, one.variant, one.seed))
    variants = ("full", "no_wgf", "no_wgf_kfc")
    assert told == [(scene, variant, seed) for scene in ("walker", "room") for variant in variants for seed in (0, 1)]
    over = subprocess.run(["bash", str(SBATCH)], env={**node, **several, "SLURM_ARRAY_TASK_ID": "12"}, check=False)
    assert over.returncode == 2
    assert not (tmp_path / "slurm").exists()


def test_a_task_that_is_stopped_is_queued_again(node: dict[str, str], tmp_path: Path) -> None:
    program(
        tmp_path / "python",
        f'trap "sleep 0.3; touch {tmp_path}/saved; exit 143" TERM\ntouch {tmp_path}/up\nwhile :; do sleep 0.05; done',
    )
    env = {**node, "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3"}
    task = subprocess.Popen(["bash", str(SBATCH)], env=env)
    deadline = time.monotonic() + 60
    while not (tmp_path / "up").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    task.send_signal(signal.SIGTERM)
    assert task.wait(timeout=60) == 143
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "slurm").read_text() == "requeue 5_3\n"


def test_a_task_that_fails_is_not(node: dict[str, str], tmp_path: Path) -> None:
    program(tmp_path / "python", "exit 2")
    assert subprocess.run(["bash", str(SBATCH)], env=node, check=False).returncode == 2
    assert not (tmp_path / "slurm").exists()


def test_the_ray_cluster_file_has_what_the_launcher_needs() -> None:
    cluster = yaml.safe_load((DEPLOY / "ray" / "cluster.yaml").read_text())
    assert {"cluster_name", "provider", "auth", "head_start_ray_commands", "worker_start_ray_commands"} <= set(cluster)
    assert cluster["provider"]["type"] == "local"
    for command in [
        *cluster["setup_commands"],
        *cluster["head_start_ray_commands"],
        *cluster["worker_start_ray_commands"],
    ]:
        subprocess.run(["bash", "-n"], input=command, text=True, check=True)


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (DEPLOY / "Containerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines]


def test_the_container_file_keeps_the_usual_rules() -> None:
    found = instructions()
    known = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "RUN", "USER", "WORKDIR"}
    assert {name for name, _ in found} <= known
    assert found[0][0] == "FROM"
    for name, rest in found:
        if name == "FROM":
            assert re.match(r"\S+/\S+:[\w.-]+", rest)
            assert ":latest" not in rest
        if name == "RUN":
            subprocess.run(["bash", "-n"], input=rest, text=True, check=True)
            assert "apt-get install" not in rest or ("--no-install-recommends" in rest and "rm -rf" in rest)
            assert "pip install" not in rest or "--no-cache-dir" in rest
        if name == "COPY" and "--from" not in rest:
            for source in [word for word in rest.split() if not word.startswith("--")][:-1]:
                assert (ROOT / source).exists(), source
    last = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    assert ("USER", "1000") in found[last:]  # not root


@pytest.fixture
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("prepare_clips", DEPLOY / "ray" / "prepare_clips.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    fsspec.filesystem("memory").rm("/", recursive=True)


def test_clips_are_prepared_once_and_failures_are_lines(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if "bad" in command[4]:
            return subprocess.CompletedProcess(command, 2, "", "kg4d: error: bad.mp4: no such file\n")
        Path(command[6]).mkdir(parents=True)
        (Path(command[6]) / "scene.json").write_text("{}")
        return subprocess.CompletedProcess(command, 0, "", "")

    calls: list[list[str]] = []
    monkeypatch.setattr(script.subprocess, "run", prepare)
    for out in ("memory://scenes", str(tmp_path / "scenes")):
        calls.clear()
        for _ in range(2):
            made = script.prepare_clip({"text": "a/fox.mp4\n"}, out, 2, ["frames=8"])
        assert made == {"clip": "a/fox.mp4", "scene": script.scene_of("a/fox.mp4", out), "error": ""}
        assert len(calls) == 1
        assert calls[0][1:5] == ["-m", "kg4d.prepare", "--input", "a/fox.mp4"]
        assert calls[0][7:] == ["frames=8"]
        failed = script.prepare_clip({"text": "a/bad.mp4"}, out, 2, [])
        assert failed["error"] == "kg4d: error: bad.mp4: no such file"
    assert StoredFolder(script.scene_of("a/fox.mp4", "memory://scenes")).listing().keys() == {"scene.json"}
    assert script.scene_of("a/fox.mp4", "x") != script.scene_of("b/fox.mp4", "x")
