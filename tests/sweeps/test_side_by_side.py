"""Real fits in real processes, several at a time."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kg4d import fit as fit_command
from kg4d.sweeps.attempt import End
from kg4d.sweeps.cards import Place, places_on_cores
from kg4d.sweeps.jobs import jobs_of
from kg4d.sweeps.local import LocalEngine
from kg4d.sweeps.runner import Fixed, carry_out
from kg4d.utils.cli import run
from tests.sweeps.tiny_jobs import QUICK, Silent, kill_this_process, quick_runs
from tests.tiny_runs import ROOT

CONFIG = ["--config", str(ROOT / "experiments/kg4d.yaml")]


def fit(output: Path, *words: str) -> int:
    return run(fit_command.main, fit_command.parser(), [*CONFIG, *QUICK, f"output={output}", *words])


def test_scenes_are_fitted_side_by_side_and_one_that_fails_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["scenes=[synthetic:walker, synthetic:nobody, synthetic:swimmer]"]
    assert fit(tmp_path, *words, "--jobs", "2") == 2
    printed, error = capsys.readouterr()
    assert error.count("\n") == 1
    assert "no such character" in error
    assert "test/psnr" in printed
    above = tmp_path / "kg4d"
    for number, scene in ((1, "walker"), (3, "swimmer")):
        folder = above / scene / "full" / "seed0"
        first = (folder / "log.txt").read_text().splitlines()[0]
        assert first.endswith(f"{scene}, full, seed 0 ({number} of 3)")
        assert json.loads((above / scene / "table.json").read_text())["variants"] == ["full"]
    rows = json.loads((above / "table.json").read_text())["rows"]
    assert {(row["scenes"], row["seeds"]) for row in rows} == {(2, 1)}

    assert fit(tmp_path, *words, "--list") == 0
    states = [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()]
    assert states == ["done", "to do", "done"]
    assert fit(tmp_path, *words) == 2  # finished runs are in the way
    assert "holds a finished run" in capsys.readouterr().err


def test_one_after_the_other_one_that_fails_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(tmp_path, "scenes=[synthetic:nobody, synthetic:walker]") == 2
    assert "no such character" in capsys.readouterr().err
    assert (tmp_path / "kg4d" / "walker" / "full" / "seed0" / "metrics.json").is_file()


def test_a_process_that_is_killed_costs_no_other_fit_and_is_tried_again(tmp_path: Path) -> None:
    jobs = [replace(job, before=kill_this_process) for job in jobs_of(quick_runs(tmp_path, "seeds=[0, 1, 2]"))]
    board = Silent()
    with LocalEngine(places_on_cores(1)) as engine:
        outcomes = carry_out(Fixed(iter(jobs)), engine, board, retries=1)
    assert [outcome.end for outcome in outcomes] == [End.DONE] * 3
    assert [job.run.seed for job in board.begun_] == [0, 1, 1, 2]
    assert "the process of this fit was killed by SIGKILL" in jobs[1].folder.log.read_text()


def test_each_place_has_its_own_environment(tmp_path: Path) -> None:
    """Two places with threads and pretended cards of their own: each fit has seen those of one of them."""
    places = [Place({"OMP_NUM_THREADS": str(1 + n), "CUDA_VISIBLE_DEVICES": f"{n}"}) for n in range(2)]
    jobs = [replace(job, before=write_environment) for job in jobs_of(quick_runs(tmp_path, "seeds=[0, 1]"))]
    before = dict(os.environ)
    with LocalEngine(places) as engine:
        outcomes = carry_out(Fixed(iter(jobs)), engine, Silent())
    assert [outcome.end for outcome in outcomes] == [End.DONE, End.DONE]
    seen = sorted((tmp_path / f"environment_{seed}").read_text() for seed in (0, 1))
    assert seen == ["1 0", "2 1"]
    threads = [json.loads((job.folder.path / "run.json").read_text())["threads"]["torch"] for job in jobs]
    assert sorted(threads) == [1, 2]
    assert dict(os.environ) == before


def write_environment(config: object) -> None:
    words = [os.environ[name] for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")]
    folder = Path(config.output)  # type: ignore[attr-defined]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"environment_{config.seed}").write_text(" ".join(words))  # type: ignore[attr-defined]


@pytest.mark.slow
def test_several_gpus_of_a_place_are_processes_of_one_fit(tmp_path: Path) -> None:
    """Pretended by processes on the CPU."""
    jobs = jobs_of(quick_runs(tmp_path, "trainer.accelerator=cpu"))
    with LocalEngine([Place({}, gpus=2)]) as engine:
        outcomes = carry_out(Fixed(iter(jobs)), engine, Silent())
    assert [outcome.end for outcome in outcomes] == [End.DONE], outcomes[0].error
    assert "devices: '2'" in jobs[0].folder.config.read_text()
    assert jobs[0].folder.matches(jobs[0].run.config)


def in_dynamic_stage(folder: Path) -> bool:
    static, last = folder / "checkpoints/static.ckpt", folder / "checkpoints/last.ckpt"
    return static.exists() and last.stat().st_mtime > static.stat().st_mtime + 0.5


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_stops_all_fits_with_a_checkpoint_and_they_can_be_resumed(tmp_path: Path, number: int) -> None:
    words = [*CONFIG, *QUICK, f"output={tmp_path}", "seeds=[0, 1]", "--jobs", "2", "dynamic.steps=100000"]
    command = [sys.executable, "-m", "kg4d.fit", *words]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        folders = [tmp_path / "kg4d" / "full" / f"seed{seed}" for seed in (0, 1)]
        deadline = time.monotonic() + 1200
        while not all(in_dynamic_stage(folder) for folder in folders):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(number)
        _, error = process.communicate(timeout=600)
    assert process.returncode == 128 + number
    assert re.fullmatch(r"kg4d: interrupted \(go on with: .* -m kg4d.fit .* --jobs 2 .*--resume\)\n", error), error
    for folder in folders:
        assert (folder / "checkpoints/last.ckpt").is_file()
        assert "stopping at the end of this step" in (folder / "log.txt").read_text()
