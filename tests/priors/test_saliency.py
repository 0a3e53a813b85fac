"""The network through OpenCV, and what it is good for; its weights are fetched once."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from kg4d.data.images import quantize, write_png
from kg4d.data.spans import Span
from kg4d.data.videos import read_clip
from kg4d.errors import InputError
from kg4d.formats.mp4 import write_mp4
from kg4d.priors.build import decide, decide_video
from kg4d.priors.saliency import NetworkMatting, StillCameraMatting, salience, still_share
from kg4d.priors.settings import MattingConfig, MattingKind, PriorsConfig
from tests.priors.test_footage import before_the_wall
from tests.priors.test_matting import iou, on, ramp
from tests.priors.textures import SIZE, picture

pytestmark = pytest.mark.usefixtures("trained_weights")


def mouse(t: int) -> Tensor:
    """A small dark ellipse with a tail: straight RGBA."""
    canvas = np.zeros((SIZE, SIZE, 4), np.uint8)
    at = (18 + 9 * t, 40 + 5 * t)
    cv2.ellipse(canvas, at, (9, 5), 20, 0, 360, (60, 50, 45, 255), -1)
    cv2.line(canvas, at, (at[0] - 14, at[1] - 6), (60, 50, 45, 255), 2)
    return torch.from_numpy(canvas).float() / 255


def arena() -> Tensor:
    """A bright disc on a dark floor: it stands out more than what runs in it."""
    canvas = np.full((SIZE, SIZE, 3), 40, np.uint8)
    cv2.circle(canvas, (48, 48), 44, (215, 210, 200), -1)
    return torch.from_numpy(canvas).float() / 255


def test_a_disc_before_a_ramp_stands_out() -> None:
    rgba = picture(seed=3)
    rgb = on(ramp(), rgba)
    soft = salience(quantize(rgb).numpy())
    assert soft.shape == (SIZE, SIZE)
    assert iou(torch.from_numpy(soft), rgba[..., 3]) > 0.85
    matting = NetworkMatting()
    matte = matting(rgb[None])
    assert iou(matte[0], rgba[..., 3:]) > 0.93
    assert torch.equal(matte, matting(rgb[None]))
    assert str(matting.identity()["weights"]).startswith("309c8469258dda74")


def test_a_point_names_the_smaller_of_two() -> None:
    rgb = ramp()
    rgb = torch.cat([rgb, rgb.flip(1)], dim=1).clone()
    large, small = picture(seed=3), picture(0.45 * torch.eye(2), seed=4)
    rgb[:, :SIZE] = on(rgb[:, :SIZE], large)
    rgb[:, SIZE:] = on(rgb[:, SIZE:], small)
    truth = torch.zeros(SIZE, 2 * SIZE, 1)
    truth[:, SIZE:] = small[..., 3:]
    found = NetworkMatting((1.5 * SIZE, SIZE / 2))(rgb[None])[0]
    assert iou(found, truth) > 0.85
    with pytest.raises(InputError, match="matting.point"):
        NetworkMatting((float(SIZE), 4.0))(rgb[None])


def test_a_still_camera_sees_what_runs_and_not_what_stands_out() -> None:
    frames = torch.stack([on(arena(), mouse(t)) for t in range(7)])
    truth = torch.stack([mouse(t)[..., 3:] for t in range(7)])
    grain = 0.01 * torch.randn(frames.shape, generator=torch.Generator().manual_seed(1))
    frames = (frames + grain).clamp(0, 1)
    mattes = StillCameraMatting(12.0)(frames)
    assert min(iou(matte, true) for matte, true in zip(mattes, truth, strict=True)) > 0.7
    assert still_share(quantize(frames).numpy(), 12.0) > 0.99
    assert still_share(quantize(before_the_wall(5)[..., :3]).numpy(), 12.0) < 0.8


def kind_for(rgb: Tensor, path: Path, **settings: object) -> tuple[str, str]:
    config = PriorsConfig(matting=MattingConfig(**settings))
    if len(rgb) == 1:
        write_png(path.with_suffix(".png"), rgb[0])
        clip = read_clip(path.with_suffix(".png"), Span(16))
    else:
        write_mp4(path, rgb, fps=8)
        clip = read_clip(path, Span(16))
    given = decide_video(config.video, read_clip(path, Span(16)) if len(rgb) > 1 else clip, torch.device("cpu"))
    choice = decide(config, clip, given, torch.device("cpu")).matting
    return choice.kind, choice.why


@pytest.mark.parametrize(
    ("step", "kind", "why"), [(0, "still", "the camera is still: 100%"), (5, "network", "the camera moves, or")]
)
def test_auto_looks_at_the_border(step: int, kind: str, why: str, tmp_path: Path) -> None:
    chosen, reason = kind_for(before_the_wall(step)[..., :3], tmp_path / "clip.mp4")
    assert chosen == kind
    assert why in reason


def test_auto_keys_an_even_background(tmp_path: Path) -> None:
    rgba = torch.stack([picture(), picture(seed=1)])
    assert kind_for(on(torch.tensor(1.0), rgba), tmp_path / "clip.mp4")[0] == "key"


def test_without_the_weights_auto_says_what_it_does(empty_cache: Path, tmp_path: Path) -> None:
    kind, why = kind_for(before_the_wall(0)[..., :3], tmp_path / "clip.mp4")
    assert kind == "grabcut"
    assert "pull u2netp" in why
    with pytest.raises(InputError, match="u2netp: weights are missing"):
        kind_for(before_the_wall(0)[..., :3], tmp_path / "again.mp4", kind=MattingKind.NETWORK)


def test_a_median_needs_three_frames(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="matting.kind: the background is the median over time, of 2 frames"):
        kind_for(before_the_wall(0)[:2, ..., :3], tmp_path / "clip.mp4", kind=MattingKind.STILL)
