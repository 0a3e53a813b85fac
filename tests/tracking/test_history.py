import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kg4d.tracking.history import History


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_a_step_and_columns_that_grow(tmp_path):
    history = History(tmp_path / "metrics.csv")
    history.add("static", 0, {"a": 1.0})
    history.add("static", 0, {"b": 2.0})  # a second call at the same step
    history.add("static", 10, {"a": 3.0})
    history.add("dynamic", 0, {"c": 4.0})
    history.flush()
    assert rows(tmp_path / "metrics.csv") == [
        {"step": "0", "stage": "static", "stage_step": "0", "a": "1.0", "b": "2.0", "c": ""},
        {"step": "10", "stage": "static", "stage_step": "10", "a": "3.0", "b": "", "c": ""},
        {"step": "11", "stage": "dynamic", "stage_step": "0", "a": "", "b": "", "c": "4.0"},
    ]


def test_a_row_is_on_disk_when_the_next_one_comes(tmp_path):
    history = History(tmp_path / "metrics.csv")
    history.add("static", 0, {"a": 1.0})
    assert not (tmp_path / "metrics.csv").exists()
    history.add("static", 1, {"a": 2.0})
    history.add("static", 2, {"a": 3.0})
    assert [row["a"] for row in rows(tmp_path / "metrics.csv")] == ["1.0", "2.0"]


def test_old_columns_only_append(tmp_path):
    history = History(tmp_path / "metrics.csv")
    history.add("static", 0, {"a": 1.0})
    history.flush()
    file = (tmp_path / "metrics.csv").stat().st_ino
    for step in range(1, 5):
        history.add("static", step, {"a": 1.0})
    history.flush()
    assert (tmp_path / "metrics.csv").stat().st_ino == file
    history.add("static", 5, {"b": 1.0})
    history.flush()
    assert (tmp_path / "metrics.csv").stat().st_ino != file


def write_first_half(path) -> None:
    history = History(path)
    for step in range(4):
        history.add("static", step, {"a": float(step)})
    for step in range(6):
        history.add("dynamic", step, {"b": float(step)})
    history.flush()


def test_a_stage_that_was_cut_short_is_repeated_from_its_step(tmp_path):
    write_first_half(tmp_path / "metrics.csv")
    again = History(tmp_path / "metrics.csv")
    for step in range(3, 8):
        again.add("dynamic", step, {"b": 100.0 + step})
    again.add("refine", 0, {"c": 0.0})
    again.flush()
    read = rows(tmp_path / "metrics.csv")
    assert [int(row["step"]) for row in read] == list(range(13))
    assert [row["b"] for row in read[4:12]] == ["0.0", "1.0", "2.0", "103.0", "104.0", "105.0", "106.0", "107.0"]
    assert read[12]["stage"] == "refine"


def test_an_earlier_stage_that_is_repeated_drops_the_later_ones(tmp_path):
    write_first_half(tmp_path / "metrics.csv")
    again = History(tmp_path / "metrics.csv")
    again.add("static", 2, {"a": 9.0})
    again.add("dynamic", 0, {"b": 7.0})
    again.flush()
    read = rows(tmp_path / "metrics.csv")
    assert [(row["step"], row["stage"], row["stage_step"]) for row in read] == [
        ("0", "static", "0"),
        ("1", "static", "1"),
        ("2", "static", "2"),
        ("3", "dynamic", "0"),
    ]
    assert (read[2]["a"], read[3]["b"]) == ("9.0", "7.0")


def test_a_new_stage_follows_what_is_there(tmp_path):
    write_first_half(tmp_path / "metrics.csv")
    assert History(tmp_path / "metrics.csv").add("refine", 0, {"c": 1.0}) == 10


def test_steps_never_go_back(tmp_path):
    history = History(tmp_path / "metrics.csv")
    history.add("static", 5, {"a": 1.0})
    with pytest.raises(ValueError, match="steps must not go back"):
        history.add("static", 4, {"a": 1.0})
    history.flush()
    with pytest.raises(ValueError, match="steps must not go back"):
        history.add("static", 5, {"a": 1.0})


@given(cut=st.integers(0, 9), every=st.integers(1, 4))
def test_a_run_cut_anywhere_and_resumed_has_the_history_of_one_that_was_not(tmp_path_factory, cut, every):
    stages = [("static", 4), ("dynamic", 6)]
    plan = [(stage, step) for stage, length in stages for step in range(0, length, every)]
    folder = tmp_path_factory.mktemp("history")

    def log(history: History, part) -> None:
        for stage, step in part:
            history.add(stage, step, {stage: step / 2})
        history.flush()

    log(History(folder / "whole.csv"), plan)
    cut = min(cut, len(plan) - 1)
    log(History(folder / "cut.csv"), plan[: cut + 1])  # the last row is beyond the checkpoint that is resumed
    log(History(folder / "cut.csv"), plan[cut:])
    assert (folder / "cut.csv").read_text() == (folder / "whole.csv").read_text()


@pytest.mark.parametrize("torn", ["5,sta", "5,static", "x,static,5,1.0", "\0\0\0\0", "6,static,6,1.0,9,9\n", '7,"stat'])
def test_a_torn_last_row_is_dropped_and_named(tmp_path, caplog, torn):
    path = tmp_path / "metrics.csv"
    first = History(path)
    for step in range(3):
        first.add("static", step, {"a": step / 2})
    first.flush()
    whole = path.read_text()
    path.write_text(whole + torn)
    again = History(path)
    assert "1 torn row(s) at the end are dropped" in caplog.text
    assert path.read_text() == whole
    again.add("static", 3, {"a": 1.5})
    again.flush()
    assert path.read_text() == whole + "3,static,3,1.5\n"


def test_a_row_that_is_saved_can_still_grow(tmp_path):
    history = History(tmp_path / "metrics.csv")
    history.add("static", 0, {"a": 1.0})
    history.save()
    assert (tmp_path / "metrics.csv").read_text() == "step,stage,stage_step,a\n0,static,0,1.0\n"
    history.add("static", 0, {"a": 1.0, "b": 2.0})
    history.add("static", 1, {"a": 3.0})
    history.flush()
    assert (tmp_path / "metrics.csv").read_text() == "step,stage,stage_step,a,b\n0,static,0,1.0,2.0\n1,static,1,3.0,\n"
