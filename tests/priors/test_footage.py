"""Each finding is there where it should be, with its number, and nowhere else."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kg4d.priors.footage import (
    area_jumps,
    camera_moves,
    findings_in_frames,
    findings_in_mattes,
    mostly_object,
    nothing_moves,
    several_parts,
    touches_border,
)
from tests.priors.clips import moving

NAMES = [f"frame {index}" for index in (0, 10, 20, 30)]


def wall(height: int, width: int) -> Tensor:
    """A texture with corners to follow."""
    coarse = torch.rand(1, 3, height // 6, width // 6, generator=torch.Generator().manual_seed(5))
    return F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[0].permute(1, 2, 0)


def before_the_wall(step: int) -> Tensor:
    """The moving disc in front of a wall that a camera passes at `step` px a frame: RGBA without alpha."""
    discs, behind = moving(), wall(120, 160)
    backgrounds = torch.stack([behind[10:106, 10 + step * t : 106 + step * t] for t in range(4)])
    rgb = discs[..., :3] * discs[..., 3:] + backgrounds * (1 - discs[..., 3:])
    return torch.cat([rgb, torch.ones_like(rgb[..., :1])], dim=-1)


def test_a_moving_camera_is_measured() -> None:
    found = camera_moves(before_the_wall(5)[..., :3])
    assert found is not None
    assert "shifts by up to 16%" in found  # 15 of 96 px
    assert findings_in_frames(before_the_wall(5), background_seen=True) == [found]
    assert camera_moves(before_the_wall(0)[..., :3]) is None
    smooth = moving()[..., 3:].expand(-1, -1, -1, 3)  # nothing to follow
    assert camera_moves(smooth) is None


def test_a_camera_that_zooms_moves() -> None:
    behind = wall(240, 240)[None].movedim(-1, 1)
    sides = (192, 180, 168, 156)
    cut = [behind[..., 120 - s // 2 : 120 + s // 2, 120 - s // 2 : 120 + s // 2] for s in sides]
    rgb = torch.cat([F.interpolate(part, (96, 96), mode="bilinear", antialias=True) for part in cut]).movedim(1, -1)
    found = camera_moves(rgb)
    assert found is not None
    assert "the camera moves" in found


def test_a_still_video_is_said() -> None:
    frames = before_the_wall(0)[:1].expand(4, -1, -1, -1)
    noise = 0.01 * torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    found = nothing_moves((frames + noise).clamp(0, 1))
    assert found is not None
    assert "nothing moves: at most 0.000% of the picture changes over 4 frames" in found
    assert nothing_moves(before_the_wall(0)) is None
    assert findings_in_frames(moving(), background_seen=False) == []
    hidden = moving(1).expand(4, -1, -1, -1).clone()
    hidden[1:, :5, :5, :3] = torch.rand(3, 5, 5, 3)  # under alpha 0
    assert len(findings_in_frames(hidden, background_seen=False)) == 1


def discs(radii: list[int], side: int = 60) -> Tensor:
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([((y - side // 2) ** 2 + (x - side // 2) ** 2 < r * r).float() for r in radii])[..., None]


def test_sound_mattes_have_no_findings() -> None:
    assert findings_in_mattes(discs([12, 13, 12, 11]), NAMES) == []


def test_an_area_that_jumps_names_the_frames() -> None:
    found = area_jumps((discs([12, 12, 20, 20])[..., 0] > 0.5).numpy(), NAMES)
    assert found is not None
    assert "jumps 1 times, most between frame 10 and frame 20 (factor 2.8)" in found


def test_parts_are_counted() -> None:
    mattes = discs([12, 12, 12, 12])
    mattes[3, 2:12, 2:12] = 1.0
    found = several_parts((mattes[..., 0] > 0.5).numpy(), NAMES)
    assert found is not None
    assert "in 1 of 4 frames: the largest has 8" in found
    assert "frame 30" in found


def test_an_object_that_leaves_the_picture() -> None:
    mattes = discs([12, 12, 12, 12])
    mattes[2, :6, 10:40] = 1.0
    found = touches_border((mattes[..., 0] > 0.5).numpy())
    assert found is not None
    assert "in 1 of 4 frames, with up to 13%" in found


@pytest.mark.parametrize(("radius", "said"), [(20, False), (28, True)])
def test_too_much_object(radius: int, said: bool) -> None:
    found = mostly_object((discs([radius] * 4)[..., 0] > 0.5).numpy())
    assert (found is not None) == said
    if found is not None:
        assert "68% of the picture is object" in found
