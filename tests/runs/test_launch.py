"""The processes of a fit: how many and where is settled before anything starts, and they end together."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kg4d.errors import InputError
from kg4d.runs import launch
from kg4d.runs.launch import Crew, crew_of
from kg4d.utils import cli
from kg4d.utils.ranks import Ranks
from tests.tiny_runs import ROOT, TINY, tiny

TWO = Crew(2, on_gpu=False, started=False)


def crew(tmp_path: Path, *overrides: str) -> Crew:
    return crew_of(tiny(tmp_path, *overrides))


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(launch, "gpu_missing_reason", lambda: None if count else "torch finds no NVIDIA GPU")


def test_one_process_looks_for_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "gpu_missing_reason", lambda: pytest.fail("asked"))
    assert crew(tmp_path) == Crew(1, on_gpu=False, started=False)
    assert crew(tmp_path).device(0, "auto") == "auto"


@pytest.mark.parametrize(("devices", "count"), [("2", 2), ("auto", 3), ("-1", 3)])
def test_each_process_gets_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: str, count: int) -> None:
    gpus(monkeypatch, 3)
    found = crew(tmp_path, f"trainer.devices={devices}")
    assert (found.count, found.on_gpu) == (count, True)
    assert [found.device(rank, "auto") for rank in range(count)] == [f"cuda:{rank}" for rank in range(count)]


def test_on_the_cpu_auto_is_one_and_more_are_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    assert crew(tmp_path, "trainer.devices=auto").count == 1
    two = crew(tmp_path, "trainer.devices=2", "trainer.accelerator=cpu")
    assert (two.count, two.on_gpu, two.device(1, "auto")) == (2, False, "cpu")


@pytest.mark.parametrize(
    ("count", "overrides", "message"),
    [
        (0, ["trainer.devices=2"], "2 processes need as many GPUs, but torch finds no NVIDIA GPU"),
        (2, ["trainer.devices=3"], "is 3, but this process may use 2 GPUs"),
        (2, ["trainer.devices=2", "renderer.kind=cpu"], "need as many GPUs, but the renderer is to use the CPU"),
        (2, ["trainer.devices=2", "renderer.device=cuda:1"], "renderer.device: names one GPU"),
        (2, ["trainer.accelerator=cpu", "renderer.kind=cuda"], "trainer.accelerator: is cpu, and the renderer"),
        (2, ["trainer.accelerator=gpu", "renderer.device=cpu"], "trainer.accelerator: is gpu, and the renderer"),
        (0, ["trainer.accelerator=gpu"], "trainer.accelerator: is gpu, but torch finds no NVIDIA GPU"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, overrides: list[str], message: str
) -> None:
    gpus(monkeypatch, count)
    with pytest.raises(InputError, match=message):
        crew(tmp_path, *overrides)


def test_slurm_tasks_must_be_as_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_PROCID": "1", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="ntasks-per-node"):
        crew(tmp_path)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    assert not launch.is_first()
    with pytest.raises(InputError, match="is 1, but 2 processes were started"):
        crew(tmp_path)
    assert crew(tmp_path, "trainer.devices=2", "trainer.accelerator=cpu").started


@pytest.mark.parametrize(
    "setting", ["trainer.devices=two", "trainer.strategy=fsdp", "trainer.precision=16-mixed", "renderer.device=cuda:x"]
)
def test_a_wrong_setting_leaves_the_earlier_run_alone(tmp_path: Path, setting: str) -> None:
    earlier = tmp_path / "kg4d/full/seed0/metrics.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("{}")
    words = ["--config", "experiments/kg4d.yaml", "--overwrite", f"output={tmp_path}", setting]
    done = subprocess.run([sys.executable, "-m", "kg4d.fit", *words], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert setting.split("=")[0] in done.stderr
    assert earlier.read_text() == "{}"


def adds(ranks: Ranks, local_rank: int) -> None:
    total = ranks.total(torch.tensor([1.0, ranks.rank]))
    assert total.tolist() == [2.0, 1.0]
    assert ranks.told(f"from {ranks.rank}") == "from 0"
    assert ranks.anywhere(not ranks.first)


def is_killed(ranks: Ranks, local_rank: int) -> None:
    if not ranks.first:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.wait()


def fails(ranks: Ranks, local_rank: int) -> None:
    if not ranks.first:
        raise FloatingPointError("of the second")
    ranks.wait()


def is_wrongly_asked(ranks: Ranks, local_rank: int) -> None:
    if ranks.first:
        raise InputError("a key", "is wrong", "mend it")
    ranks.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "status", "line"),
    [
        (adds, 0, ""),
        (is_killed, 1, "process 1 of 2 was killed by SIGKILL"),
        (fails, 1, "process 1 of 2 failed with FloatingPointError: of the second"),
        (is_wrongly_asked, 2, "a key: is wrong (mend it)"),
    ],
)
def test_they_end_together_with_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], work: Callable[..., Any], status: int, line: str
) -> None:
    def main(_: argparse.Namespace) -> None:
        launch.launch(TWO, work, tmp_path / "log.txt")

    assert cli.run(main, cli.Parser("test", "One fit."), []) == status
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == bool(line)
    assert line in "".join(lines)


@pytest.mark.slow
def test_a_fit_that_was_stopped_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    """SIGTERM ends two processes with a checkpoint, three go on from it, and one would have come to the same."""
    # with a larger eps than usual Adam does not take whole steps along gradients that are rounding errors
    settings = ["optimizer.eps=1e-2", "kfc.seeding=none", "lift.steps=5", "dynamic.steps=60"]

    def command(output: str, devices: int, *options: str) -> list[str]:
        shared = [f"trainer.devices={devices}", "trainer.accelerator=cpu", f"output={tmp_path / output}"]
        words = [*TINY, *settings, *shared]
        return [sys.executable, "-m", "kg4d.fit", "--config", "experiments/kg4d.yaml", *options, *words]

    run = tmp_path / "shared/kg4d/full/seed0"
    first = subprocess.Popen(command("shared", 2), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (run / "checkpoints/static.ckpt").exists():
        assert first.poll() is None
        time.sleep(0.05)
    while torch.load(run / "checkpoints/last.ckpt", weights_only=True)["kg4d"]["stage"] != "dynamic":
        assert first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    _, errors = first.communicate(timeout=120)
    assert (first.returncode, errors.count("\n")) == (143, 1), errors
    assert not (run / "checkpoints/dynamic.ckpt").exists()
    step = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert 0 < step < 60
    subprocess.run(command("shared", 3, "--resume"), cwd=ROOT, check=True)
    subprocess.run(command("alone", 1), cwd=ROOT, check=True)
    for stage in ("static", "dynamic", "refine"):  # the lift's trials take steps with Adam that make more of rounding
        weights = [
            torch.load(tmp_path / f"{output}/kg4d/full/seed0/checkpoints/{stage}.ckpt", weights_only=True)["state_dict"]
            for output in ("shared", "alone")
        ]
        for name, value in weights[0].items():
            assert torch.allclose(value.float(), weights[1][name].float(), atol=1e-4), (stage, name)
    log = (run / "log.txt").read_text()
    assert log.count("dynamic: going on from step") == 1
