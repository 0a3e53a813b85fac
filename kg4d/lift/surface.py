"""Points of the surface that are visible in frame 0, followed through the video along its flow."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.records import Flow
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.flow import follow_flows

_SOLID = 0.95  # pixels with less coverage may mix surfaces of different depth


@dataclass(frozen=True)
class SurfaceTracks:
    """M points of the surface and where the video shows them.

    Attributes:
        points: World positions in frame 0.
        pixels: Positions in the T images, px; finite everywhere.
        weights: In [0, 1]: 1 in frame 0, then multiplied by the weight of the flow from frame to frame, and 0 once that
            is unknown.
    """

    points: Float[Tensor, "M 3"]
    pixels: Float[Tensor, "T M 2"]
    weights: Float[Tensor, "T M"]


@torch.no_grad()
def follow_surface(
    depth: Float[Tensor, "H W 1"],
    alpha: Float[Tensor, "H W 1"],
    camera: Cameras,
    flow: Flow,
    count: int,
    generator: torch.Generator,
) -> SurfaceTracks:
    """Choose pixels of frame 0 at random, and follow the points that they show for as long as the flow is known.

    Args:
        depth: Rendered depth of frame 0 along the camera's z axis, world units.
        alpha: Its coverage, in [0, 1].
        camera: The camera that it was rendered for.
        flow: From each frame to the next, px, at the same resolution.
        count: Largest number of points; there are fewer if fewer pixels are covered and have a flow.
        generator: Draws the pixels (CPU).
    """
    rows, columns = torch.nonzero((alpha[..., 0] > _SOLID) & (flow.weights[0] > 0)).unbind(1)
    chosen = torch.randperm(len(rows), generator=generator)[:count]
    rows, columns = rows[chosen], columns[chosen]
    start = torch.stack([columns, rows], dim=-1) + 0.5
    points = camera.unproject(start[None], depth[rows, columns].mT)[0]
    return SurfaceTracks(points, *follow_flows(flow.flow, flow.weights, start))
