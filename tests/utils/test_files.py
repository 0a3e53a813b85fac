import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.utils.files import replacing, replacing_folder, tree_hash


def traced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The order in which things are flushed and renamed."""
    seen: list[tuple[str, str]] = []
    fsync, rename, names = os.fsync, Path.replace, {}
    opened = os.open

    def open_and_note(path, flags, *more, **named):
        handle = opened(path, flags, *more, **named)
        names[handle] = Path(path).name
        return handle

    monkeypatch.setattr(os, "open", open_and_note)
    monkeypatch.setattr(os, "fsync", lambda handle: (seen.append(("flush", names[handle])), fsync(handle)))
    monkeypatch.setattr(Path, "replace", lambda path, to: (seen.append(("rename", Path(to).name)), rename(path, to))[1])
    return seen


def test_a_file_is_on_disk_before_it_gets_its_name_and_the_name_after(tmp_path: Path, monkeypatch) -> None:
    seen = traced(monkeypatch)
    with replacing(tmp_path / "below" / "a.json") as part:
        part.write_text("x")
    assert seen == [("flush", part.name), ("rename", "a.json"), ("flush", "below")]


def test_so_is_a_folder_with_all_that_is_in_it(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "entry").mkdir()
    (tmp_path / "entry" / "old").touch()
    seen = traced(monkeypatch)
    with replacing_folder(tmp_path / "entry", over=True) as part:
        (part / "data").mkdir()
        (part / "data" / "x").write_text("x")
    flushed = [name for kind, name in seen if kind == "flush"]
    assert flushed == ["data", "x", part.name, tmp_path.name]
    assert seen[-2] == ("rename", "entry")
    assert [path.name for path in (tmp_path / "entry").iterdir()] == ["data"]


def test_a_block_that_raises_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "b").mkdir()
    for block in (replacing(tmp_path / "a.txt"), replacing_folder(tmp_path / "b", over=True)):
        with suppress(RuntimeError), block as part:
            (part if part.suffix == ".txt" else part / "half").write_text("half")
            raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b"]


def test_a_folder_that_holds_something_is_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine").touch()
    with pytest.raises(OSError, match="not empty"), replacing_folder(tmp_path / "b"):
        pass
    assert (tmp_path / "b" / "mine").exists()


def test_that_folder_is_what_the_error_names(tmp_path: Path) -> None:
    (tmp_path / "b" / "of another process").mkdir(parents=True)
    with pytest.raises(OSError, match="not empty") as caught, replacing_folder(tmp_path / "b"):
        pass
    assert caught.value.filename == str(tmp_path / "b")


KILLED = """
import os, sys
from pathlib import Path
from kg4d.utils.files import replacing, replacing_folder
with replacing(Path(sys.argv[1]) / "a.txt") as part, replacing_folder(Path(sys.argv[1]) / "b") as folder:
    part.write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_left_goes_with_the_next_try(tmp_path: Path) -> None:
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
        assert len(list(tmp_path.iterdir())) == 2  # of the last one only
    with replacing(tmp_path / "a.txt") as part, replacing_folder(tmp_path / "b"):
        part.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b"]


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.txt") as mine:
        mine.write_text("1")
        other = mine.with_name(mine.name.replace(str(os.getpid()), "1"))  # process 1 is always there
        other.write_text("2")
    assert other.exists()


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(TREES, TREES)
def test_hashes_of_trees_agree_where_the_trees_do(one, other) -> None:
    same = repr(in_order(one)) == repr(in_order(other))
    assert (tree_hash(one) == tree_hash(other)) is same


def in_order(tree):
    if isinstance(tree, dict):
        return {key: in_order(tree[key]) for key in sorted(tree)}
    return [in_order(item) for item in tree] if isinstance(tree, list) else tree


def test_every_bit_of_a_tensor_is_in_the_hash() -> None:
    tensor = torch.zeros(3)
    before = tree_hash({"state": [{"a": tensor}]})
    for bit in range(96):
        flipped = tensor.view(torch.uint8).clone()
        flipped[bit // 8] ^= 1 << bit % 8
        assert tree_hash({"state": [{"a": flipped.view(torch.float32)}]}) != before
    assert tree_hash({"state": [{"a": tensor.clone()}]}) == before
    assert tree_hash({"state": [{"a": tensor[None]}]}) != before
