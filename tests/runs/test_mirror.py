"""Runs whose output is a URL: copied up while they go on, fetched on another machine, never half."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from kg4d import report as command
from kg4d.errors import InputError
from kg4d.pipeline import fit
from kg4d.runs.folder import RunFolder
from kg4d.runs.mirror import Mirror, local_copies
from kg4d.utils.cli import run
from kg4d.utils.object_storage import DamagedError, StoredFolder
from tests.tiny_runs import stop_after, tiny

SHORT = ("wgf.weight=0", "lift.steps=5", "output=memory://runs")


@pytest.fixture(autouse=True)
def empty_memory() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").rm("/", recursive=True)


def on_machine(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on as a machine with a disk of its own."""
    monkeypatch.setenv("KG4D_CACHE", str(tmp_path / name))


def test_another_machine_goes_on_with_a_run_that_was_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(tmp_path, *SHORT)
    on_machine("one", tmp_path, monkeypatch)
    with monkeypatch.context() as patch:
        stop_after(5, patch, "dynamic")
        with pytest.raises(KeyboardInterrupt):
            fit(config)
    stored = StoredFolder("memory://runs/kg4d/full/seed0")
    begun = stored.listing() or {}
    assert {"config.yaml", "checkpoints/static.ckpt", "checkpoints/last.ckpt"} <= set(begun)
    assert "metrics.json" not in begun
    assert not any(Path(name).name.startswith(".") for name in begun)

    on_machine("two", tmp_path, monkeypatch)
    with pytest.raises(InputError, match="holds no finished run|none below"):
        command.main(command.parser().parse_args(["--runs", "memory://runs", "--out", str(tmp_path / "report")]))
    folder = fit(config, resume=True)
    assert folder.is_relative_to(tmp_path / "two")
    done = stored.listing() or {}
    assert done["checkpoints/static.ckpt"] == begun["checkpoints/static.ckpt"]
    assert {"metrics.json", "run.json"} <= set(done)

    on_machine("three", tmp_path, monkeypatch)
    with pytest.raises(InputError, match="holds a finished run"):
        fit(config)
    assert (fit(config, resume=True) / "metrics.json").read_bytes() == (folder / "metrics.json").read_bytes()
    words = ["--runs", "memory://runs", "--out", str(tmp_path / "report")]
    assert run(command.main, command.parser(), words) == 0
    assert (tmp_path / "report" / "report.html").is_file()
    capsys.readouterr()

    whole = fit(tiny(tmp_path / "whole", *SHORT[:2]))
    assert (whole / "metrics.json").read_bytes() == (folder / "metrics.json").read_bytes()


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    on_machine("one", tmp_path, monkeypatch)
    config = tiny(tmp_path, *SHORT)
    RunFolder.of(config).begin(config)
    made = Mirror.of(config)
    made.replace()
    made.put()
    return made


def test_a_local_folder_that_is_ahead_stays(mirror: Mirror) -> None:
    (mirror.folder / "metrics.csv").write_text("step,stage,stage_step\n")
    assert mirror.fetch()
    assert (mirror.folder / "metrics.csv").exists()


def test_what_another_machine_has_put_is_noticed(mirror: Mirror, tmp_path: Path) -> None:
    other = Mirror(tmp_path / "other", mirror._stored.url)
    other.fetch()
    (other.folder / "metrics.csv").write_text("theirs")
    other.put()
    (mirror.folder / "metrics.csv").write_text("mine")
    with pytest.raises(InputError, match="written to by another process"):
        mirror.put()
    mirror.put_if_possible()  # says so, and goes on
    mirror.fetch()
    assert (mirror.folder / "metrics.csv").read_text() == "theirs"


def cut(*_: object, **__: object) -> None:
    raise ConnectionResetError


def test_a_fetch_that_is_cut_short_is_begun_anew(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mirror.folder / "metrics.csv").write_text("new")
    mirror.put()
    other = Mirror(tmp_path / "other", mirror._stored.url)
    with monkeypatch.context() as patch:
        patch.setattr(type(other._stored._files), "get_file", cut)
        with pytest.raises(InputError, match="ConnectionResetError"):
            other.fetch()
    assert other.fetch()
    assert (other.folder / "metrics.csv").read_text() == "new"
    assert json.loads((other.folder / ".stored.json").read_text()) == mirror._stored.listing()


def test_a_put_whose_answer_was_lost_is_known_to_be_its_own(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    files = type(mirror._stored._files)
    pipe = files.pipe_file

    def lose_the_answer(self: object, *words: object, **settings: object) -> None:
        pipe(self, *words, **settings)
        raise TimeoutError

    (mirror.folder / "metrics.csv").write_text("new")
    with monkeypatch.context() as patch:
        patch.setattr(files, "pipe_file", lose_the_answer)
        with pytest.raises(InputError, match="TimeoutError"):
            mirror.put()
    mirror.put()
    assert "metrics.csv" in (mirror._stored.listing() or {})


def test_overwriting_replaces_what_is_stored_whole_or_not(mirror: Mirror, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/runs/kg4d/full/seed0/manifest.json", b"{")
    other = Mirror(tmp_path / "other", mirror._stored.url)
    with pytest.raises(DamagedError):
        other.fetch()
    other.replace()
    other.folder.mkdir()
    (other.folder / "log.txt").write_text("fresh")
    other.put()
    assert set(other._stored.listing() or {}) == {"log.txt"}


def test_a_request_that_is_wrong_replaces_nothing(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = mirror._stored.listing()
    on_machine("two", tmp_path, monkeypatch)
    with pytest.raises(InputError, match="nowhere"):
        fit(replace(tiny(tmp_path, *SHORT), scene=str(tmp_path / "nowhere")), overwrite=True)
    assert mirror._stored.listing() == before


def test_a_path_needs_no_copy(tmp_path: Path) -> None:
    assert local_copies(str(tmp_path)) == tmp_path
    assert Mirror.of(replace(tiny(tmp_path), output=str(tmp_path))) is None
    with pytest.raises(InputError, match="holds no run"):
        local_copies("memory://nothing")
