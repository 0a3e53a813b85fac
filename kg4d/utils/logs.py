"""Logging: briefly to the terminal, in full to the `log.txt` of a run."""

import logging
import sys
from collections.abc import Callable, Iterator
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


@contextmanager
def progress_bar(title: str, shown: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar on the terminal.

    Args:
        title: Shown before the bar.
        shown: False shows nothing.

    Yields:
        A function to report progress with: what is being counted, how many are done, of how many.
    """
    from tqdm import tqdm  # here, so that the commands begin at once

    with tqdm(desc=title, disable=not shown, leave=False, bar_format="{desc}: {n_fmt}/{total_fmt} {bar:20}") as bar:

        def report(what: str, done: int, total: int) -> None:
            bar.set_description_str(f"{title}: {what}", refresh=False)
            bar.n, bar.total = done, total
            bar.refresh()

        yield report
