import json
import logging
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from filelock import FileLock
from torch import Tensor

from kg4d.data.scene_writer import write_scene
from kg4d.errors import InputError
from kg4d.priors.cache import store as cache_module
from kg4d.priors.cache.__main__ import main, parse_size
from kg4d.priors.cache.entries import DATA, MANIFEST
from kg4d.priors.cache.store import PriorCache, size_of
from tests import make


class Doubling:
    """A provider that counts its calls in a file, so that other processes' count too."""

    name = "doubling"

    def __init__(self, journal: Path, **settings: object) -> None:
        self.journal, self.settings = journal, settings

    def identity(self) -> dict:
        return dict(self.settings)

    def __call__(self, value: Tensor) -> Tensor:
        with self.journal.open("a") as file:
            file.write("x")
        return value * 2

    @property
    def calls(self) -> int:
        return len(self.journal.read_text()) if self.journal.exists() else 0


def ask(cache: PriorCache, provider: Doubling, value: Tensor) -> Tensor:
    return cache.get_or_make(provider, {"value": value}, lambda: {"twice": provider(value)})["twice"]


@pytest.fixture
def provider(tmp_path: Path) -> Doubling:
    return Doubling(tmp_path / "calls", strength=1)


@pytest.fixture
def cache(tmp_path: Path) -> PriorCache:
    return PriorCache(tmp_path / "cache")


def entry(cache: PriorCache) -> Path:
    [folder] = cache.entries()
    return folder


def test_what_was_made_is_read_back_bit_by_bit(cache: PriorCache, provider: Doubling) -> None:
    value = torch.randn(4, 3)[:, ::2]  # not contiguous
    made, read = ask(cache, provider, value), ask(PriorCache(cache.root), provider, value)
    assert torch.equal(made, read)
    assert torch.equal(read, value * 2)
    assert provider.calls == 1
    manifest = json.loads((entry(cache) / MANIFEST).read_text())
    assert manifest["provider"] == "doubling"
    assert manifest["identity"] == {"strength": 1}
    assert entry(cache).name == f"doubling-{cache.used['doubling'][0]}"


@pytest.mark.parametrize(
    "change",
    [
        lambda p, v: (Doubling(p.journal, strength=2), v),
        lambda p, v: (Doubling(p.journal, strength=1, model="b"), v),
        lambda p, v: (p, v + 1),
        lambda p, v: (p, v.double()),
        lambda p, v: (p, v.reshape(1, 6)),
    ],
    ids=["setting", "model", "value", "type", "shape"],
)
def test_all_that_decides_the_result_is_in_the_key(cache: PriorCache, provider: Doubling, change) -> None:
    value = torch.arange(6.0)
    ask(cache, provider, value)
    ask(cache, *change(provider, value))
    assert provider.calls == 2
    assert len(cache.entries()) == 2


@pytest.mark.parametrize("name", [DATA, MANIFEST])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.99, None])
def test_an_entry_cut_short_is_said_and_made_again(
    cache: PriorCache, provider: Doubling, name: str, fraction: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    value = torch.arange(100.0)
    ask(cache, provider, value)
    file = entry(cache) / name
    if fraction is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: int(fraction * file.stat().st_size)])
    assert torch.equal(ask(cache, provider, value), value * 2)
    assert provider.calls == 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert name in caplog.text
    assert torch.equal(ask(cache, provider, value), value * 2)  # and is whole again
    assert provider.calls == 2


