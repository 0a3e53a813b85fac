"""Where the files of diffusion models are found, how they are read, and what is said when they cannot be."""

import hashlib
import json
import logging
import shutil
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from kg4d.errors import InputError
from kg4d.priors.diffusion import checkpoint
from kg4d.priors.diffusion.camera_projection import CLIPCameraProjection
from kg4d.priors.diffusion.checkpoint import Checkpoint, announce_licence, find_checkpoint, wanted_files
from kg4d.priors.diffusion.zero123 import COMPONENTS
from kg4d.priors.weights import hash_of_weights
from tests.priors.tiny_models import save_tiny_zero123

CPU = torch.device("cpu")
ID = "ashawkey/zero123-xl-diffusers"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty local cache of the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def copy(zero123_folder: Path, tmp_path: Path) -> Path:
    """A model that may be spoilt."""
    return Path(shutil.copytree(zero123_folder, tmp_path / "model"))


def put_in_cache(model: str, source: Path, cache: Path) -> Path:
    """As a download would leave it."""
    folder = cache / f"models--{model.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    return Path(shutil.copytree(source, folder / "snapshots" / ("0" * 40)))


def test_what_is_read_is_what_was_saved(zero123_folder: Path) -> None:
    checkpoint = find_checkpoint("guidance.model", str(zero123_folder), COMPONENTS)
    unet = checkpoint.load("unet", UNet2DConditionModel, CPU)
    saved = load_file(zero123_folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert set(saved) == set(unet.state_dict())
    assert all(torch.equal(saved[name], value) for name, value in unet.state_dict().items())
    assert not unet.training
    assert not any(parameter.requires_grad for parameter in unet.parameters())


def test_half_precision_files_are_preferred_and_widened_on_the_cpu(tmp_path: Path, zero123_folder: Path) -> None:
    save_tiny_zero123(tmp_path, seed=0)
    save_tiny_zero123(tmp_path, seed=1, variant="fp16")
    checkpoint = find_checkpoint("guidance.model", str(tmp_path), COMPONENTS)
    vae = checkpoint.load("vae", AutoencoderKL, CPU)
    saved = load_file(tmp_path / "vae" / "diffusion_pytorch_model.fp16.safetensors")
    assert torch.equal(vae.state_dict()["encoder.conv_in.weight"], saved["encoder.conv_in.weight"].float())
    other = find_checkpoint("guidance.model", str(zero123_folder), COMPONENTS).load("vae", AutoencoderKL, CPU)
    assert not torch.equal(vae.encoder.conv_in.weight, other.encoder.conv_in.weight)


def test_without_a_hub_the_error_says_what_to_do_and_is_quick(hub_cache: Path) -> None:
    begin = time.perf_counter()
    with pytest.raises(InputError) as caught:
        find_checkpoint("guidance.model", ID, COMPONENTS)
    assert time.perf_counter() - begin < 3
    message = str(caught.value)
    for part in (ID, "guidance.model=<folder>", "kg4d[priors]", "hf download", "hub"):
        assert part in message
    assert "\n" not in message


def test_the_hub_is_left_alone_where_it_may_not_be_asked(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(huggingface_hub.HfApi, "model_info")
    with pytest.raises(InputError, match="local_files_only"):
        find_checkpoint("guidance.model", ID, COMPONENTS, local_files_only=True)


@pytest.mark.parametrize("model", ["no/such/folder", "./models/zero123", "/models/zero123", "~/models", "zero123"])
def test_a_folder_that_is_not_there(model: str) -> None:
    with pytest.raises(InputError, match="no folder"):
        find_checkpoint("guidance.model", model, COMPONENTS)


def test_a_model_in_the_cache_of_the_hub_is_used(hub_cache: Path, zero123_folder: Path) -> None:
    kept = put_in_cache(ID, zero123_folder, hub_cache)
    checkpoint = find_checkpoint("guidance.model", ID, COMPONENTS)
    assert (checkpoint.model, checkpoint.folder) == (ID, kept)
    beside = find_checkpoint("guidance.model", str(zero123_folder), COMPONENTS)
    assert checkpoint.fingerprint(COMPONENTS) == beside.fingerprint(COMPONENTS)


def test_a_download_that_was_cut_short_is_not_used(hub_cache: Path, copy: Path) -> None:
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    put_in_cache(ID, copy, hub_cache)
    with pytest.raises(InputError, match="not on this machine"):
        find_checkpoint("guidance.model", ID, COMPONENTS)
    with pytest.raises(InputError, match="no complete unet"):
        find_checkpoint("guidance.model", ID, COMPONENTS, local_files_only=True)


def test_weights_in_parts_must_all_be_there(copy: Path) -> None:
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    parts = [f"diffusion_pytorch_model-0000{k}-of-00002.safetensors" for k in (1, 2)]
    weights.rename(weights.with_name(parts[0]))
    index = {"weight_map": dict(zip("ab", parts, strict=True))}
    (copy / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="no complete unet"):
        find_checkpoint("guidance.model", str(copy), COMPONENTS)


@pytest.mark.parametrize("content", ['{"weight_map": {"a": "par', "[]", "{}", '{"weight_map": {"a": []}}'])
def test_an_index_of_parts_that_is_damaged(copy: Path, content: str) -> None:
    (copy / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(content)
    with pytest.raises(InputError, match="no complete unet"):
        find_checkpoint("guidance.model", str(copy), COMPONENTS)


def test_numbers_and_what_is_left_out_are_no_components(copy: Path) -> None:
    index = {"unet": ["diffusers", "UNet2DConditionModel"], "scale": [0.0, 1.0], "safety_checker": [None, None]}
    (copy / "model_index.json").write_text(json.dumps(index))
    assert find_checkpoint("views.model", str(copy), ()).folder == copy
    (copy / "model_index.json").write_text(json.dumps({**index, "tokenizer": ["transformers", "CLIPTokenizer"]}))
    with pytest.raises(InputError, match="no complete tokenizer"):
        find_checkpoint("views.model", str(copy), ())


def test_a_component_that_is_missing(copy: Path) -> None:
    shutil.rmtree(copy / "image_encoder")
    with pytest.raises(InputError, match=r"guidance.model: .*no complete image_encoder"):
        find_checkpoint("guidance.model", str(copy), COMPONENTS)


def test_damaged_weights(copy: Path) -> None:
    path = copy / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="vae of .* cannot be used"):
        find_checkpoint("guidance.model", str(copy), COMPONENTS).load("vae", AutoencoderKL, CPU)


def test_weights_that_lack_a_layer_are_not_filled_with_random_numbers(copy: Path) -> None:
    path = copy / "clip_camera_projection" / "diffusion_pytorch_model.safetensors"
    save_file({"proj.weight": load_file(path)["proj.weight"]}, path, metadata={"format": "pt"})
    checkpoint = find_checkpoint("guidance.model", str(copy), COMPONENTS)
    with pytest.raises(InputError, match=r"no weights for proj\.bias|proj\.bias"):
        checkpoint.load("clip_camera_projection", CLIPCameraProjection, CPU)


def test_missing_libraries_name_the_extra(zero123_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = checkpoint.importlib.util.find_spec
    monkeypatch.setattr(
        checkpoint.importlib.util, "find_spec", lambda name: None if name == "diffusers" else found(name)
    )
    with pytest.raises(InputError, match=r"needs diffusers \(pip install \"kg4d\[priors\]\"\)"):
        find_checkpoint("guidance.model", str(zero123_folder), COMPONENTS)


def test_other_weights_of_the_same_size_have_another_fingerprint(tmp_path: Path, zero123_folder: Path) -> None:
    save_tiny_zero123(tmp_path / "a", seed=0)
    save_tiny_zero123(tmp_path / "b", seed=1)
    names = [
        find_checkpoint("k", str(folder), COMPONENTS).fingerprint(COMPONENTS)
        for folder in (zero123_folder, tmp_path / "a", tmp_path / "b")
    ]
    assert names[0] == names[1] != names[2]


def test_each_byte_of_the_weights_counts(tmp_path: Path) -> None:
    names = []
    for byte in (0, 1):
        weights = bytearray(1 << 20)
        weights[300_000] = byte
        (tmp_path / str(byte) / "unet").mkdir(parents=True)
        (tmp_path / str(byte) / "unet" / "model.safetensors").write_bytes(weights)
        names.append(Checkpoint("k", "m", tmp_path / str(byte)).fingerprint(("unet",)))
    assert names[0] != names[1]


def test_weights_of_the_hub_are_known_by_their_names_and_others_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = tmp_path / "blobs" / ("a" * 64)
    blob.parent.mkdir()
    blob.write_bytes(b"not read")
    (tmp_path / "snapshot.safetensors").symlink_to(blob)
    assert hash_of_weights(tmp_path / "snapshot.safetensors") == "a" * 64
    (tmp_path / "own.safetensors").write_bytes(b"read")
    own = hash_of_weights(tmp_path / "own.safetensors")
    assert own == hashlib.sha256(b"read").hexdigest()
    monkeypatch.delattr(hashlib, "file_digest")
    assert hash_of_weights(tmp_path / "own.safetensors") == own


def test_the_licence_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    announce_licence.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            announce_licence("sudo-ai/zero123plus-v1.2")
    assert [record.message for record in caplog.records] == [
        "sudo-ai/zero123plus-v1.2: licence of the weights: CC BY-NC 4.0: non-commercial"
    ]


def test_a_download_takes_no_code_no_pickles_and_one_set_of_weights() -> None:
    names = [
        "model_index.json",
        "svd.safetensors",
        "unet/config.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
        "unet/diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "clip_camera_projection/zero123.py",
        "text_encoder/config.json",
    ]
    assert wanted_files(names, ("unet", "vae", "clip_camera_projection")) == [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
        "unet/diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert "text_encoder/config.json" in wanted_files(names, ())


def test_what_the_hub_has_is_fetched_without_its_code(
    hub_cache: Path, zero123_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub itself is played: it lists its files and puts those that are asked for into the cache."""
    listed = [path.relative_to(zero123_folder).as_posix() for path in zero123_folder.rglob("*") if path.is_file()]
    files = [type("File", (), {"rfilename": name})() for name in [*listed, "unet/evil.py"]]
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: type("Info", (), {"siblings": files})())
    local, asked = huggingface_hub.snapshot_download, []

    def download(model: str, local_files_only: bool = False, allow_patterns: list[str] | None = None) -> str:
        if local_files_only:
            return str(local(model, local_files_only=True))
        asked.extend(allow_patterns or [])
        return str(put_in_cache(model, zero123_folder, hub_cache))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_checkpoint("guidance.model", ID, COMPONENTS).folder.is_relative_to(hub_cache)
    assert {Path(name).suffix for name in asked} == {".json", ".safetensors"}
    assert set(listed) == set(asked)
