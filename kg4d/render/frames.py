"""Moving Gaussians drawn one frame after the other, by renderers that draw one set of Gaussians at a time."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.gaussians.moving import MovingGaussians
from kg4d.geometry.cameras import Cameras
from kg4d.render.base import Contributors, RasterOptions, Renderer, RenderOutput
from kg4d.render.inputs import check_query


@dataclass(frozen=True)
class Frames:
    """What such a renderer keeps of a render of B frames: the render of each."""

    outputs: tuple[RenderOutput, ...]

    def contributors(
        self, renderer: Renderer, camera_ids: Int[Tensor, " P"], pixels: Float[Tensor, "P 2"], k: int
    ) -> Contributors:
        """See `kg4d.render.base.Renderer`."""
        check_query(camera_ids, pixels, k)
        ids = torch.full((len(pixels), k), -1, dtype=torch.int64, device=pixels.device)
        weights = torch.zeros(len(pixels), k, device=pixels.device)
        for frame in torch.unique(camera_ids).tolist():
            rows = (camera_ids == frame).nonzero()[:, 0]
            found = renderer.contributors(self.outputs[frame], torch.zeros_like(rows), pixels[rows], k)
            ids[rows], weights[rows] = found.ids, found.weights.to(weights)
        return Contributors(ids, weights)


def draw_one_by_one(
    renderer: Renderer,
    gaussians: MovingGaussians,
    cameras: Cameras,
    features: Float[Tensor, "N D"] | Float[Tensor, "B N D"] | None,
    background: Float[Tensor, " D"] | None,
    depth: bool,
    options: RasterOptions,
) -> RenderOutput:
    """See `kg4d.render.base.Renderer.frames`."""
    check_frames(gaussians, cameras)
    per_frame = features is not None and features.dim() == 3
    outputs = tuple(
        renderer(
            state,
            cameras[frame],
            features=features[frame] if per_frame and features is not None else features,
            background=background,
            depth=depth,
            options=options,
        )
        for frame, state in enumerate(gaussians.states())
    )
    depths = [output.depth for output in outputs if output.depth is not None]
    return RenderOutput(
        torch.cat([output.image for output in outputs]),
        torch.cat([output.alpha for output in outputs]),
        torch.cat(depths) if depths else None,
        torch.cat([output.means2d for output in outputs]).detach(),
        torch.cat([output.radii for output in outputs]),
        options,
        Frames(outputs),
    )


def check_frames(gaussians: MovingGaussians, cameras: Cameras) -> None:
    """Raise ValueError where the Gaussians at B times, B >= 1, are not seen by B cameras."""
    if len(gaussians) != len(cameras) or len(cameras) < 1:
        raise ValueError(f"need one camera for each time, got {len(cameras)} for {len(gaussians)} times")
