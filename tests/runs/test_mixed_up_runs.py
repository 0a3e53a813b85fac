"""Runs and checkpoints cannot be taken for others, nor damaged ones for whole ones."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import kg4d
from kg4d import fit as fit_command
from kg4d.errors import InputError
from kg4d.pipeline import fit
from kg4d.runs.folder import RunFolder, run_hash
from kg4d.runs.read_back import load_run
from kg4d.stages.checkpoints import read_checkpoint
from kg4d.utils.cli import run
from kg4d.utils.files import tree_hash
from tests.tiny_runs import ROOT, TINY, tiny

SHORT = ("static.steps=2", "dynamic.steps=2", "refine.steps=1", "wgf.weight=0")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tiny(tmp_path_factory.mktemp("runs"), *SHORT))


@pytest.fixture
def finished(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil, in another folder than the run was made in."""
    copy = tmp_path / Path(*original.parts[-3:])
    shutil.copytree(original, copy)
    return copy


def again(finished: Path, *words: str, **how: bool) -> Path:
    return fit(tiny(finished.parents[2], *SHORT, *words), **how)


def test_a_finished_run_is_replaced_only_when_told(finished: Path) -> None:
    before = (finished / "metrics.json").read_bytes()
    with pytest.raises(InputError, match=r"holds a finished run \(keep it with --resume, replace it with --overwrite"):
        again(finished)
    with pytest.raises(InputError, match="holds a finished run"):
        again(finished, "static.steps=3")
    assert (finished / "metrics.json").read_bytes() == before
    again(finished, "static.steps=3", overwrite=True)
    assert RunFolder(finished).read_config().static.steps == 3


def test_what_an_unfinished_run_left_is_named_and_removed(finished: Path, caplog: pytest.LogCaptureFixture) -> None:
    (finished / "metrics.json").unlink()
    (finished / "checkpoints" / "refine.ckpt").unlink()
    again(finished, "seed=0")
    assert "what an unfinished run left is removed (static, dynamic, last)" in caplog.text


def test_the_command_refuses_to_keep_and_to_replace_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--config", str(ROOT / "experiments/kg4d.yaml"), f"output={tmp_path}", *TINY, "--resume", "--overwrite"]
    assert run(fit_command.main, fit_command.parser(), words) == 2
    assert "exclude each other" in capsys.readouterr().err


HOLDER = """
import sys, time
from pathlib import Path
from kg4d.runs.folder import RunFolder
with RunFolder(Path(sys.argv[1])).alone():
    print("held", flush=True)
    time.sleep(120)
"""


def test_two_fits_in_one_folder_are_one_too_many(finished: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(finished)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for how in ({"resume": True}, {"overwrite": True}, {}):
            with pytest.raises(InputError, match=f"is in use by process {other.pid}"):
                again(finished, **how)
        other.kill()
    assert again(finished, resume=True) == finished


def test_a_copy_elsewhere_is_the_same_run(finished: Path, original: Path) -> None:
    assert again(finished, resume=True) == finished
    (finished / "metrics.json").unlink()
    (finished / "checkpoints" / "refine.ckpt").unlink()
    again(finished, "tracking.wandb.mode=disabled", resume=True)
    assert (finished / "metrics.json").read_bytes() == (original / "metrics.json").read_bytes()


def test_a_configuration_that_differs_is_told_by_its_keys(finished: Path) -> None:
    with pytest.raises(InputError, match=r"differs from the configuration given in static\.steps, kfc\.weight \("):
        again(finished, "static.steps=3", "kfc.weight=7", resume=True)


@pytest.mark.parametrize("gone", ["export", "checkpoints"])
def test_what_is_missing_is_made_again(finished: Path, original: Path, gone: str) -> None:
    shutil.rmtree(finished / gone)
    again(finished, resume=True)
    for file in (original / gone).rglob("*.ply"):
        assert (finished / gone / file.relative_to(original / gone)).read_bytes() == file.read_bytes()
    assert {path.name for path in (finished / gone).iterdir()} == {path.name for path in (original / gone).iterdir()}
    assert (finished / "metrics.json").read_bytes() == (original / "metrics.json").read_bytes()


@pytest.mark.parametrize("name", ["last", "dynamic"])
def test_a_checkpoint_of_another_run_is_refused(finished: Path, tmp_path: Path, name: str) -> None:
    other = fit(tiny(tmp_path / "other", *SHORT, "wgf.weight=1"))
    for file in ("metrics.json", "checkpoints/refine.ckpt", f"checkpoints/{name}.ckpt"):
        (finished / file).unlink()
    file = finished / "checkpoints" / f"{name}.ckpt"
    shutil.copyfile(other / "checkpoints" / "dynamic.ckpt", file)
    with pytest.raises(InputError, match=rf"{name}\.ckpt: belongs to a run with another configuration \(remove it"):
        again(finished, resume=True)
    file.unlink()
    again(finished, resume=True)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def tensors_alone(path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, path)


def of_the_future(path: Path) -> None:
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["kg4d"] |= {"schema": 99, "version": "77.0"}
    torch.save(checkpoint, path)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(b"hello"), "damaged"),
        (cut, "damaged"),
        (tensors_alone, "damaged"),
        (fifo, "no regular file"),
        (folder, "no regular file"),
        (of_the_future, "kg4d 77.0, a later version"),
    ],
)
def test_what_is_no_checkpoint_is_named(finished: Path, spoil: Callable[[Path], None], what: str) -> None:
    (finished / "metrics.json").unlink()
    spoil(finished / "checkpoints" / "refine.ckpt")
    for read in (lambda: again(finished, resume=True), lambda: load_run(finished)):
        with pytest.raises(InputError, match=rf"refine\.ckpt: .*{what}"):
            read()


def test_no_flipped_bit_is_read_as_good(original: Path, tmp_path: Path) -> None:
    whole = (original / "checkpoints" / "refine.ckpt").read_bytes()
    written = tree_hash(read_checkpoint(original / "checkpoints" / "refine.ckpt"))
    draw, refused = random.Random(0), 0
    for _ in range(200):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path = tmp_path / "refine.ckpt"
        path.write_bytes(flipped)
        try:
            assert tree_hash(read_checkpoint(path)) == written  # the bit was in no value
        except InputError:
            refused += 1
    assert refused > 100


def test_another_version_is_named_and_read(finished: Path, caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    (finished / "metrics.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(kg4d, "__version__", "77.0")
        again(finished, resume=True)
    assert f"refine.ckpt was fitted by kg4d {kg4d.__version__}; this is 77.0" in caplog.text


def test_a_configuration_that_is_cut_short_measures_nothing(finished: Path) -> None:
    config = finished / "config.yaml"
    text = config.read_text()
    for left in ("", text[: len(text) // 2].rsplit("\n", 1)[0] + "\n"):
        config.write_text(left)
        with pytest.raises(InputError, match=r"config\.yaml"):
            load_run(finished)


def test_where_a_run_lies_and_who_watches_it_is_not_part_of_it(tmp_path: Path) -> None:
    one, other = tiny(tmp_path / "a"), tiny(tmp_path / "b", "tracking.wandb.mode=offline")
    assert run_hash(one) == run_hash(other) != run_hash(tiny(tmp_path / "a", "seed=1"))
