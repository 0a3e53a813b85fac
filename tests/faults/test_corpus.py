"""No malformed input ends in anything but one line that names it, or in what the sound one gives."""

import argparse
import logging
import resource
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kg4d.utils.cli import Parser, run
from kg4d.utils.files import tree_hash
from tests.faults.corpus import Case, cases
from tests.faults.inputs import KINDS, content, group_of, write_sound

SECONDS, GIGABYTES = 10, 4
CASES = cases()
# every second one is quick: all take minutes
PARAMETERS = [
    pytest.param(case, id=case.name, marks=[pytest.mark.slow] * (number % 2)) for number, case in enumerate(CASES)
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_sound(tmp_path_factory.mktemp("sound"))


@pytest.fixture(scope="module")
def right(sound: dict[str, Path]) -> dict[str, str]:
    """What the sound inputs are read to."""
    return {
        kind: tree_hash(content(read(sound[group_of(kind)], next(sound[group_of(kind)].glob(file)))))
        for kind, (file, read) in KINDS.items()
    }


@pytest.fixture
def folder(sound: dict[str, Path], tmp_path: Path, case: Case) -> Path:
    return Path(shutil.copytree(sound[group_of(case.kind)], tmp_path / "inputs"))


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    def late(*_: Any) -> None:
        raise TimeoutError(f"took more than {SECONDS} seconds")

    before, memory = signal.signal(signal.SIGALRM, late), resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (GIGABYTES << 30), memory[1]))
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    resource.setrlimit(resource.RLIMIT_AS, memory)
    signal.signal(signal.SIGALRM, before)
    logging.getLogger("kg4d").handlers.clear()


@pytest.mark.parametrize("case", PARAMETERS)
def test_malformed_input(case: Case, folder: Path, right: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    name, read = KINDS[case.kind]
    file = next(folder.glob(name))
    case.spoil(file)
    found = []

    def main(_: argparse.Namespace) -> None:
        found.append(read(folder, file))

    status = run(main, Parser("kg4d.toy", "Reads it."), [])
    error = capfd.readouterr().err.splitlines()
    if status == 0:
        assert tree_hash(content(found[0])) == right[case.kind], "read to something else, without a word"
    else:
        assert status == 2, error
        assert len(error) == 1
        assert error[0].startswith("kg4d: error: ")
        assert len(error[0]) < 1000
    assert sorted(path.name for path in folder.parent.iterdir()) == ["inputs"]  # nothing is written beside it


def test_the_corpus_is_as_large_as_it_says() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 300
    assert set(Counter(case.kind for case in CASES)) == set(KINDS)
