import io
import logging

import pytest

from kg4d.utils import logs
from kg4d.utils.logs import Milestones, progress_bar


@pytest.mark.parametrize(("first", "total", "lines"), [(0, 300, 10), (150, 300, 5), (0, 4, 4), (299, 300, 1)])
def test_a_line_each_tenth_of_what_is_left(first: int, total: int, lines: int) -> None:
    milestones = Milestones("static", first, total)
    said = [milestones.reached(step, {"loss": 0.25, "psnr": 20.0, "kfc": 1.0}) for step in range(first + 1, total + 1)]
    said = [line for line in said if line is not None]
    assert len(said) == lines
    assert said[-1].startswith(
        f"static   100 %  step {total} of {total}  loss 0.25     psnr 20       0:00 elapsed, 0:00 left"
    )


def test_what_is_left_is_as_fast_as_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    milestones = Milestones("dynamic", 100, 500)
    now[0] += 30.0
    line = milestones.reached(150, {})
    assert line == "dynamic   30 %  step 150 of 500  0:30 elapsed, 3:30 left"  # 50 steps in 30 s, 350 to go


def test_where_nobody_watches_slow_work_says_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(logs.sys, "stdout", io.StringIO())
    monkeypatch.setattr(logging.getLogger("kg4d"), "handlers", [])  # streams of earlier tests, closed
    with caplog.at_level(logging.INFO, "kg4d"):
        for shown in (True, False):
            with progress_bar("evaluation", shown) as report:
                for done in range(1, 31):
                    now[0] += 1.0
                    report("test/fvd_f", done, 30)
    assert caplog.messages == [f"evaluation: test/fvd_f {done} of 30" for done in (10, 20, 30)]
    assert capsys.readouterr() == ("", "")
