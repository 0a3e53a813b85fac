"""The fits of an experiment file, one after the other or side by side on this machine."""

from collections.abc import Sequence

from kg4d.pipeline import fit
from kg4d.runs.launch import crew_of
from kg4d.sweeps.attempt import End, Outcome
from kg4d.sweeps.board import Progress
from kg4d.sweeps.cards import places_on_cores
from kg4d.sweeps.jobs import Job
from kg4d.sweeps.local import LocalEngine
from kg4d.sweeps.runner import Fixed, carry_out, one_after_another


def fit_jobs(jobs: Sequence[Job], at_a_time: int) -> list[Outcome]:
    """Do the jobs: a single one, and those whose processes others have started, here and with their own errors."""
    places = places_on_cores(min(at_a_time, len(jobs)))
    if len(jobs) == 1 or crew_of(jobs[0].run.config).started:
        for job in jobs:
            fit(job.run.config, resume=job.resume, overwrite=job.overwrite, label=job.label, film=job.film)
        return [Outcome(job, End.DONE) for job in jobs]
    if at_a_time == 1:
        return one_after_another(jobs)
    with LocalEngine(places) as engine, Progress(len(jobs)).shown() as progress:
        return carry_out(Fixed(iter(jobs)), engine, progress)
