"""Folders in object storage: in memory, and on a local server that speaks S3."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from kg4d.errors import InputError
from kg4d.utils.object_storage import MANIFEST, DamagedError, StoredFolder, is_url


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket on a server of this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setitem(fsspec.config.conf, "s3", {"endpoint_url": f"http://{host}:{port}"})
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture(params=["memory", "s3"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A place that is empty, and is emptied afterwards."""
    above = request.getfixturevalue("s3") if request.param == "s3" else "memory://bucket"
    place = f"{above}/folder"
    yield place
    files, root = fsspec.core.url_to_fs(place)
    files.invalidate_cache()
    if files.exists(root):
        files.rm(root, recursive=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "here"
    (path / "sub").mkdir(parents=True)
    (path / "a.txt").write_text("one")
    (path / "sub" / "b.bin").write_bytes(bytes(range(256)) * 100)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def objects(url: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(url)
    files.invalidate_cache()
    return sorted(files.find(root))


def cut(*_: object, **__: object) -> None:
    raise ConnectionResetError("cut")


def test_a_folder_comes_back_as_it_was_put(url: str, folder: Path, tmp_path: Path) -> None:
    stored = StoredFolder(url)
    assert stored.listing() is None
    assert stored.fetch(tmp_path / "there") is None
    assert not (tmp_path / "there").exists()
    listing = stored.put(folder)
    assert StoredFolder(url + "/").fetch(tmp_path / "there") == listing
    assert contents(tmp_path / "there") == contents(folder)


def test_a_put_moves_what_changed_and_removes_what_is_gone(url: str, folder: Path, tmp_path: Path) -> None:
    stored = StoredFolder(url)
    stored.put(folder)
    before = objects(url)
    (folder / "a.txt").write_text("two")
    (folder / "sub" / "c.txt").write_text("new")
    (folder / "link").symlink_to("a.txt")
    stored.put(folder, kept=lambda name: name != "sub/c.txt")
    after = objects(url)
    assert len(after) == len(before) == 3  # two files and the manifest
    assert len(set(after) & set(before)) == 2
    there = tmp_path / "there"
    there.mkdir()
    (there / "old.txt").write_text("of an earlier copy")
    (there / ".lock").touch()
    stored.fetch(there, kept=lambda name: name.startswith("."))
    assert set(contents(there)) == {"a.txt", "sub/b.bin", ".lock"}
    assert (there / "a.txt").read_text() == "two"


@pytest.mark.parametrize("method", ["put_file", "pipe_file"])
def test_a_put_that_is_cut_short_leaves_the_folder_whole(
    url: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    stored = StoredFolder(url)
    stored.put(folder)
    before = contents(folder)
    (folder / "a.txt").write_text("two")
    (folder / "sub" / "b.bin").write_bytes(b"other")

    with monkeypatch.context() as patch:
        patch.setattr(stored._files, method, cut)
        with pytest.raises(InputError, match="ConnectionResetError: cut"):
            stored.put(folder)
    StoredFolder(url).fetch(tmp_path / "there")
    assert contents(tmp_path / "there") == before
    stored.put(folder)
    StoredFolder(url).fetch(tmp_path / "there")
    assert contents(tmp_path / "there") == contents(folder)


def test_a_file_of_no_use_that_cannot_be_removed_is_said(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stored = StoredFolder(url)
    stored.put(folder)
    (folder / "a.txt").write_text("two")
    monkeypatch.setattr(stored._files, "rm_file", cut)
    assert stored.put(folder) == stored.listing()
    assert "of no use stays" in caplog.text


def test_what_is_damaged_can_be_put_anew(url: str, folder: Path, tmp_path: Path) -> None:
    StoredFolder(url).put(folder)
    files, root = fsspec.core.url_to_fs(url)
    for damage in (damage_file, cut_manifest):
        damage(files, root)
        StoredFolder(url).put(folder, anew=True)
        StoredFolder(url).fetch(tmp_path / damage.__name__)
        assert contents(tmp_path / damage.__name__) == contents(folder)


def damage_file(files: fsspec.AbstractFileSystem, place: str) -> None:
    files.pipe_file(next(path for path in files.find(place) if path.endswith("b.bin")), b"half")


def lose_file(files: fsspec.AbstractFileSystem, place: str) -> None:
    files.rm_file(next(path for path in files.find(place) if path.endswith("b.bin")))


def cut_manifest(files: fsspec.AbstractFileSystem, place: str) -> None:
    files.pipe_file(f"{place}/{MANIFEST}", files.cat_file(f"{place}/{MANIFEST}")[:-40])


def lead_outside(files: fsspec.AbstractFileSystem, place: str) -> None:
    table = json.loads(files.cat_file(f"{place}/{MANIFEST}"))
    table["files"]["../outside"] = table["files"].pop("a.txt")
    files.pipe_file(f"{place}/{MANIFEST}", json.dumps(table).encode())


@pytest.mark.parametrize("damage", [damage_file, lose_file, cut_manifest, lead_outside])
def test_what_is_damaged_is_never_taken_for_good(
    url: str, folder: Path, tmp_path: Path, damage: Callable[..., None]
) -> None:
    StoredFolder(url).put(folder)
    files, root = fsspec.core.url_to_fs(url)
    damage(files, root)
    with pytest.raises(DamagedError):
        StoredFolder(url).fetch(tmp_path / "there")
    assert "sub/b.bin" not in (contents(tmp_path / "there") if (tmp_path / "there").exists() else {})
    assert not (tmp_path / "outside").exists()


def test_folders_below_a_place_are_found(url: str, folder: Path) -> None:
    for name in ("x/seed0", "x/seed1", "y"):
        StoredFolder(f"{url}/{name}").put(folder)
    assert [stored.url for stored in StoredFolder(url).folders()] == [f"{url}/{n}" for n in ("x/seed0", "x/seed1", "y")]
    assert [stored.url for stored in StoredFolder(f"{url}/y").folders()] == [f"{url}/y"]


def test_a_kind_of_storage_that_nobody_knows_is_one_line() -> None:
    with pytest.raises(InputError, match="nonsense"):
        StoredFolder("nonsense://bucket")


@pytest.mark.parametrize(("place", "expected"), [("s3://b/x", True), ("runs", False), ("synthetic:walker", False)])
def test_what_a_url_is(place: str, expected: bool) -> None:
    assert is_url(place) is expected
