"""Before the static stage: which keypoints can be used, and where their features on the Gaussians start."""

import logging
from dataclasses import dataclass, replace
from typing import assert_never

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kg4d.data.records import Keypoints, PosedImages
from kg4d.gaussians.model import GaussianModel
from kg4d.geometry.cameras import Cameras
from kg4d.keypoints.barycentre import seed_logits, seed_logits_from_view
from kg4d.keypoints.noise import robust_deviation
from kg4d.keypoints.triangulation import agreement, triangulate
from kg4d.losses.settings import KeypointSeeding, KfcConfig

_log = logging.getLogger(__name__)

# A keypoint in a view of the ring counts as wrong if it is farther off than both of these.
_TOLERANCE = 0.02  # longer image sides
_DEVIATIONS = 4.0  # standard deviations of the noise


@dataclass(frozen=True)
class Skeleton:
    """Which keypoints the model can carry, and the bones between them.

    Attributes:
        known: Whether some view of frame 0 shows the keypoint. The others have no position on the model.
        parents: Parent of each keypoint; -1 for roots, and where the bone is cut because one of its ends is unknown.
        points: Triangulated world positions in frame 0; NaN where fewer than two directions show the keypoint.
    """

    known: Bool[Tensor, " J"]
    parents: Int[Tensor, " J"]
    points: Float[Tensor, "J 3"]


def reconcile_views(keypoints: Keypoints, ring: PosedImages | None) -> Keypoints:
    """The same keypoints, with less weight in views of the ring that contradict the other views.

    A first estimate measures how noisy they are. If that is much, the tolerance grows with it, since otherwise many
    right ones would be lost.
    """
    if ring is None or keypoints.ring_uv is None or keypoints.ring_weights is None:
        return keypoints
    uv, weights, cameras = keypoints.ring_uv, keypoints.ring_weights, ring.cameras
    tolerance = _TOLERANCE * max(cameras.width, cameras.height)
    agreeing = agreement(uv, weights, cameras, tolerance_px=tolerance)
    noise = _noise_px(uv, weights, weights * agreeing, cameras)
    if _DEVIATIONS * noise > tolerance:
        agreeing = agreement(uv, weights, cameras, tolerance_px=_DEVIATIONS * noise)
    return replace(keypoints, ring_weights=weights * agreeing)


def _noise_px(
    uv: Float[Tensor, "V J 2"], weights: Float[Tensor, "V J"], agreed: Float[Tensor, "V J"], cameras: Cameras
) -> float:
    """Standard deviation of the keypoints around the projections of points triangulated with weights `agreed`, px."""
    found = triangulate(uv, agreed, cameras)
    pixels = cameras.project(found.points[found.valid]).pixels
    distances = (pixels - uv[:, found.valid]).norm(dim=-1)
    return robust_deviation(distances.flatten(), weights[:, found.valid].flatten())


@torch.no_grad()
def seed_keypoints(
    model: GaussianModel, ring: PosedImages | None, keypoints: Keypoints, kfc: KfcConfig, camera: Cameras
) -> Skeleton:
    """Set the keypoint features of `model`, and say which keypoints can be used.

    With a ring of views, a keypoint that two directions or more show is triangulated and seeded there. One that a
    single view shows starts from uniform features, and its depth is left to the losses. One that no view shows is
    dropped; so are all if the views have no keypoints, as nothing would tie the features to the figure.

    Without a ring, a keypoint is seeded where its line of sight in the first frame meets the plane through the origin
    that faces the camera: the middle of an object that is inflated from that frame.

    Args:
        model: Its keypoint features are set.
        ring: Views of frame 0 from around; None if there are none.
        keypoints: Of the reference video and of the ring.
        kfc: Says how features become weights, and may ask for other seeds. Which keypoints are used does not change.
        camera: The camera of the reference video's first frame.
    """
    positions = points = torch.full((len(keypoints.names), 3), torch.nan)
    if ring is None:
        known = keypoints.weights[0] > 0
        positions = torch.where(known[:, None], _on_middle_plane(keypoints.uv[0], camera), torch.nan)
    elif keypoints.ring_uv is None or keypoints.ring_weights is None:
        known = torch.zeros(len(keypoints.names), dtype=torch.bool)
        _log.warning("the ring of views has no keypoints (ring_uv): the keypoint losses are off")
    else:
        found = triangulate(keypoints.ring_uv, keypoints.ring_weights, ring.cameras)
        positions = points = found.points
        known = (keypoints.ring_weights > 0).any(0)
        _report(keypoints.names, known, found.valid)
    model.keypoint_logits.copy_(_seeds(model.means, positions, keypoints, kfc, camera))
    parents = torch.tensor(keypoints.parents)
    usable = known & (parents >= 0) & known[parents.clamp_min(0)]
    return Skeleton(known, torch.where(usable, parents, -1), points)


def _seeds(
    means: Float[Tensor, "N 3"], positions: Float[Tensor, "J 3"], keypoints: Keypoints, kfc: KfcConfig, camera: Cameras
) -> Float[Tensor, "N J"]:
    """Keypoint features around the world positions, or around the keypoints of the first frame, or uniform ones."""
    match kfc.seeding:
        case KeypointSeeding.TRIANGULATED:
            return seed_logits(means, positions, temperature=kfc.temperature, sigma=kfc.seed_sigma)
        case KeypointSeeding.VIEW:
            size, view = max(camera.width, camera.height), camera.project(means)
            front = _in_front(view.pixels[0], view.depths[0], kfc.seed_sigma * size, kfc.visibility_tolerance)
            uv = torch.where(keypoints.weights[0, :, None] > 0, keypoints.uv[0], torch.nan)
            return seed_logits_from_view(view.pixels[0], front, uv, image_size=size, sigma=kfc.seed_sigma)
        case KeypointSeeding.NONE:
            return torch.zeros(len(means), len(positions))
        case _:
            assert_never(kfc.seeding)


def _in_front(
    pixels: Float[Tensor, "N 2"], depths: Float[Tensor, " N"], cell_px: float, tolerance: float
) -> Bool[Tensor, " N"]:
    """Which points lie within `tolerance` (world units) of the nearest one in their cell of a grid over the image."""
    _, cells = torch.unique((pixels / cell_px).floor(), dim=0, return_inverse=True)
    nearest = depths.new_full((len(depths),), torch.inf).scatter_reduce(0, cells, depths, "amin")
    return depths <= nearest[cells] + tolerance


def _on_middle_plane(uv: Float[Tensor, "J 2"], camera: Cameras) -> Float[Tensor, "J 3"]:
    """World positions of pixels on the plane through the origin that faces the camera."""
    depth_of_origin = camera.viewmats[:, 2, 3]
    return camera.unproject(uv[None], depth_of_origin.expand(1, len(uv)))[0]


def _report(names: tuple[str, ...], known: Tensor, triangulated: Tensor) -> None:
    for text, chosen in (
        ("seen by a single view, depth unknown", known & ~triangulated),
        ("seen by no view of frame 0, dropped", ~known),
    ):
        if bool(chosen.any()):
            _log.info(
                "keypoints %s: %s", text, ", ".join(n for n, hit in zip(names, chosen.tolist(), strict=True) if hit)
            )
