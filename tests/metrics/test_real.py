"""Trained networks on real frames: other people's values, and damage that must rank in the right order."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from kg4d.metrics.feature_cache import FeatureCache
from kg4d.metrics.feature_networks import load_networks
from kg4d.metrics.flow import flicker
from kg4d.metrics.frechet import frechet_distance
from kg4d.metrics.image import masked_psnr, object_mask, psnr, ssim
from kg4d.metrics.perceptual import i3d_logits, lpips
from kg4d.metrics.protocols import GLTF4D
from kg4d.metrics.suite import evaluate_grid
from kg4d.metrics.video import paired_distance

pytestmark = [pytest.mark.realdata, pytest.mark.slow, pytest.mark.usefixtures("trained_weights")]
SCENES = ("fox", "cesium_man", "drone")


def read(path: Path) -> Tensor:
    """RGBA (4, H, W) in [0, 1]."""
    return torch.from_numpy(np.asarray(Image.open(path)) / np.float32(255)).movedim(-1, 0)


def on_white(rgba: Tensor) -> Tensor:
    return rgba[..., :3, :, :] * rgba[..., 3:, :, :] + 1 - rgba[..., 3:, :, :]


@pytest.fixture(scope="module")
def golden(data_root: Path) -> list[dict]:
    file = data_root.parent / "golden" / "perceptual.json"
    if not file.is_file():
        pytest.skip(f"there is no {file}")
    return json.loads(file.read_text())["scenes"]


@torch.no_grad()
def test_lpips_agrees_with_the_reference_implementation(golden: list[dict], data_root: Path) -> None:
    for scene in golden:
        folder = data_root / "gltf4d" / scene["scene"]
        pairs = [[on_white(read(folder / row[side])) for row in scene["lpips"]] for side in "ab"]
        a, b = (torch.stack(side) for side in pairs)
        for net, key in (("alex", "alexnet"), ("vgg", "vgg16")):
            assert lpips(a, b, net).tolist() == pytest.approx([row[key] for row in scene["lpips"]], rel=1e-4)


@torch.no_grad()
def test_i3d_agrees_with_the_reference_implementation(golden: list[dict], data_root: Path) -> None:
    for scene in golden:
        for name, expected in scene["i3d_logits"].items():
            files = [data_root / "gltf4d" / scene["scene"] / f"{name}_{t:03d}.png" for t in range(16)]
            logits = i3d_logits(torch.stack([on_white(read(file)) for file in files])[None])[0]
            assert logits.norm().item() == pytest.approx(expected["norm"], rel=1e-3)
            assert logits.argmax().item() == expected["argmax"]
            assert logits[:8].tolist() == pytest.approx(expected["first8"], abs=1e-3 * expected["norm"])


@pytest.fixture(scope="module", params=SCENES)
def video(request: pytest.FixtureRequest, data_root: Path) -> Tensor:
    """The first test video, (16, 4, 256, 256)."""
    folder = data_root / "gltf4d" / request.param / "test"
    return torch.stack([read(folder / f"v0_{t:03d}.png") for t in range(16)])


def blurred(frames: Tensor, sigma: float) -> Tensor:
    return torch.from_numpy(ndimage.gaussian_filter(frames.numpy(), (0, 0, sigma, sigma), mode="nearest"))


def noisy(frames: Tensor, strength: float) -> Tensor:
    noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    return (frames + strength * noise).clamp(0, 1)


IMAGE_METRICS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {  # smaller is better
    "psnr": lambda pred, true, mask: -psnr(pred, true),
    "psnr_masked": lambda pred, true, mask: -masked_psnr(pred, true, mask),
    "ssim": lambda pred, true, mask: -ssim(pred, true),
    "lpips_alex": lambda pred, true, mask: lpips(pred, true, "alex"),
    "lpips_vgg": lambda pred, true, mask: lpips(pred, true, "vgg"),
}


@torch.no_grad()
@pytest.mark.parametrize("damage", [blurred, noisy])
def test_image_metrics_fall_step_by_step(video: Tensor, damage: Callable[[Tensor, float], Tensor]) -> None:
    true, mask = on_white(video[4:5]), object_mask(video[4:5, 3:])
    steps = (1.0, 2.0, 4.0) if damage is blurred else (0.02, 0.05, 0.15)
    for name, metric in IMAGE_METRICS.items():
        ladder = [metric(true, true, mask), *(metric(damage(true, step), true, mask) for step in steps)]
        assert all((worse > better).all() for better, worse in pairwise(ladder)), name


@torch.no_grad()
def test_video_features_see_blur_order_and_stillness(video: Tensor) -> None:
    true = on_white(video)
    shuffled = true[torch.randperm(16, generator=torch.Generator().manual_seed(0))]
    damaged = [true, blurred(true, 1.0), blurred(true, 3.0), shuffled, true[:1].expand_as(true)]
    features = torch.cat([i3d_logits(frames[None]) for frames in damaged])
    same, slight, strong, mixed, frozen = paired_distance(features, features[:1].expand_as(features)).tolist()
    assert same == 0
    assert slight < strong
    assert slight < mixed
    assert slight < frozen


@torch.no_grad()
def test_frechet_video_distance_ranks_damage_over_all_views(data_root: Path) -> None:
    folder = data_root / "gltf4d" / "fox" / "test"
    true = torch.stack(
        [on_white(torch.stack([read(folder / f"v{v}_{t:03d}.png") for t in range(16)])) for v in range(4)]
    )
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    soft = [torch.stack([blurred(view, sigma) for view in true]) for sigma in (1.0, 3.0)]
    damaged = [*soft, true[:, order], true[:, :1].expand_as(true)]
    reference = i3d_logits(true)
    slight, strong, shuffled, frozen = (frechet_distance(i3d_logits(grid), reference).item() for grid in damaged)
    assert 0 < slight < strong
    assert slight < shuffled < frozen


def test_distances_over_views_diagonals_and_the_serpentine_rank_blur(data_root: Path, tmp_path: Path) -> None:
    folder = data_root / "gltf4d" / "fox" / "test"
    true = torch.stack(
        [on_white(torch.stack([read(folder / f"v{v}_{t:03d}.png") for t in range(5)])) for v in range(4)]
    )
    keys = ("test/fvd_v", "test/fvd_diag", "test/fv4d")
    networks, ladder = replace(load_networks(), feature_cache=FeatureCache(tmp_path)), []
    for sigma in (1.0, 3.0):
        grids = (images.movedim(2, -1) for images in (torch.stack([blurred(view, sigma) for view in true]), true))
        ladder.append(evaluate_grid(*grids, None, protocol=replace(GLTF4D, metrics=keys), networks=networks).metrics)
    slight, strong = ladder
    for key in keys:
        assert 0 < slight[key] < strong[key], key


def test_flicker_grows_with_unsteady_brightness(data_root: Path) -> None:
    for scene in SCENES:
        folder = data_root / "gltf4d" / scene
        video = torch.stack([on_white(read(folder / "train" / f"r_{t:03d}.png")) for t in range(16)])
        with np.load(folder / "flow.npz") as arrays:
            flow = torch.from_numpy(arrays["flow"].astype(np.float32))
            weights = torch.from_numpy(arrays["visible_next"].astype(np.float32))
        sign = torch.tensor([1.0, -1.0]).repeat(8)[:, None, None, None]
        ladder = [flicker((video + strength * sign).clamp(0, 1), flow, weights).mean() for strength in (0, 0.02, 0.1)]
        ladder.append(flicker(video, torch.zeros_like(flow), weights).mean())
        assert all(better < worse for better, worse in pairwise(ladder[:3]))
        assert ladder[0] < 0.5 * ladder[3]


@torch.no_grad()
def test_the_loop_of_the_docs_averages_over_uneven_batches(
    video: Tensor, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (pytestconfig.rootpath / "docs" / "evaluation.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(from torchmetrics.*?)```", page, re.S)
    assert block is not None
    true = on_white(video[:3])
    pred = noisy(true, 0.1)
    names: dict = {"batches": [(pred[:1], true[:1]), (pred[1:], true[1:])]}
    exec(compile(block[1], "evaluation.md", "exec"), names)
    assert "MeanLPIPS" in capsys.readouterr().out
    found = names["metrics"].compute()
    assert found["MeanLPIPS"].item() == pytest.approx(lpips(pred, true, "vgg").mean().item(), rel=1e-5)
    assert found["PSNR"].item() == pytest.approx(psnr(pred, true).mean().item(), rel=1e-5)
    assert found["SSIM"].item() == pytest.approx(ssim(pred, true).mean().item(), rel=1e-5)
