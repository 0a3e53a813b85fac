"""What the commands share: parsing, error messages and the exit status.

Exit status: 0 done; 1 the run failed; 2 the request was wrong; 130 after SIGINT, 143 after SIGTERM; 141 where
nobody reads on, which is no failure. All but the first and the last print one line on stderr.
"""

import argparse
import errno
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import kg4d.utils.before_torch  # noqa: F401  (before torch)
from kg4d.errors import InputError
from kg4d.utils.commands import command
from kg4d.utils.interrupts import signals_as_interrupts
from kg4d.utils.logs import TRACEBACK_NOTE, log_to_console

# What a path can be that nothing can be written to or read from: the request is wrong, and no disk is full.
_NO_PLACE = (
    *(errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.ENOTDIR, errno.ENOTEMPTY, errno.EPERM, errno.EROFS),
)

DONE, FAILED, WRONG_REQUEST = 0, 1, 2
NOBODY_READS = 141  # what a shell makes of SIGPIPE


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `InputError`, with the option `--debug` that all commands have.

    Args:
        prog: Module of the command, such as `kg4d.fit`.
        description: What the command does, in a sentence.
        examples: What may follow the command, with `# what it does`; shown at the end of `--help`.
    """

    def __init__(self, prog: str, description: str, examples: Sequence[str] = ()) -> None:
        shown = "\n".join(f"  python -m {prog} {words}" for words in examples)
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"examples:\n{shown}" if examples else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--debug", action="store_true", help="show all log lines, and tracebacks")

    def add_overrides(self) -> None:
        """Accept `key=value` arguments anywhere on the command line, as `overrides`."""
        self.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the file's")

    def error(self, message: str) -> NoReturn:
        """Raise an `InputError` about the command line."""
        raise InputError("command line", message, f"see {self.prog} --help")


def run(main: Callable[[argparse.Namespace], None], parser: Parser, argv_given: Sequence[str] | None = None) -> int:
    """Parse the command line, call `main`, and report how it ended.

    Args:
        main: Does the work; raises `InputError` if the request is wrong.
        parser: The command's options. If `--resume` is among them, the message after an interrupt suggests it.
        argv_given: Arguments after the command; those of the process when None.

    Returns:
        The exit status.
    """
    argv = sys.argv[1:] if argv_given is None else list(argv_given)
    debug, command = "--debug" in argv, argv_given is None
    arguments, received = argparse.Namespace(), list[int]()
    try:
        with signals_as_interrupts() as received:
            arguments = parser.parse_intermixed_args(argv)
            log_to_console(debug)
            main(arguments)
            sys.stdout.flush()
    except BaseException as error:
        # Lightning's Trainer ends an interrupt with SystemExit(1); other libraries turn it into errors of their own
        cause = error.__context__ if isinstance(error, SystemExit) else error
        if received or isinstance(cause, KeyboardInterrupt):
            number = getattr(cause, "number", received[0] if received else signal.SIGINT)
            if command:  # what ends anyway takes no further signal
                for ignored in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(ignored, signal.SIG_IGN)
            return _interrupted(error, parser.prog, argv, hasattr(arguments, "resume"), debug, number)
        return _failed(error, debug)
    return DONE


def _failed(error: BaseException, debug: bool) -> int:
    if isinstance(error, InputError):
        _report(error, f"error: {error}", debug)
        return WRONG_REQUEST
    if isinstance(error, OSError) and error.errno in _NO_PLACE and error.filename is not None:
        what = f"{error.filename}: {(error.strerror or type(error).__name__).lower()}"
        _report(error, f"error: {what} (make it a file or folder that can be used, or name another)", debug)
        return WRONG_REQUEST
    if isinstance(error, BrokenPipeError) and _nobody_reads():
        return NOBODY_READS
    if not isinstance(error, Exception):  # --help
        raise error
    _report(error, f"error: {_summary(error)} ({_traceback_place(error)})", debug)
    return FAILED


def _nobody_reads() -> bool:
    """Whether the process at the other end of standard output has ended, as `head` does after some lines."""
    try:
        print(flush=True)  # an empty line breaks, too; where it does not, another pipe was the one that broke
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where what is left goes at the exit
        return True
    return False


def _interrupted(
    error: BaseException, prog: str, argv: Sequence[str], resumable: bool, debug: bool, number: int
) -> int:
    words = list(argv)
    if resumable:  # what is to be replaced has been, and must not be once more
        words = [*(word for word in argv if word not in ("--resume", "--overwrite")), "--resume"]
    _report(error, f"interrupted (go on with: {command(prog, *words)})", debug)
    return 128 + number


def _report(error: BaseException, line: str, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    one_line = " ".join(part.strip() for part in line.splitlines())  # spaces inside belong to paths
    print(f"kg4d: {one_line}", file=sys.stderr)


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
