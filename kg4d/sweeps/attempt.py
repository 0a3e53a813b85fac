"""One job done in this process, whatever comes of it, as a value that travels between processes."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from kg4d.errors import InputError
from kg4d.sweeps.jobs import Job
from kg4d.utils.logs import TRACEBACK_NOTE


class End(Enum):
    """How a fit has ended."""

    DONE = "done"
    GIVEN_UP = "given up"  # others do better
    FAILED = "failed"
    WRONG = "wrong request"  # to try again would come to the same


@dataclass(frozen=True)
class Outcome:
    """What has come of a job.

    Attributes:
        job: The job.
        end: How it has ended.
        seconds: Wall seconds.
        error: In one line; empty where there is none.
        log: Where the traceback is.
        request: What is wrong with the request.
    """

    job: Job
    end: End
    seconds: float = 0.0
    error: str = ""
    log: Path | None = None
    request: InputError | None = None


def attempt(job: Job, goes_on: Callable[[int, float], bool]) -> Outcome:
    """Do a job.

    Args:
        job: The job.
        goes_on: Told how the fit does, as often as the job says; says whether it goes on.

    Raises:
        KeyboardInterrupt: A signal came.
    """
    from kg4d.pipeline import fit  # in the process that fits: the one that hands out jobs need not load torch
    from kg4d.runs.validation import GivenUpError, Validation

    begin = time.perf_counter()
    validation = Validation(job.reports, goes_on) if job.reports else None
    end, error, request, log = End.DONE, "", None, None
    try:
        if job.before is not None:
            job.before(job.run.config)
        fit(
            job.run.config,
            resume=job.resume,
            overwrite=job.overwrite,
            label=job.label,
            validation=validation,
            film=job.film,
        )
    except GivenUpError:
        end = End.GIVEN_UP
    except InputError as wrong:
        end, error, request = End.WRONG, str(wrong), wrong
    except Exception as failure:
        end, error, log = End.FAILED, one_line(failure), _log_of(job, failure)
    return Outcome(job, end, time.perf_counter() - begin, error, log, request)


def one_line(error: BaseException) -> str:
    """Kind and message of an error."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _log_of(job: Job, error: Exception) -> Path:
    """Where the traceback is; it is written to the log of the job if that was not open."""
    for note in getattr(error, "__notes__", []):
        if note.startswith(TRACEBACK_NOTE):
            return Path(note.removeprefix(TRACEBACK_NOTE))
    log = job.folder.log
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    return log
