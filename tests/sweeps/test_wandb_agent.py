"""The sweep file of W&B, by the code with which W&B reads it and its agent makes commands of it."""

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from wandb.apis.public.sweeps import _validate_config_and_fill_distribution
from wandb.sdk.launch.sweeps.utils import load_sweep_config
from wandb.wandb_agent import Agent

from kg4d.config.load import load_config
from kg4d.config.schema import ExperimentConfig
from kg4d.sweeps.points import points_of
from kg4d.sweeps.settings import Parameter, SweepSettings
from kg4d.tracking.settings import WandbConfig
from tests.sweeps.tiny_jobs import QUICK
from tests.tiny_runs import ROOT

KNOWN = {"program", "name", "project", "method", "parameters", "command"}  # of what W&B documents, what the file uses


@pytest.fixture
def sweep() -> dict[str, Any]:
    read = load_sweep_config(str(ROOT / "experiments/sweep_wgf.yaml"))
    assert read is not None
    return dict(read)


def test_wandb_reads_the_file(sweep: dict[str, Any]) -> None:
    assert _validate_config_and_fill_distribution(sweep) == sweep
    assert set(sweep) == KNOWN
    assert sweep["method"] == "grid"  # which has no objective, and so sees no test views
    assert sweep["project"] == WandbConfig().project  # `wandb sweep` would name it after the folder
    assert all(set(parameter) == {"values"} for parameter in sweep["parameters"].values())


def test_the_agent_fits_a_point_in_a_folder_of_its_own(
    sweep: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent's own expansion of macros and start of a process; only the server that names the point is missing."""
    interpreter = tmp_path / "bin" / "python"
    interpreter.parent.mkdir()
    interpreter.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    interpreter.chmod(0o755)
    monkeypatch.setenv("PATH", f"{interpreter.parent}:/usr/bin:/bin")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "agent"))
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, "")  # the agent sets them: they are as before afterwards
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    (tmp_path / "agent" / "wandb" / "sweep-sweep1").mkdir(parents=True)
    monkeypatch.chdir(ROOT)
    command = [word.replace("runs/", f"{tmp_path}/").replace("=online", "=disabled") for word in sweep["command"]]
    assert command[-1] == "${args_no_hyphens}"

    agent = Agent.__new__(Agent)
    agent._sweep_command = [*command[:-1], *QUICK, command[-1]]
    agent._in_jupyter, agent._function, agent._forward_signals, agent._run_processes = None, None, False, {}
    point = {key: parameter["values"][-1] for key, parameter in sweep["parameters"].items()}
    arguments = {key: {"value": value} for key, value in point.items()}
    agent._command_run({"run_id": "run1", "program": sweep["program"], "args": arguments})
    assert agent._run_processes["run1"].wait(timeout=1200) == 0

    [written] = tmp_path.glob("sweep_wgf/a+d_1000.0_kfc_100.0/kg4d/full/seed2/config.yaml")
    assert (written.parent / "metrics.json").is_file()
    config = load_config(ExperimentConfig, written)
    reached = {"wgf.weight": config.wgf.weight, "wgf.variant": config.wgf.variant.value}
    reached |= {"kfc.weight": config.kfc.weight, "seed": config.seed}
    assert reached == point


def test_our_own_sweep_of_the_same_parameters_has_the_same_points(sweep: dict[str, Any]) -> None:
    parameters = {key: Parameter(choice["values"]) for key, choice in sweep["parameters"].items()}
    assert len(points_of(SweepSettings(parameters=parameters))) == 4 * 2 * 2 * 3