def edited(folder: Path, **changes: object) -> None:
    table = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(table | changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 0}, "format 0"),
        ({"format": 2}, "format 2"),
        ({"provider": "other"}, "another"),
        ({"new": 1}, "keys"),
        ({"identity": 3}, "other values"),
        ({"created": "yesterday"}, "other values"),
    ],
)
def test_an_entry_of_another_version_is_never_read(
    cache: PriorCache, provider: Doubling, changes: dict, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    ask(cache, provider, torch.ones(2))
    edited(entry(cache), **changes)
    assert says in cache.verify()[entry(cache)]
    ask(cache, provider, torch.ones(2))
    assert provider.calls == 2
    assert says in caplog.text


def test_changed_bytes_are_never_read(cache: PriorCache, provider: Doubling) -> None:
    ask(cache, provider, torch.ones(8))
    file = entry(cache) / DATA
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    assert torch.equal(ask(cache, provider, torch.ones(8)), torch.full((8,), 2.0))
    assert provider.calls == 2


def test_a_failure_leaves_nothing(cache: PriorCache, provider: Doubling) -> None:
    def fail() -> dict[str, Tensor]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cache.get_or_make(provider, {}, fail)
    assert [path.name for path in cache.root.iterdir()] == [".locks"]


def _ask_slowly(root: Path, journal: Path, barrier) -> None:
    provider = Doubling(journal)

    def slowly() -> dict[str, Tensor]:
        time.sleep(0.3)
        return {"twice": provider(torch.ones(1))}

    barrier.wait()
    PriorCache(root).get_or_make(provider, {"value": torch.ones(1)}, slowly)


def test_processes_side_by_side_compute_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    workers = [
        context.Process(target=_ask_slowly, args=(tmp_path / "cache", tmp_path / "calls", barrier)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert Doubling(tmp_path / "calls").calls == 1


def test_what_a_killed_process_left_is_cleared(cache: PriorCache, provider: Doubling) -> None:
    ask(cache, provider, torch.ones(1))
    left = entry(cache).with_name(f".{entry(cache).name}.partial")
    left.mkdir()
    (left / DATA).write_text("half")
    cache.prune()
    assert not left.exists()
    assert len(cache.entries()) == 1


def test_pruning_by_age_and_size(cache: PriorCache, provider: Doubling, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    for age in (30, 20, 10):
        monkeypatch.setattr(time, "time", lambda age=age: now - age)
        ask(cache, provider, torch.full((1000,), float(age)))
    monkeypatch.setattr(time, "time", lambda: now)
    one = size_of(cache.entries()[0])
    assert cache.prune() == []
    assert len(cache.prune(older_than=25.0)) == 1
    assert len(cache.prune(max_bytes=round(1.5 * one))) == 1
    ask(cache, provider, torch.full((1000,), 10.0))  # the youngest is the one that stayed
    assert provider.calls == 3


def test_what_is_in_use_is_not_pruned(cache: PriorCache, provider: Doubling) -> None:
    ask(cache, provider, torch.ones(1))
    lock = cache.root / ".locks" / f"{entry(cache).name}.lock"
    with FileLock(lock):
        assert cache.prune(max_bytes=0) == []
    assert len(cache.prune(max_bytes=0)) == 1


def test_another_process_may_remove_what_is_being_pruned(
    cache: PriorCache, provider: Doubling, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(cache, provider, torch.ones(1))
    ask(cache, provider, torch.ones(2))
    first, second = cache.entries()
    between = {"check": first, "size_of": second}
    for name, gone in between.items():
        real = getattr(cache_module, name)

        def then_gone(folder: Path, real=real, gone=gone) -> object:
            result = real(folder)
            if folder == gone:
                shutil.rmtree(folder, ignore_errors=True)
            return result

        monkeypatch.setattr(cache_module, name, then_gone)
    assert cache.prune(max_bytes=0) == []
    assert cache.entries() == []


def test_the_size_of_what_is_going_is_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kept", "gone"):
        (tmp_path / name).write_bytes(b"123")
    real = os.walk

    def walk_then_remove(folder: Path) -> list:
        found = list(real(folder))
        (tmp_path / "gone").unlink()
        return found

    monkeypatch.setattr(os, "walk", walk_then_remove)
    assert size_of(tmp_path) == 3


@pytest.fixture
def scene(cache: PriorCache) -> Path:
    """A prepared scene, as far as the cache knows one."""
    write_scene(make.tiny_scene(), cache.scenes / "disc-0123", {"source": {"path": "disc.mp4"}})
    return cache.scenes / "disc-0123"


def test_scenes_are_kept_with_the_results(
    cache: PriorCache, provider: Doubling, scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(cache, provider, torch.ones(1))
    result, last = cache.entries()
    assert last == scene
    assert set(cache.verify().values()) == {None}
    assert main(["list", "--root", str(cache.root)]) == 0
    assert "disc-0123  (scene of disc.mp4)" in capsys.readouterr().out
    partial = scene.with_name(f".{scene.name}.4711.partial")
    partial.mkdir()
    with FileLock(cache.root / ".locks" / f"{scene.name}.lock"):
        assert cache.prune(max_bytes=0) == [result]
        assert partial.exists()  # its maker is still there
    assert cache.prune() == []
    assert not partial.exists()
    picture = scene / "train/r_001.png"
    picture.write_bytes(picture.read_bytes()[:-9])
    assert cache.verify()[scene] == "train/r_001.png is cut short or changed"
    assert cache.prune() == [scene]
    scene.mkdir()
    assert "scene.json is missing" in str(cache.verify()[scene])


def test_the_command(cache: PriorCache, provider: Doubling, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--root", str(cache.root)]
    assert main(["list", *root]) == 0
    assert capsys.readouterr().out == ""
    ask(cache, provider, torch.ones(1))
    assert main(["list", *root]) == 0
    assert "strength=1" in capsys.readouterr().out
    assert main(["verify", *root]) == 0
    (entry(cache) / DATA).write_bytes(b"")
    assert main(["verify", *root]) == 1
    assert "cut short" in capsys.readouterr().out
    assert main(["prune", *root, "--max-size", "some"]) == 2
    assert "--max-size" in capsys.readouterr().err
    assert main(["prune", *root, "--max-size", "1GB"]) == 0  # what is broken goes in any case
    assert cache.entries() == []


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KG4D_CACHE", str(tmp_path))
    assert PriorCache().root == tmp_path / "priors"
    assert os.fspath(PriorCache("elsewhere").root) == "elsewhere"


@pytest.mark.parametrize("text", ["", "GB", "-1", "5XB"])
def test_invalid_sizes(text: str) -> None:
    with pytest.raises(InputError, match="--max-size"):
        parse_size(text)


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], PriorCache]]:
    """The cache at one URL, as machines with disks of their own see it."""

    def of(name: str) -> PriorCache:
        monkeypatch.setenv("KG4D_CACHE", str(tmp_path / name))
        return PriorCache("memory://cache")

    yield of
    fsspec.filesystem("memory").rm("/", recursive=True)


def test_a_result_is_made_once_for_all_machines(machines: Callable[[str], PriorCache], provider: Doubling) -> None:
    value = torch.randn(4)
    made = ask(machines("one"), provider, value)
    assert torch.equal(ask(machines("two"), provider, value), made)
    assert provider.calls == 1
    assert list(machines("two").verify().values()) == [None]


@pytest.mark.parametrize("file", [DATA, MANIFEST])
def test_a_shared_result_that_is_damaged_is_named_and_made_again(
    machines: Callable[[str], PriorCache], provider: Doubling, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    value = torch.randn(4)
    made = ask(machines("one"), provider, value)
    memory = fsspec.filesystem("memory")
    [place] = [path for path in memory.find("/") if path.endswith(f"/{file}") and "files" in path]
    memory.pipe_file(place, memory.cat_file(place)[:-1])
    assert torch.equal(ask(machines("two"), provider, value), made)
    assert provider.calls == 2
    assert "is cut short or changed" in caplog.text
    assert torch.equal(ask(machines("three"), provider, value), made)  # what two has put is whole
    assert provider.calls == 2


def test_a_scene_is_prepared_once_for_all_machines(machines: Callable[[str], PriorCache], tmp_path: Path) -> None:
    one, two = machines("one"), machines("two")
    folder = one.scenes / "fox-0123"
    write_scene(make.tiny_scene(), folder, {"source": {"path": "fox.mp4"}, "notes": []})
    one.share(folder)
    with two.locked(two.scenes / folder.name):
        assert two.fetch(two.scenes / folder.name)
        assert not two.fetch(two.scenes / "other-0123")
    assert two.verify() == {two.scenes / folder.name: None}
