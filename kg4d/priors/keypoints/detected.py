"""Keypoints of a video and of views, by a detector that looks at each image by itself."""

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.records import Keypoints
from kg4d.errors import InputError
from kg4d.geometry.cameras import Cameras
from kg4d.keypoints.sides import other_sides
from kg4d.priors.base import KeypointDetector, KeypointTracks
from kg4d.priors.keypoints.flips import unflipped_video, unflipped_views
from kg4d.priors.keypoints.fusing import fused
from kg4d.priors.workbench import Workbench

_FEW = 0.5  # share of the frames in which somebody must be seen, or else a note says so


def detect_keypoints(
    bench: Workbench,
    detector: KeypointDetector,
    video: Float[Tensor, "T H W 4"],
    views: Float[Tensor, "R H W 4"] | None = None,
    cameras: Cameras | None = None,
) -> Keypoints:
    """Detect keypoints in a video and in views of its first frame, with left and right alike in all of them.

    Those of the video are made to agree with its motion.

    Args:
        bench: Cache and notes.
        detector: Finds the keypoints.
        video: The frames: straight RGBA in [0, 1].
        views: Views of the first frame, if there are any.
        cameras: That of the first frame, then those of the views.

    Raises:
        InputError: Nothing is found in the first frame.
    """
    others = other_sides(detector.names)
    found = bench.tracks(detector, {"images": video}, lambda: detector(video))
    seen = (found.weights > 0).any(1)
    if not seen[0]:
        what = f"{detector.name} sees nobody in the first frame"
        remedy = "show the whole person there, check the matte in the preview, or mark keypoints: keypoints.kind=click"
        raise InputError("keypoints.kind", what, remedy)
    if float(seen.float().mean()) < _FEW:
        bench.note(f"{detector.name} sees somebody in {int(seen.sum())} of {len(seen)} frames: look at the preview")
    found = fused(unflipped_video(found, others), video)
    leans = None if found.depths is None else _leans(found.uv, found.depths, detector.parents) * seen[:, None]
    keypoints = Keypoints(detector.names, detector.parents, found.uv, found.weights, leans=leans)
    if views is None or cameras is None:
        return keypoints
    ring = bench.tracks(detector, {"images": views}, lambda: detector(views))
    uv, weights = torch.cat([found.uv[:1], ring.uv]), torch.cat([found.weights[:1], ring.weights])
    around = unflipped_views(KeypointTracks(uv, weights), others, cameras)
    return Keypoints(
        detector.names, detector.parents, found.uv, found.weights, around.uv[1:], around.weights[1:], leans
    )


def _leans(uv: Float[Tensor, "T J 2"], depths: Float[Tensor, "T J"], parents: tuple[int, ...]) -> Float[Tensor, "T J"]:
    """Sines of the angles by which the bones lean away from the camera; 0 where there is no bone."""
    above = torch.tensor([joint if parent < 0 else parent for joint, parent in enumerate(parents)])
    along, deep = (uv - uv[:, above]).square().sum(-1), depths - depths[:, above]
    return deep / (along + deep.square()).sqrt().clamp_min(1e-6)
