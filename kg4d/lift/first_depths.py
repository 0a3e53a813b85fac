"""Depths of the keypoints in the first frame, from one video alone: what no view around the object tells.

Bones keep their lengths while they turn, so a bone that is short in the first frame and long later leans there. That
does not tell to which side. What is hidden does: it is behind what is seen.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.geometry.cameras import Cameras
from kg4d.losses.motion_priors import Bones, acceleration_loss, bone_lengths

_STARTS = 64
_BEST = 16  # their mean: where they disagree on a side, a bone stays near the plane
_STEPS, _RATE, _LAST_RATE = 400, 0.02, 0.001
_SPREAD = 0.15  # of the first depths; world units of a normalised scene, as are those below
_BEHIND = 0.15  # hidden keypoints are at least that far behind what is seen, on the mean
_SHORTEST = 0.02
_LENGTHS, _SMOOTH, _BACK, _FLAT, _CENTRE = 1e3, 80.0, 1e2, 0.1, 10.0  # weights; that of lengths grows tenfold


def first_depths(
    uv: Float[Tensor, "T J 2"],
    weights: Float[Tensor, "T J"],
    times: Float[Tensor, " T"],
    parents: Int[Tensor, " J"],
    counterparts: Int[Tensor, " J"],
    camera: Cameras,
    middle: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "J 2"], Float[Tensor, " J"]]:
    """Pixels and depths of the keypoints at the first time: means of the best of many fits to all times.

    Each fit has a depth for each keypoint and time, and a length for each bone, which left and right share. The camera
    stands still.

    Args:
        uv: Tracks of the keypoints, px; without meaning where the weight is 0.
        weights: Confidence in [0, 1]; 0 is not seen.
        times: Ascending, in [0, 1].
        parents: Index of each keypoint's parent, -1 for roots.
        counterparts: Index of each keypoint on the other side of the body, -1 where there is none.
        camera: The one that sees them.
        middle: Mean of the depths, in a scene that is normalised.
        generator: Source of randomness (CPU).
    """
    bones, seen = Bones.of(parents), (weights > 0).to(uv.dtype)
    K = camera.Ks[0].to(uv)
    filled = _filled(uv, seen > 0, parents)
    rays = (filled - K[:2, 2]) / K[[0, 1], [0, 1]]
    waves = _SPREAD * torch.randn(_STARTS, 3, len(parents), generator=generator).to(uv)
    phase = (2 * torch.pi * times)[:, None]
    start = waves[:, :1] + waves[:, 1:2] * phase.sin() + waves[:, 2:] * phase.cos()
    depths = start.clone().requires_grad_()
    aside = torch.zeros_like(rays).expand(_STARTS, *rays.shape).clone().requires_grad_()  # of those that are not seen

    def points() -> Tensor:
        across = rays + aside * (1 - seen)[..., None]
        return torch.cat([across, torch.ones_like(across[..., :1])], -1) * (middle + depths)[..., None]

    flat = torch.cat([rays, torch.ones_like(rays[..., :1])], -1) * middle
    both = seen[:, bones.children] * seen[:, bones.above]
    longest = (bone_lengths(flat, bones) * both).amax(0).clamp_min(_SHORTEST)
    log_lengths = longest.log().expand(_STARTS, -1).clone().requires_grad_()
    mates = _mates(bones, counterparts)
    optimizer = torch.optim.Adam([depths, aside, log_lengths], lr=_RATE)
    losses = depths.new_zeros(_STARTS)
    for step in range(_STEPS):
        progress = step / _STEPS
        optimizer.param_groups[0]["lr"] = _RATE * (_LAST_RATE / _RATE) ** progress
        places = points()
        lengths = log_lengths.exp()
        lengths = (lengths + lengths[:, mates]) / 2
        changes = (bone_lengths(places, bones) - lengths[:, None]).square().mean((1, 2))
        leaning = (places[:, :, bones.children, 2] - places[:, :, bones.above, 2]).abs().mean((1, 2))
        front = ((depths * seen).sum(2) / seen.sum(1).clamp_min(1))[..., None]
        ahead = torch.relu(_BEHIND - (depths - front)).square() * (1 - seen)
        losses = (
            _LENGTHS * 10**progress * changes
            + _SMOOTH * acceleration_loss(places, times)
            + _BACK * ahead.sum(2).mean(1)
            + _FLAT * leaning
            + _CENTRE * depths.mean((1, 2)).square()
        )
        optimizer.zero_grad()
        losses.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    best = losses.detach().argsort()[:_BEST]
    first = depths.detach()[best, 0]
    moved = (aside.detach()[best, 0].mean(0) * (1 - seen[0])[:, None]) * K[[0, 1], [0, 1]]
    return filled[0] + moved, middle + (first - first.mean(1, keepdim=True)).mean(0)


def _filled(uv: Tensor, seen: Tensor, parents: Int[Tensor, " J"]) -> Float[Tensor, "T J 2"]:
    """The tracks, with straight lines in time over what is not seen; what is never seen is where its parent is."""
    count = len(uv)
    index = torch.arange(count)[:, None].expand_as(seen)
    before = torch.where(seen, index, -1).cummax(0).values
    after = torch.where(seen, index, count).flip(0).cummin(0).values.flip(0)
    first, last = torch.where(before < 0, after, before), torch.where(after == count, before, after)
    share = ((index - first) / (last - first).clamp_min(1)).clamp(0, 1)[..., None]
    known = torch.where(seen[..., None], uv, 0)

    def at(frames: Tensor) -> Tensor:
        return known.gather(0, frames.clamp(0, count - 1)[..., None].expand_as(known))

    filled = at(first) * (1 - share) + at(last) * share
    ever = seen.any(0)
    middle = known.sum((0, 1)) / seen.sum().clamp_min(1)
    for joint in range(len(parents)):
        ancestor = joint
        for _ in parents:
            if not bool(ever[ancestor]) and int(parents[ancestor]) >= 0:
                ancestor = int(parents[ancestor])
        if not bool(ever[joint]):
            filled[:, joint] = filled[:, ancestor] if bool(ever[ancestor]) else middle
    return filled


def _mates(bones: Bones, counterparts: Int[Tensor, " J"]) -> Int[Tensor, " B"]:
    """For each bone the one on the other side of the body; itself where there is none."""
    of_child = {int(child): index for index, child in enumerate(bones.children)}
    return torch.tensor(
        [of_child.get(int(counterparts[child]), index) for index, child in enumerate(bones.children)],
        dtype=torch.int64,
    )
