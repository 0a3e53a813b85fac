"""The fits of an experiment file, one after the other or side by side on this machine."""

from collections.abc import Sequence

from kg4d.sweeps.attempt import End, Outcome
from kg4d.sweeps.board import Progress
from kg4d.sweeps.cards import places_on_cores
from kg4d.sweeps.jobs import Job
from kg4d.sweeps.local import LocalEngine
from kg4d.sweeps.runner import Fixed, carry_out, one_after_another
from kg4d.utils.processes import has_launcher


def fit_jobs(jobs: Sequence[Job], at_a_time: int) -> list[Outcome]:
    """Do the jobs: a single one, and those whose processes others have started, here and with their own errors."""
    places = places_on_cores(min(at_a_time, len(jobs)))
    if len(jobs) == 1 or _is_one_of_several(jobs[0]):
        from kg4d.pipeline import fit  # here, because the process that hands out jobs need not load torch

        for job in jobs:
            fit(job.run.config, resume=job.resume, overwrite=job.overwrite, label=job.label, film=job.film)
        return [Outcome(job, End.DONE) for job in jobs]
    if at_a_time == 1:
        return one_after_another(jobs)
    with LocalEngine(places) as engine, Progress(len(jobs)).shown() as progress:
        return carry_out(Fixed(iter(jobs)), engine, progress)


def is_first() -> bool:
    """Whether this process is the one that reports, or the only one."""
    if not has_launcher():
        return True
    from kg4d.runs.launch import is_first as is_first_of_several

    return is_first_of_several()


def _is_one_of_several(job: Job) -> bool:
    """Whether torchrun or SLURM has started several processes, and this is one of them."""
    if not has_launcher():
        return False
    from kg4d.runs.launch import crew_of

    return crew_of(job.run.config).started
