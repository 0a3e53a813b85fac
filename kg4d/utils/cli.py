"""What the commands share: parsing, error messages and the exit status.

Exit status: 0 done; 1 the run failed; 2 the request was wrong; 130 interrupted. All but the first print one line on
stderr.
"""

import argparse
import errno
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import kg4d.utils.before_torch  # noqa: F401  (before torch)
from kg4d.errors import InputError
from kg4d.utils.logs import TRACEBACK_NOTE, log_to_console

# What a path can be that nothing can be written to or read from: the request is wrong, and no disk is full.
_NO_PLACE = (errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EPERM, errno.EROFS)

DONE, FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `InputError`, with the option `--debug` that all commands have.

    Args:
        prog: Module of the command, such as `kg4d.fit`.
        description: What the command does, in a sentence.
    """

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)
        self.add_argument("--debug", action="store_true", help="show all log lines, and tracebacks")

    def add_overrides(self) -> None:
        """Accept `key=value` arguments anywhere on the command line, as `overrides`."""
        self.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the file's")

    def error(self, message: str) -> NoReturn:
        """Raise an `InputError` about the command line."""
        raise InputError("command line", message, f"see {self.prog} --help")


def run(main: Callable[[argparse.Namespace], None], parser: Parser, argv: Sequence[str] | None = None) -> int:
    """Parse the command line, call `main`, and report how it ended.

    Args:
        main: Does the work; raises `InputError` if the request is wrong.
        parser: The command's options. If `--resume` is among them, the message after an interrupt suggests it.
        argv: Arguments after the command; those of the process when None.

    Returns:
        The exit status.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in argv
    arguments = argparse.Namespace()
    try:
        arguments = parser.parse_intermixed_args(argv)
        log_to_console(debug)
        with _terminate_as_interrupt():
            main(arguments)
    except InputError as error:
        _report(error, f"error: {error}", debug)
        return WRONG_REQUEST
    except KeyboardInterrupt as error:
        return _interrupted(error, parser.prog, argv, hasattr(arguments, "resume"), debug)
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        return _interrupted(
            error, parser.prog, argv, hasattr(arguments, "resume"), debug
        )  # Lightning's Trainer ends an interrupt with SystemExit(1)
    except OSError as error:
        if error.errno not in _NO_PLACE or error.filename is None:
            _report(error, f"error: {_summary(error)} ({_traceback_place(error)})", debug)
            return FAILED
        what = f"{error.filename}: {(error.strerror or type(error).__name__).lower()}"
        _report(error, f"error: {what} (make it a file or folder that can be used, or name another)", debug)
        return WRONG_REQUEST
    except Exception as error:
        _report(error, f"error: {_summary(error)} ({_traceback_place(error)})", debug)
        return FAILED
    return DONE


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM, which schedulers send, like ctrl-C."""

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupted(error: BaseException, prog: str, argv: Sequence[str], resumable: bool, debug: bool) -> int:
    words = [*argv, "--resume"] if resumable and "--resume" not in argv else argv
    _report(error, f"interrupted (go on with: {' '.join(['python -m', prog, *map(shlex.quote, words)])})", debug)
    return INTERRUPTED


def _report(error: BaseException, line: str, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    print(f"kg4d: {' '.join(line.split())}", file=sys.stderr)


def _summary(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _traceback_place(error: Exception) -> str:
    """Where the traceback is; it is written to a temporary file now if no log was open."""
    notes: list[str] = getattr(error, "__notes__", [])
    for note in notes:
        if note.startswith(TRACEBACK_NOTE):
            return note
    with tempfile.NamedTemporaryFile("w", prefix="kg4d-", suffix=".log", delete=False) as file:
        traceback.print_exception(error, file=file)
    return f"{TRACEBACK_NOTE}{Path(file.name)}"
