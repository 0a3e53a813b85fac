import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from kg4d.errors import InputError
from kg4d.pipeline import fit
from kg4d.utils.cli import WRONG_REQUEST, run
from kg4d.view import main, parser
from tests.formats.films import Unpacked
from tests.tiny_runs import tiny


def film_at(address: str, seconds: float = 120) -> Unpacked:
    """The film, as soon as it is there."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with urllib.request.urlopen(address, timeout=20) as answer:
            if answer.status == 200:
                return Unpacked(answer.read())
        time.sleep(0.2)
    raise TimeoutError(address)


@pytest.mark.slow
def test_the_page_of_two_runs_is_served_until_it_is_interrupted(tmp_path: Path):
    runs = [fit(tiny(tmp_path, f"seed={seed}")) for seed in (0, 1)]
    words = [sys.executable, "-m", "kg4d.view", "--run", str(runs[0]), "--compare", str(runs[1]), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as command:
        said = command.stdout.readline()
        address = re.fullmatch(r"(http://127\.0\.0\.1:\d+) \(ctrl-C ends it\)\n", said)[1]
        with urllib.request.urlopen(address, timeout=20) as answer:  # before the runs are read
            assert b"<canvas" in answer.read()
        first, second = (film_at(f"{address}/film/{index}?after=") for index in range(2))
        command.send_signal(signal.SIGINT)
        _, complaints = command.communicate(timeout=60)
    assert command.returncode == 128 + signal.SIGINT
    assert complaints.startswith("kg4d: interrupted (go on with: ")
    assert [one.header["title"] for one in (first, second)] == ["kg4d · full · seed 0", "kg4d · full · seed 1"]
    assert first.header["counts"] == [150] * len(first.header["times"])
    assert first.header["metrics"]["train/psnr"]["label"] == "train/psnr ↑ (dB)"
    assert any(view["held_out"] for view in first.header["views"])


@pytest.mark.slow
def test_a_fit_shows_how_far_it_is(tmp_path: Path, monkeypatch):
    notes = []
    film = tmp_path / "film"
    monkeypatch.setattr("kg4d.runs.outputs.replacing", lambda path: seen(path, notes))
    run_folder = fit(tiny(tmp_path / "runs", "trainer.preview_every=3"), film=film)
    stages = [("static", 6, (3, 6)), ("dynamic", 6, (3, 6)), ("refine", 2, (2,))]
    expected = [f"{name} stage, step {step} of {steps}" for name, steps, shown in stages for step in shown]
    assert [one.header["note"] for one in notes] == [*expected, "fitted"]
    assert [len(one.header["counts"]) > 1 for one in notes] == [False, False, True, True, True, True]
    assert notes[-1].header["metrics"]
    assert not notes[0].header["metrics"]
    assert run_folder.is_dir()


class seen:  # noqa: N801  # stands in for a function
    """Writes the file, and keeps what was written."""

    def __init__(self, path: Path, notes: list[Unpacked]) -> None:
        self.path, self.notes = path, notes

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.notes.append(Unpacked(self.path.read_bytes()))


def test_a_folder_that_is_no_run_is_a_wrong_request(tmp_path, capsys):
    assert run(main, parser(), ["--run", str(tmp_path), "--port", "0"]) == WRONG_REQUEST
    assert "is not a run folder" in capsys.readouterr().err


def test_a_port_that_is_none_is_refused():
    with pytest.raises(InputError, match="70000 is no port"):
        main(parser().parse_args(["--run", "folder", "--port", "70000"]))
