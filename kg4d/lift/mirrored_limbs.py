"""The other sides of the depth ambiguity: limbs that look the same, but lean the other way."""

import itertools

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from kg4d.geometry.cameras import Cameras

_FLAT = 0.5  # up to this sine a bone counts as nearly in the image plane, where it may have gone to either side
_LEAST_DEPTH = 0.05  # bones that lean less than this, world units, are not worth mirroring


@torch.no_grad()
def mirrored_limbs(
    tracks: Float[Tensor, "T J 3"], parents: Int[Tensor, " J"], cameras: Cameras
) -> Float[Tensor, "C T J 3"]:
    """How C limbs go over when one bone of each is mirrored along the view for some time; what hangs on it goes along.

    A bone passes from one side to the other where it is nearly in the image plane. So the times are those between two
    neighbouring moments at which it is flattest, and from each of these to the end. Nothing changes in the first frame.

    Args:
        tracks: Keypoints at T times.
        parents: Parent of each keypoint; -1 where there is none.
        cameras: T cameras.
    """
    below = _descendants(parents)
    shifts: list[Tensor] = []
    for child in torch.nonzero(parents >= 0)[:, 0].tolist():
        upper = tracks[:, int(parents[child])]
        bone, view = tracks[:, child] - upper, normalize(upper - cameras.centers, dim=-1)
        lean = (bone * view).sum(-1)
        for first, end in _spans(lean.abs() / bone.norm(dim=-1).clamp_min(1e-9)):
            inside = torch.zeros_like(lean)
            inside[max(first, 1) : end] = 1.0
            if float((inside * lean).abs().max()) > _LEAST_DEPTH:
                shifts.append((-2 * lean * inside)[:, None, None] * view[:, None] * below[child][:, None])
    return torch.stack(shifts) if shifts else tracks.new_zeros(0, *tracks.shape)


def _spans(sines: Float[Tensor, " T"]) -> list[tuple[int, int]]:
    """First and last + 1 of the frames between the moments at which a bone is flattest, and from each to the end."""
    values: list[float] = sines.tolist()
    total = len(values)

    def flattest(t: int) -> bool:
        before, after = values[t - 1] if t else float("inf"), values[t + 1] if t + 1 < total else float("inf")
        return values[t] < _FLAT and values[t] <= before and values[t] < after

    cuts = [t for t in range(total) if flattest(t)]
    return [*itertools.pairwise(cuts), *((cut, total) for cut in cuts)]


def _descendants(parents: Int[Tensor, " J"]) -> Float[Tensor, "J J"]:
    """1 at [a, b] where b is a or hangs on it."""
    links: list[int] = parents.tolist()
    below = torch.zeros(len(links), len(links))
    for joint in range(len(links)):
        above = joint
        while above >= 0:
            below[above, joint] = 1.0
            above = links[above]
    return below
