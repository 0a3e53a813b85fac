"""`python -m kg4d.priors.cache`: list, verify or prune the cached results of providers and the prepared scenes."""

import argparse
import re
import sys
import time

from kg4d.errors import InputError
from kg4d.priors.cache.entries import (
    BrokenEntryError,
    created_and_description,
)
from kg4d.priors.cache.store import PriorCache, size_of


def parse_size(text: str) -> int:
    """Convert a size that a person wrote to bytes.

    Raises:
        InputError: The text is not a size.

    >>> parse_size("1.5 MB"), parse_size("20")
    (1500000, 20)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([kMGT]?)B?", text.strip())
    if found is None:
        raise InputError("--max-size", f"{text!r} is no size", "write for example 500MB or 5GB")
    return round(float(found[1]) * 1000.0 ** " kMGT".index(found[2] or " "))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line (`list`, `verify` or `prune`) and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kg4d.priors.cache", description=__doc__)
    parser.add_argument("action", choices=("list", "verify", "prune"))
    parser.add_argument("--root", help="folder of the cache; $KG4D_CACHE/priors by default")
    parser.add_argument("--older-than", metavar="DAYS", type=float, help="prune: remove what is older")
    parser.add_argument("--max-size", metavar="SIZE", help="prune: remove the oldest until this is left, such as 5GB")
    options = parser.parse_args(arguments)
    cache = PriorCache(options.root)
    try:
        match options.action:
            case "list":
                _list(cache)
            case "verify":
                return _verify(cache)
            case "prune":
                age = None if options.older_than is None else options.older_than * 86400
                for folder in cache.prune(age, None if options.max_size is None else parse_size(options.max_size)):
                    _say(f"removed {folder.name}")
    except InputError as error:
        sys.stderr.write(f"kg4d: error: {error}\n")
        return 2
    return 0


def _list(cache: PriorCache) -> None:
    for folder in cache.entries():
        try:
            created, description = created_and_description(folder)
            date = time.strftime("%Y-%m-%d %H:%M", time.localtime(created))
            _say(f"{date}  {size_of(folder) / 1e6:8.1f} MB  {folder.name}  ({description})")
        except BrokenEntryError as error:
            _say(f"broken: {folder.name}: {error}")


def _verify(cache: PriorCache) -> int:
    report = cache.verify()
    for folder, what in report.items():
        _say(f"{folder.name}: {what or 'intact'}")
    return 1 if any(report.values()) else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
