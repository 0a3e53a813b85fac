"""Command lines that a person can paste into the shell that they are in."""

import shlex
import sys


def command(module: str, *words: str) -> str:
    """A command of this package with the interpreter in use, quoted.

    Args:
        module: Such as `kg4d.fit`.
        words: Its arguments.

    >>> command("kg4d.fit", "scene=a b").removeprefix(shlex.quote(sys.executable))
    " -m kg4d.fit 'scene=a b'"
    """
    return shlex.join([sys.executable, "-m", module, *words])
