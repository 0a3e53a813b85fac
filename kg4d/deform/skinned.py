"""Keypoints as the handles of the motion: a frame at each keypoint, and Gaussians that follow the frames by shares."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, assert_never

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kg4d.deform.base import DeformedGeometry
from kg4d.deform.encoding import HSE
from kg4d.deform.offsets import OffsetMlp, apply_offsets
from kg4d.deform.shading import Shading
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.rotations import quat_multiply, slerp
from kg4d.geometry.skinning import dual_quaternion_blend, linear_blend


class Blend(StrEnum):
    """How the motions of several frames are mixed."""

    LINEAR = "linear"  # of matrices: cheap; a limb that is bent or twisted far loses thickness
    DUAL_QUATERNION = "dual_quaternion"  # of rigid motions: it keeps it


@dataclass
class SkinnedConfig:
    """The skinned deformation.

    Attributes:
        blend: How the motions of several frames are mixed.
        temperature: Softmax temperature of the keypoint features as shares of the frames.
        sigma: Width of the shares around a frame's bones at the start, world units.
        residual: Add the offsets of the harmonic network to the skinned motion.
        shading: Colours change as the light falls on what has turned; the light is found with the motion.
        normal_width: Deviation of the window in which the directions of the surface are found for that, world units.
    """

    blend: Blend = Blend.LINEAR
    temperature: float = 0.1
    sigma: float = 0.06
    residual: bool = False
    shading: bool = False
    normal_width: float = 0.05


class SkinnedDeformation(nn.Module):
    """J frames, each with a place and a rotation at each key time; Gaussians follow them by the softmax over J of P.

    The features P come with the canonical Gaussians. At the first key time the frames are at rest, so nothing moves
    there. Between key times places follow a cubic (Catmull-Rom) and rotations the shortest turn.

    Attributes:
        rest: Places of the frames at the first key time, world units.
        times: Key times, ascending.
        shifts: How far each frame has gone at the later key times.
        quats: How it has turned there; any norm but zero.
        keypoint_offsets: How far each keypoint is from the place of its frame there.
        shading: The light; None where colours do not change.
    """

    rest: Tensor
    times: Tensor
    keypoint_offsets: Tensor

    def __init__(self, config: SkinnedConfig, joints: int, encoding: HSE | None, residual: OffsetMlp | None) -> None:
        """Frames at the origin with two key times, 0 and 1, until `set_keys` says where they are.

        Raises:
            ValueError: There is no frame, or the temperature or one of the widths is not positive.
        """
        super().__init__()
        if joints < 1:
            raise ValueError("skinning needs keypoints, and there are none")
        if min(config.temperature, config.sigma) <= 0:
            what = f"temperature {config.temperature} and sigma {config.sigma}"
            raise ValueError(f"skinning needs a temperature and a sigma that are positive, not {what}")
        self.config = config
        self.encoding = encoding
        self.residual = residual
        self.register_buffer("rest", torch.zeros(joints, 3))
        self.register_buffer("times", torch.tensor([0.0, 1.0]))
        self.register_buffer("keypoint_offsets", torch.zeros(1, joints, 3))
        self.shifts = nn.Parameter(torch.zeros(1, joints, 3))
        self.quats = nn.Parameter(_identities(1, joints))
        self.shading = Shading(config.normal_width) if config.shading else None

    @torch.no_grad()
    def set_keys(
        self,
        times: Float[Tensor, " T"],
        rest: Float[Tensor, "J 3"],
        tracks: Float[Tensor, "T J 3"],
        quats: Float[Tensor, "T J 4"],
    ) -> None:
        """Put the frames at `rest` at the first time and on `tracks`, turned by `quats`, at the others.

        Keypoints are where their frames are again.

        Raises:
            ValueError: There are fewer than two times, or they do not ascend.
        """
        if len(times) < 2 or not bool((times.diff() > 0).all()):
            raise ValueError("key times must ascend, and be two or more")
        self.rest, self.times = rest.to(self.rest), times.to(self.times)
        self.shifts.data = (tracks[1:] - rest).to(self.rest)
        self.quats.data = quats[1:].to(self.rest).clone()
        self.keypoint_offsets = torch.zeros_like(self.shifts.data)

    @torch.no_grad()
    def set_keypoints(self, tracks: Float[Tensor, "T J 3"]) -> None:
        """Say where the keypoints are at the key times after the first, at which they are at rest; world units.

        The frames stay where they carry the Gaussians best.
        """
        self.keypoint_offsets = tracks[1:].to(self.rest) - self.rest - self.shifts

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Places and rotations of the frames and the light learn at rates of their own."""
        light = [] if self.shading is None else [self.shading.light]
        return {"places": [self.shifts], "rotations": [self.quats], "light": light}

    def keys(self) -> tuple[Float[Tensor, "T J 3"], Float[Tensor, "T J 4"]]:
        """Shifts and rotations since rest at all key times."""
        first = self.shifts.new_zeros(1, *self.rest.shape)
        turn = _identities(1, len(self.rest)).to(self.quats)
        return torch.cat([first, self.shifts]), torch.cat([turn, self.quats])

    def frames(self, times: Float[Tensor, " B"]) -> tuple[Float[Tensor, "B J 3"], Float[Tensor, "B J 4"]]:
        """Shifts and rotations since rest at any times; beyond the key times those of the nearest."""
        shifts, quats = self.keys()
        left, fraction = self._spans(times)
        return _catmull_rom(shifts, left, fraction, self.times), slerp(quats[left], quats[left + 1], fraction[:, None])

    def keypoints(self, times: Float[Tensor, " B"]) -> Float[Tensor, "B J 3"]:
        """Where the keypoints are: the places of their frames, unless `set_keypoints` has said otherwise."""
        shifts = self.keys()[0]
        moved = torch.cat([shifts[:1], shifts[1:] + self.keypoint_offsets])
        return self.rest + _catmull_rom(moved, *self._spans(times), self.times)

    def _spans(self, times: Float[Tensor, " B"]) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
        """The key before each time, and how far on the way to the next one it is, in [0, 1]."""
        inside = times.clamp(self.times[0], self.times[-1])
        left = (torch.searchsorted(self.times, inside, right=True) - 1).clamp(0, len(self.times) - 2)
        return left, (inside - self.times[left]) / (self.times[left + 1] - self.times[left])

    def shares(self, canonical: GaussianState) -> Float[Tensor, "N J"]:
        """Share of each frame in each Gaussian."""
        return (canonical.keypoint_logits / self.config.temperature).softmax(dim=1)

    def forward(self, canonical: GaussianState, times: Float[Tensor, " B"]) -> DeformedGeometry:
        """Move the canonical Gaussians to `times`."""
        match self.config.blend:
            case Blend.LINEAR:
                blend = linear_blend
            case Blend.DUAL_QUATERNION:
                blend = dual_quaternion_blend
            case _:
                assert_never(self.config.blend)
        moved = blend(canonical.means, self.shares(canonical), self.rest, *self.frames(times))
        geometry = DeformedGeometry(
            means=moved.points,
            quats=quat_multiply(moved.rotations, canonical.quats),
            scales=canonical.scales.expand(len(times), -1, -1),
            gains=None if self.shading is None else self.shading(canonical, moved.rotations),
        )
        if self.encoding is None or self.residual is None:
            return geometry
        offsets = self.residual(self.encoding.space(canonical.means.detach()), self.encoding.time(times))
        return replace(apply_offsets(geometry, offsets, times, anchor_first=True), gains=geometry.gains)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take over the checkpoint's number of key times."""
        for name in ("shifts", "quats"):
            value, own = state_dict.get(prefix + name), self.get_parameter(name)
            if isinstance(value, Tensor) and value.shape[1:] == own.shape[1:]:
                own.data, own.grad = own.data.new_empty(value.shape), None
        for name in ("times", "keypoint_offsets"):
            value, kept = state_dict.get(prefix + name), self.get_buffer(name)
            if isinstance(value, Tensor) and value.shape[1:] == kept.shape[1:]:
                setattr(self, name, kept.new_empty(value.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _identities(*shape: int) -> Float[Tensor, "*shape 4"]:
    return torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(*shape, 1)


def _catmull_rom(
    values: Float[Tensor, "T J 3"], left: Int[Tensor, " B"], fraction: Float[Tensor, " B"], times: Float[Tensor, " T"]
) -> Float[Tensor, "B J 3"]:
    """The cubic through the values whose slope at a key is that of its two neighbours (one-sided at the ends)."""
    last = len(times) - 1

    def slope(key: Int[Tensor, " B"]) -> Float[Tensor, "B J 3"]:
        before, after = (key - 1).clamp_min(0), (key + 1).clamp_max(last)
        return (values[after] - values[before]) / (times[after] - times[before])[:, None, None]

    u = fraction[:, None, None]
    width = (times[left + 1] - times[left])[:, None, None]
    start, end = values[left], values[left + 1]
    hermite = (2 * u - 3) * u * u
    return (
        start
        - hermite * (end - start)
        + ((u - 2) * u + 1) * u * width * slope(left)
        + (u - 1) * u * u * width * slope(left + 1)
    )
