import re
import shlex
import signal
import sys
from types import SimpleNamespace

import pytest
import torch

import kg4d.runs.read_back
from kg4d.errors import InputError
from kg4d.formats.viewer import Controls
from kg4d.gaussians.state import GaussianState
from kg4d.utils.cli import WRONG_REQUEST, run
from kg4d.view import main, parser
from tests import make


class Run:
    """What the command asks of a run that was read back: two frames of three Gaussians and two keypoints."""

    config = SimpleNamespace(export=SimpleNamespace(fps=50))
    scene = SimpleNamespace(
        reference=SimpleNamespace(times=torch.tensor([0.0, 1.0])), keypoints=SimpleNamespace(parents=(-1, 0))
    )

    def states(self, times: torch.Tensor) -> list[GaussianState]:
        return [make.gaussians(torch.eye(3) + t, keypoint_logits=torch.eye(3, 2)) for t in times]

    def keypoints(self, times: torch.Tensor) -> torch.Tensor:
        return times[:, None, None] * torch.ones(2, 2, 3)


def test_the_page_plays_until_it_is_interrupted(monkeypatch, capsys):
    seen = []

    def advance(controls: Controls) -> None:
        seen.append(controls.frame.value)
        if len(seen) == 3:
            raise KeyboardInterrupt
        play(controls)

    play = Controls.advance
    monkeypatch.setattr(Controls, "advance", advance)
    monkeypatch.setattr(kg4d.runs.read_back, "load_run", lambda path: Run())
    assert run(main, parser(), ["--run", "folder", "--port", "0"]) == 128 + signal.SIGINT
    assert seen == [0, 1, 0]
    shown = capsys.readouterr()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+ \(ctrl-C ends it\)\n", shown.out)
    assert (
        shown.err
        == f"kg4d: interrupted (go on with: {shlex.quote(sys.executable)} -m kg4d.view --run folder --port 0)\n"
    )


def test_a_folder_that_is_no_run_is_a_wrong_request(tmp_path, capsys):
    assert run(main, parser(), ["--run", str(tmp_path)]) == WRONG_REQUEST
    assert "is not a run folder" in capsys.readouterr().err


def test_a_port_that_is_none_is_refused():
    with pytest.raises(InputError, match="70000 is no port"):
        main(parser().parse_args(["--run", "folder", "--port", "70000"]))
