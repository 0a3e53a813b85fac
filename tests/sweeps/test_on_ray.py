"""A real local Ray with two cores; skipped where Ray is not installed, but not in CI."""

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from kg4d.errors import InputError
from kg4d.sweeps.attempt import End
from kg4d.sweeps.engine import Report
from kg4d.sweeps.jobs import jobs_of
from kg4d.sweeps.runner import Fixed, carry_out
from kg4d.sweeps.settings import Parameter, SweepSettings
from tests.sweeps.tiny_jobs import Silent, quick_runs

SETTINGS = SweepSettings(parameters={"kfc.weight": Parameter([1])})


class Strict(Fixed):
    """Gives up seed 1 at its first report."""

    def goes_on(self, report: Report) -> bool:
        return report.job.run.seed != 1


@pytest.fixture
def ray_is_there() -> None:
    if find_spec("ray") is None and os.environ.get("CI") != "true":
        pytest.skip('Ray is not installed: pip install "kg4d[sweep]"')


@pytest.mark.usefixtures("ray_is_there")
def test_fits_on_a_local_ray(tmp_path: Path) -> None:
    """One is done, one is given up when it says how it does, one is a wrong request."""
    from kg4d.sweeps.on_ray import RayEngine

    runs = quick_runs(tmp_path, "seeds=[0, 1]", "frames.hold_out=2")
    runs += quick_runs(tmp_path, "seed=2", "scene=synthetic:nobody")
    jobs = [replace(job, reports=1) for job in jobs_of(runs)]
    board = Silent()
    with RayEngine(SETTINGS, local_cpus=2) as engine:
        assert engine.free == 2
        outcomes = carry_out(Strict(iter(jobs)), engine, board)
    ends = {outcome.job.run.seed: outcome.end for outcome in outcomes}
    assert ends == {0: End.DONE, 1: End.GIVEN_UP, 2: End.WRONG}
    assert {report.job.run.seed for report in board.reports} == {0, 1}
    assert jobs[0].folder.metrics.is_file()
    assert jobs[0].folder.log.read_text().splitlines()[0].endswith("walker, full, seed 0 (1 of 3)")
    assert not jobs[1].folder.metrics.is_file()


@pytest.mark.usefixtures("ray_is_there")
def test_an_address_that_is_none_is_said() -> None:
    from kg4d.sweeps.on_ray import RayEngine

    with pytest.raises(InputError, match=r"sweep.address: nowhere: no Ray cluster answers"):
        RayEngine(SweepSettings(parameters=SETTINGS.parameters, address="nowhere")).__enter__()
