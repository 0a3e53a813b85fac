"""Keypoints of a video that were found frame by frame, made to agree with how the picture moves at them.

A detector is right on average and jitters; the picture's own motion (Lucas-Kanade) is exact from frame to frame and
drifts. The positions that suit both best are a least-squares problem, robust against what contradicts the rest: a
position that had to move far loses its weight, and a motion that contradicts the positions is left out.

Source: Geman and McClure 1987, "Statistical methods for tomographic image reconstruction" (the robust loss), by
iteratively reweighted least squares; Blake and Zisserman 1987, "Visual reconstruction" (wide scales first).
"""

import cv2
import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.priors.base import KeypointTracks
from kg4d.priors.keypoints.flips import body_size
from kg4d.priors.keypoints.point_tracking import lucas_kanade, on_white

_OFF, _SLIP = 0.1, 0.04  # of the body's size: errors of positions and of motions beyond which they count ever less
_TOLERANCE = 0.01  # of the body's size: error there and back at which a motion counts no more
_LEAST = 0.05  # weight of a position that nothing speaks for
_ROUNDS = 10
_WIDEST = 8.0  # factor on the scales in the first round, halved in each: else no outlier would ever move


def fused(tracks: KeypointTracks, video: Float[Tensor, "T H W 4"]) -> KeypointTracks:
    """The tracks, moved to where positions and motions agree; weights fall where they do not.

    Args:
        tracks: Keypoints in the T frames.
        video: The frames: straight RGBA in [0, 1].
    """
    count, size = len(video), body_size(tracks)
    if count < 2:
        return tracks
    found, weights = tracks.uv.double(), tracks.weights.double()
    both = weights[1:] * weights[:-1] / 2
    motions = [(moved, both * trust) for moved, trust in _motions(tracks.uv, video, size)]
    uv = found
    for turn in range(_ROUNDS):
        scale = size * max(1.0, _WIDEST / 2**turn)
        off = (uv - found).norm(dim=-1) / (_OFF * scale)
        kept = weights.clamp_min(_LEAST) * _robust(off) / _OFF**2
        matrix, right = torch.diag_embed(kept.T), kept.T[..., None] * found.transpose(0, 1)
        for moved, trust in motions:
            slip = (uv[1:] - uv[:-1] - moved).norm(dim=-1) / (_SLIP * scale)
            tied = (trust * _robust(slip) / _SLIP**2).T
            ends = torch.arange(count - 1)
            for place, sign in ((ends + 1, 1.0), (ends, -1.0)):
                matrix[:, place, place] += tied
                right[:, place] += sign * tied[..., None] * moved.transpose(0, 1)
            matrix[:, ends, ends + 1] -= tied
            matrix[:, ends + 1, ends] -= tied
        uv = torch.linalg.solve(matrix, right).transpose(0, 1)
    agreeing = _robust((uv - found).norm(dim=-1) / (_OFF * size)).sqrt()
    return KeypointTracks(uv.float(), (weights * agreeing).float(), tracks.depths)


def _motions(
    uv: Float[Tensor, "T J 2"], video: Float[Tensor, "T H W 4"], size: float
) -> list[tuple[Float[Tensor, "pairs J 2"], Float[Tensor, "pairs J"]]]:
    """How the picture moves at the keypoints of each frame to the next, and back from those of the next; with trust."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in on_white(video)]
    found = []
    for here, there in ((0, 1), (1, 0)):
        moved, trust = [], []
        for pair in range(len(video) - 1):
            start = uv[pair + here].contiguous()
            ahead, seen = lucas_kanade(grey[pair + here], grey[pair + there], start)
            returned, seen_back = lucas_kanade(grey[pair + there], grey[pair + here], ahead)
            error = (returned - start).norm(dim=-1) / (_TOLERANCE * size)
            moved.append((ahead - start) * (1 if there else -1))
            trust.append((1 - error.square()).clamp_min(0) * seen * seen_back)
        found.append((torch.stack(moved).double(), torch.stack(trust).double()))
    return found


def _robust(error: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The weight of an error of unit scale under the loss of Geman and McClure."""
    return 1 / (1 + error.square()).square()
