"""Who starts, who is tried again and what is said of failures, with an engine that does nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kg4d.config.schema import ExperimentConfig
from kg4d.errors import InputError
from kg4d.sweeps.attempt import End, Outcome, attempt
from kg4d.sweeps.engine import Report
from kg4d.sweeps.jobs import Job, State, jobs_of, listing, state_of
from kg4d.sweeps.runner import FailedFitsError, Fixed, carry_out, raise_failures
from tests.sweeps.tiny_jobs import Silent, quick_runs


class Pretended:
    """Ends each job as `end` says, the one that was begun last first."""

    def __init__(self, end: Callable[[Job], Outcome], places: int = 2) -> None:
        self.end, self.places = end, places
        self.running: list[Job] = []
        self.most = 0

    @property
    def free(self) -> int:
        return self.places - len(self.running)

    def start(self, job: Job) -> None:
        self.running.append(job)
        self.most = max(self.most, len(self.running))

    def wait(self) -> list[Report | Outcome]:
        return [self.end(self.running.pop())]

    def answer(self, job: Job, goes_on: bool) -> None:
        raise AssertionError("nobody has asked")

    def __enter__(self) -> "Pretended":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    return jobs_of(quick_runs(tmp_path, "seeds=[0, 1, 2, 3]"))


def test_no_more_run_than_there_are_places(jobs: list[Job]) -> None:
    engine, board = Pretended(lambda job: Outcome(job, End.DONE)), Silent()
    outcomes = carry_out(Fixed(iter(jobs)), engine, board)
    assert engine.most == 2
    assert sorted(outcome.job.label for outcome in outcomes) == [job.label for job in jobs]
    assert board.begun_ == jobs[:2] + jobs[2:]


@pytest.mark.parametrize(("end", "tries"), [(End.FAILED, 2), (End.WRONG, 1), (End.GIVEN_UP, 1)])
def test_what_failed_is_tried_again_once_and_goes_on_from_there(jobs: list[Job], end: End, tries: int) -> None:
    board = Silent()
    outcomes = carry_out(Fixed(iter(jobs[:1])), Pretended(lambda job: Outcome(job, end)), board, retries=1)
    assert [outcome.end for outcome in outcomes] == [end]
    assert [job.resume for job in board.begun_] == [False, True][:tries]


def test_failures_name_the_fit_and_its_log(jobs: list[Job], tmp_path: Path) -> None:
    outcomes = [Outcome(jobs[0], End.DONE), Outcome(jobs[1], End.FAILED, error="E: no", log=tmp_path / "log.txt")]
    with pytest.raises(FailedFitsError, match=r"1 of 2 fits failed: walker, full, seed 1 \(2 of 4\)") as caught:
        raise_failures(outcomes)
    assert caught.value.__notes__ == [f"traceback in {tmp_path / 'log.txt'}"]
    raise_failures(outcomes[:1])


def refuse(config: ExperimentConfig) -> None:
    raise RuntimeError(f"no seed {config.seed}")


def test_a_failure_before_the_fit_leaves_its_traceback_in_the_log(jobs: list[Job]) -> None:
    outcome = attempt(replace(jobs[2], before=refuse), lambda step, value: True)
    assert (outcome.end, outcome.error) == (End.FAILED, "RuntimeError: no seed 2")
    assert outcome.log is not None
    assert "Traceback" in outcome.log.read_text()


def test_wrong_requests_are_one_error(jobs: list[Job]) -> None:
    wrong = [InputError("a", "is wrong", "mend it"), InputError("b", "is wrong", "mend it")]
    same = [Outcome(job, End.WRONG, request=wrong[0]) for job in jobs]
    with pytest.raises(InputError, match=r"^a: is wrong \(mend it\)$"):
        raise_failures(same)
    with pytest.raises(InputError, match=r"^2 of 2 fits failed: .*a: is wrong \(mend it\); .*b: is wrong"):
        raise_failures([Outcome(job, End.WRONG, request=one) for job, one in zip(jobs, wrong)])


def test_the_list_says_what_would_be_run(tmp_path: Path) -> None:
    runs = quick_runs(tmp_path, "scenes=[synthetic:walker, b=synthetic:swimmer]", "variants={full: [], flow: []}")
    lines = [line.split() for line in listing(runs)]
    assert [(line[0], *line[3:5]) for line in lines[:3]] == [
        ("1", "walker", "full"),
        ("2", "walker", "flow"),
        ("3", "b", "full"),
    ]
    assert lines[3][-1] == str(tmp_path / "kg4d" / "b" / "flow" / "seed0")


def test_states_of_folders(tmp_path: Path) -> None:
    [run] = quick_runs(tmp_path)
    assert state_of(run) is State.TO_DO
    folder = jobs_of([run])[0].folder
    folder.begin(run.config)
    assert state_of(run) is State.CUT_SHORT
    [other] = quick_runs(tmp_path, "image_size=25")
    assert state_of(other) is State.DIFFERENT
