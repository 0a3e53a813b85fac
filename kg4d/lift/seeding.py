"""Where the keypoint features start, and which keypoints can be used."""

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
from kg4d.keypoints.noise import deviation
from kg4d.keypoints.triangulation import agreement, triangulate
from kg4d.losses.kfc import KeypointSeeding, KfcConfig

_log = logging.getLogger(__name__)

# A keypoint in a view of the ring counts as wrong where it is farther off than the larger of these.
_TOLERANCE = 0.02  # of the image's side
_DEVIATIONS = 4.0  # of the noise


@dataclass(frozen=True)
class Skeleton:
    """Which keypoints the model can carry, and the bones between them.

    Attributes:
        known: Whether some view of frame 0 shows the keypoint; the others have no place on the model.
        parents: Parent of each keypoint; -1 for roots, and where the bone is cut because an end is not known.
        points: World positions in frame 0, triangulated; NaN where less than two directions show the keypoint.
    """

    known: Bool[Tensor, " J"]
    parents: Int[Tensor, " J"]
    points: Float[Tensor, "J 3"]


def agreed_keypoints(keypoints: Keypoints, ring: PosedImages | None) -> Keypoints:
    """The same keypoints; those of the ring have less weight where the other views contradict them.

    A first look tells how noisy they are. Where that is much, more is forgiven, or many that are right would be lost.
    """
    if ring is None or keypoints.ring_uv is None or keypoints.ring_weights is None:
        return keypoints
    uv, weights, cameras = keypoints.ring_uv, keypoints.ring_weights, ring.cameras
    tolerance = _TOLERANCE * max(cameras.width, cameras.height)
    trust = agreement(uv, weights, cameras, tolerance_px=tolerance)
    noise = _noise(uv, weights, weights * trust, cameras)
    if _DEVIATIONS * noise > tolerance:
        trust = agreement(uv, weights, cameras, tolerance_px=_DEVIATIONS * noise)
    return replace(keypoints, ring_weights=weights * trust)


def _noise(
    uv: Float[Tensor, "V J 2"], weights: Float[Tensor, "V J"], trusted: Float[Tensor, "V J"], cameras: Cameras
) -> float:
    """Deviation of the keypoints from where the trusted ones put them, px."""
    places = triangulate(uv, trusted, cameras)
    pixels = cameras.project(places.points[places.valid]).pixels
    distances = (pixels - uv[:, places.valid]).norm(dim=-1)
    return deviation(distances.flatten(), weights[:, places.valid].flatten())


@torch.no_grad()
def seed_keypoints(
    model: GaussianModel, ring: PosedImages | None, keypoints: Keypoints, kfc: KfcConfig, camera: Cameras
) -> Skeleton:
    """Set the keypoint features of `model` and say which keypoints can be used.

    A keypoint seen from two directions or more is triangulated and seeded there. One that only a single view shows
    starts from uniform features (its depth is then whatever the losses make of it); one that no view shows is dropped.
    Without a ring they are seeded where the line of sight of `camera`, which took the first frame of the video, meets
    the plane through the origin that faces it: the middle of an object that is inflated from that frame.
    With a ring whose views have no keypoints all are dropped: nothing would tie the features to the figure.
    `kfc.seeding` may ask for other seeds than these; which keypoints are used is the same.
    """
    places = points = torch.full((len(keypoints.names), 3), torch.nan)
    if ring is None:
        known = keypoints.weights[0] > 0
        places = torch.where(known[:, None], _on_middle_plane(keypoints.uv[0], camera), torch.nan)
    elif keypoints.ring_uv is None or keypoints.ring_weights is None:
        known = torch.zeros(len(keypoints.names), dtype=torch.bool)
        _log.warning("the ring of views has no keypoints (ring_uv): the keypoint losses are off")
    else:
        found = triangulate(keypoints.ring_uv, keypoints.ring_weights, ring.cameras)
        places = points = found.points
        known = (keypoints.ring_weights > 0).any(0)
        _report(keypoints.names, known, found.valid)
    model.keypoint_logits.copy_(_seeds(model.means, places, keypoints, kfc, camera))
    parents = torch.tensor(keypoints.parents)
    usable = known & (parents >= 0) & known[parents.clamp_min(0)]
    return Skeleton(known, torch.where(usable, parents, -1), points)


def _seeds(
    means: Float[Tensor, "N 3"], places: Float[Tensor, "J 3"], keypoints: Keypoints, kfc: KfcConfig, camera: Cameras
) -> Float[Tensor, "N J"]:
    match kfc.seeding:
        case KeypointSeeding.TRIANGULATED:
            return seed_logits(means, places, temperature=kfc.temperature, sigma=kfc.seed_sigma)
        case KeypointSeeding.VIEW:
            size, view = max(camera.width, camera.height), camera.project(means)
            front = _in_front(view.pixels[0], view.depths[0], kfc.seed_sigma * size, kfc.visibility_tolerance)
            uv = torch.where(keypoints.weights[0, :, None] > 0, keypoints.uv[0], torch.nan)
            return seed_logits_from_view(view.pixels[0], front, uv, image_size=size, sigma=kfc.seed_sigma)
        case KeypointSeeding.NONE:
            return torch.zeros(len(means), len(places))
        case _:
            assert_never(kfc.seeding)


def _in_front(
    pixels: Float[Tensor, "N 2"], depths: Float[Tensor, " N"], cell_px: float, tolerance: float
) -> Bool[Tensor, " N"]:
    """Which points lie within `tolerance` of the nearest one in their cell of a grid over the image."""
    _, cells = torch.unique((pixels / cell_px).floor(), dim=0, return_inverse=True)
    nearest = depths.new_full((len(depths),), torch.inf).scatter_reduce(0, cells, depths, "amin")
    return depths <= nearest[cells] + tolerance


def _on_middle_plane(uv: Float[Tensor, "J 2"], camera: Cameras) -> Float[Tensor, "J 3"]:
    depth_of_origin = camera.viewmats[:, 2, 3]
    return camera.unproject(uv[None], depth_of_origin.expand(1, len(uv)))[0]


def _report(names: tuple[str, ...], known: Tensor, triangulated: Tensor) -> None:
    for text, chosen in (
        ("seen by a single view, depth not known", known & ~triangulated),
        ("seen by no view of frame 0, dropped", ~known),
    ):
        if bool(chosen.any()):
            _log.info(
                "keypoints %s: %s", text, ", ".join(n for n, hit in zip(names, chosen.tolist(), strict=True) if hit)
            )
