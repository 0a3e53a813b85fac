"""The other sides of the depth ambiguity: limbs that look the same in the image, but lean the other way."""

import itertools
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from kg4d.geometry.cameras import Cameras
from kg4d.lift.descent import polish
from kg4d.lift.objective import LiftObjective

_FLAT = 0.5  # up to this sine a bone counts as nearly in the image plane, where it may have gone to either side
_LEAST_DEPTH = 0.05  # world units; bones that lean less than this are not worth mirroring
_SCREENING_STEPS, _FINALISTS = 60, 6  # so many steps choose the candidates that get all steps of the polish
_GAIN = 0.04  # a mirrored limb must lower the loss by this share (evidence/lift_log.md: right and wrong ones)


def mirror_limbs(
    objective: LiftObjective, tracks: Float[Tensor, "T J 3"], times: Float[Tensor, " T"]
) -> Float[Tensor, "T J 3"]:
    """Mirror one limb after another to the other side of the depth ambiguity, as long as that fits clearly better.

    Args:
        objective: What to minimise; its body needs a surface, since the keypoints alone cannot tell. Its config says
            how many limbs at most.
        tracks: Keypoints so far, world units.
        times: Times of the frames in [0, 1]; at 0 the body is at rest.

    Returns:
        The polished tracks of the last limb that fitted better, or `tracks` themselves if none did.
    """
    for _ in range(objective.config.mirrors):
        translations = mirror_translations(tracks, objective.body.parents, objective.keypoints.cameras)
        mirrored = tracks + translations
        if len(mirrored) > _FINALISTS:
            _, losses = polish(objective, mirrored, times, _SCREENING_STEPS)
            mirrored = mirrored[losses.argsort()[:_FINALISTS]]
        if not len(mirrored):
            break
        polished, losses = polish(objective, torch.cat([tracks[None], mirrored]), times)
        best = int(losses.argmin())
        if not losses[best] < (1 - _GAIN) * losses[0]:
            break
        tracks = polished[best]
    return tracks


@torch.no_grad()
def mirror_translations(
    tracks: Float[Tensor, "T J 3"], parents: Int[Tensor, " J"], cameras: Cameras
) -> Float[Tensor, "C T J 3"]:
    """Translations of the keypoints by which C limbs lean the other way for some time.

    Each mirrors one bone along the viewing direction, and carries along all keypoints that hang on it. A bone changes
    sides where it is nearly in the image plane. It is therefore mirrored between each two successive moments at which
    it is flattest, and from each such moment to the end. Nothing moves in the first frame.

    Args:
        tracks: Keypoints at T times, world units.
        parents: Parent of each keypoint; -1 where there is no bone.
        cameras: One for each time.

    Returns:
        World units, to be added to `tracks`.
    """
    descendants = _descendants(parents)
    found: list[Tensor] = []
    for child in torch.nonzero(parents >= 0)[:, 0].tolist():
        upper_end = tracks[:, int(parents[child])]
        bone, view = tracks[:, child] - upper_end, normalize(upper_end - cameras.centers, dim=-1)
        lean = (bone * view).sum(-1)
        for first, end in _spans(lean.abs() / bone.norm(dim=-1).clamp_min(1e-9)):
            inside = torch.zeros_like(lean)
            inside[max(first, 1) : end] = 1.0
            if float((inside * lean).abs().max()) > _LEAST_DEPTH:
                found.append((-2 * lean * inside)[:, None, None] * view[:, None] * descendants[child][:, None])
    return torch.stack(found) if found else tracks.new_zeros(0, *tracks.shape)


def _spans(sines: Float[Tensor, " T"]) -> list[tuple[int, int]]:
    """Spans of frames, each from the first one to behind the last, in which a bone may lean the other way.

    They lie between successive moments at which the sine of its angle to the image plane is smallest, and between each
    of these and the end.
    """
    padded = [math.inf, *sines.tolist(), math.inf]
    flattest = [
        t
        for t, (before, value, after) in enumerate(zip(padded, padded[1:], padded[2:], strict=False))
        if value < _FLAT and value <= before and value < after
    ]
    return [*itertools.pairwise(flattest), *((t, len(sines)) for t in flattest)]


def _descendants(parents: Int[Tensor, " J"]) -> Float[Tensor, "J J"]:
    """1 at [a, b] where b is a or hangs on it, else 0."""
    links: list[int] = parents.tolist()
    descendants = torch.zeros(len(links), len(links))
    for joint in range(len(links)):
        ancestor = joint
        while ancestor >= 0:
            descendants[ancestor, joint] = 1.0
            ancestor = links[ancestor]
    return descendants
