"""Keypoints and flow that were found in images of a lens, moved to where the undistorted images show them."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.readers.transforms import ReadImages
from kg4d.data.records import Depth, Flow, ImageFiles, Keypoints
from kg4d.data.sizes import Size
from kg4d.geometry.lenses import Undistortion
from kg4d.geometry.sampling import pixel_centers, sample_image

_Lenses = Sequence[Undistortion | None]


def undistort_keypoints(
    keypoints: Keypoints, reference: ReadImages, ring: ReadImages | None, test: ReadImages | None
) -> Keypoints:
    """Keypoints in pixels of the files, in pixels of the undistorted images; outside of these they have weight 0.

    Args:
        keypoints: As `keypoints.npz` gives them.
        reference: The images of the reference video.
        ring: Those of the ring.
        test: Those of the test videos.
    """
    uv, weights = _moved(keypoints.uv, keypoints.weights, reference.lenses, reference.grid)
    moved = replace(keypoints, uv=uv, weights=weights)
    if ring is not None and keypoints.ring_uv is not None and keypoints.ring_weights is not None:
        uv, weights = _moved(keypoints.ring_uv, keypoints.ring_weights, ring.lenses, ring.grid)
        moved = replace(moved, ring_uv=uv, ring_weights=weights)
    if test is not None and keypoints.test_uv is not None and keypoints.test_visible is not None:
        uv, seen = keypoints.test_uv.clone(), keypoints.test_visible.clone()
        rows = {view: row for row, view in enumerate(sorted(set(test.posed.views.tolist())))}
        where = zip(test.posed.views.tolist(), test.posed.frames.tolist(), test.lenses, strict=True)
        for view, frame, lens in where:
            if frame < uv.shape[1]:
                at = rows[view], frame
                uv[at], kept = _through(uv[at], lens, test.grid)
                seen[at] &= kept
        moved = replace(moved, test_uv=uv, test_visible=seen)
    return moved


def undistort_flow(flow: Flow, lenses: _Lenses) -> Flow:
    """Flow between images of lenses, in pixels of their files, as flow between the undistorted images.

    Args:
        flow: As `flow.npz` gives it.
        lenses: Of the T frames.
    """
    if not any(lenses):
        return flow
    pairs = zip(flow.flow, flow.weights, lenses[:-1], lenses[1:], strict=True)
    moved = [_flow_between(*pair) for pair in pairs]
    return Flow(torch.stack([flow for flow, _ in moved]), torch.stack([weights for _, weights in moved]))


def undistort_depth(depth: Depth, files: ImageFiles) -> Depth:
    """Depth in images of lenses, of any size, as depth in the undistorted images, of the size of the files.

    Args:
        depth: Of the M images.
        files: Theirs.
    """
    depth = depth.resampled(files.grid)
    parts = [
        part if lens is None else part.sampled(lens.source)
        for part, lens in ((depth[index : index + 1], lens) for index, lens in enumerate(files.lenses))
    ]
    return replace(depth, depth=torch.cat([p.depth for p in parts]), weights=torch.cat([p.weights for p in parts]))


def _flow_between(
    flow: Float[Tensor, "H W 2"], weights: Float[Tensor, "H W"], lens: Undistortion | None, after: Undistortion | None
) -> tuple[Float[Tensor, "H W 2"], Float[Tensor, "H W"]]:
    here = pixel_centers(*weights.shape)
    source = here if lens is None else lens.source
    read = sample_image(torch.cat([flow * weights[..., None], weights[..., None]], dim=-1), source)
    confidence = read[..., 2]
    ends = source + read[..., :2] / confidence.clamp_min(torch.finfo(confidence.dtype).tiny)[..., None]
    ends = ends if after is None else after.points(ends)
    known = (confidence > 0) & ends.isfinite().all(-1)
    return torch.where(known[..., None], ends - here, 0), torch.where(known, confidence, 0)


def _moved(
    uv: Float[Tensor, "M J 2"], weights: Float[Tensor, "M J"], lenses: _Lenses, grid: Size
) -> tuple[Float[Tensor, "M J 2"], Float[Tensor, "M J"]]:
    moved = [_through(points, lens, grid) for points, lens in zip(uv, lenses, strict=True)]
    return torch.stack([points for points, _ in moved]), weights * torch.stack([kept for _, kept in moved])


def _through(points: Float[Tensor, "J 2"], lens: Undistortion | None, grid: Size) -> tuple[Tensor, Tensor]:
    """Points after undistortion, and whether they are inside of the image; without a lens, as they are and true."""
    if lens is None:
        return points, torch.ones(len(points), dtype=torch.bool)
    moved = lens.points(points)
    return moved.nan_to_num(0.0), ((moved >= 0) & (moved <= moved.new_tensor(grid))).all(-1)
