"""Logging: briefly to the terminal, in full to the `log.txt` of a run."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_LOGGER = logging.getLogger("kg4d")
TRACEBACK_NOTE = "traceback in "  # beginning of the note on an exception that names its log


class _Console(logging.Formatter):
    """The message alone, preceded by its level unless that is INFO."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        return message if record.levelno == logging.INFO else f"{record.levelname.lower()}: {message}"


def log_to_console(debug: bool = False) -> None:
    """Print the package's log on stdout (stderr is for errors); a second call replaces the first.

    Args:
        debug: Print all levels, not only INFO and above.
    """
    for handler in [handler for handler in _LOGGER.handlers if isinstance(handler.formatter, _Console)]:
        _LOGGER.removeHandler(handler)
    console = logging.StreamHandler(sys.stdout)
    console.setFormatter(_Console())
    console.setLevel(logging.DEBUG if debug else logging.INFO)
    _LOGGER.addHandler(console)
    _LOGGER.setLevel(logging.DEBUG)


def is_debugging() -> bool | None:
    """Whether all levels are printed; None where nothing is."""
    consoles = [handler for handler in _LOGGER.handlers if isinstance(handler.formatter, _Console)]
    return consoles[0].level == logging.DEBUG if consoles else None


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Append to a file: log lines of all levels, other libraries' warnings, and the traceback of an exception.

    An exception gets a note that names the file; `cli.run` shows it to the person.

    Args:
        path: File to append to; its folder is created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    lightning = logging.getLogger("lightning.pytorch")
    loggers = [logging.getLogger()] if lightning.propagate else [logging.getLogger(), lightning]
    level = _LOGGER.level
    _LOGGER.setLevel(logging.DEBUG)
    logging.captureWarnings(True)
    for logger in loggers:
        logger.addHandler(file)
    try:
        yield
    except BaseException as error:
        _LOGGER.debug("ended by %s", type(error).__name__, exc_info=True)  # DEBUG keeps it off the terminal
        error.add_note(f"{TRACEBACK_NOTE}{path}")
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(file)
        logging.captureWarnings(False)
        _LOGGER.setLevel(level)
        file.close()


def is_watched() -> bool:
    """Whether stdout is a terminal, where a bar can move; files and pipes get lines."""
    return sys.stdout.isatty()


class Milestones:
    """Says in lines how far something is: one each tenth of the way.

    Args:
        what: What goes on; its name begins each line.
        first: Where it begins, in steps.
        total: Where it ends.
    """

    def __init__(self, what: str, first: int, total: int) -> None:
        self._what, self._first, self._total = what, first, total
        self._begin = time.monotonic()
        self._tenth = self._tenth_of(first)

    def _tenth_of(self, step: int) -> int:
        return 10 * step // max(1, self._total)

    def reached(self, step: int, values: Mapping[str, float]) -> str | None:
        """The line for a step that reaches the next tenth; None in between.

        Args:
            step: How many steps are done.
            values: What is known of them: the loss and the PSNR are shown.
        """
        if self._tenth_of(step) <= self._tenth:
            return None
        self._tenth = self._tenth_of(step)
        elapsed = time.monotonic() - self._begin
        left = elapsed / (step - self._first) * (self._total - step)
        known = "".join(f"  {name} {values[name]:<7.4g}" for name in ("loss", "psnr") if name in values)
        width = len(str(self._total))
        share = f"{100 * step // self._total:3} %  step {step:{width}} of {self._total}"
        return f"{self._what:8} {share}{known}  {clock_text(elapsed)} elapsed, {clock_text(left)} left"


def clock_text(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any.

    >>> clock_text(7.0), clock_text(3725.4)
    ('0:07', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


_PATIENCE = 10.0  # seconds between two lines of what is no stage: most of it takes less


@contextmanager
def progress_bar(title: str, shown: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar on a terminal; elsewhere a line every ten seconds.

    Args:
        title: Shown before the bar.
        shown: False shows nothing.

    Yields:
        A function to report progress with: what is being counted, how many are done, of how many.
    """
    if shown and not is_watched():
        said = time.monotonic()

        def say(what: str, done: int, total: int) -> None:
            nonlocal said
            if time.monotonic() - said >= _PATIENCE:
                said = time.monotonic()
                _LOGGER.info("%s: %s %d of %d", title, what, done, total)

        yield say
        return
    from tqdm import tqdm  # here, so that the commands begin at once

    form = "{desc}: {n_fmt}/{total_fmt} {bar:20}"
    with tqdm(desc=title, disable=not shown, leave=False, file=sys.stdout, bar_format=form) as bar:

        def report(what: str, done: int, total: int) -> None:
            bar.set_description_str(f"{title}: {what}", refresh=False)
            bar.n, bar.total = done, total
            bar.refresh()

        yield report
