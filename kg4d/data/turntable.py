"""The layout of scenes that are made: a video, a ring of views of its first frame, and held-out videos around them."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d.data.records import Keypoints, PosedImages
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.orbits import orbit
from kg4d.keypoints.visibility import depth_visible

RADIUS, FOV_Y = 2.0, 49.1
TEST_AZIMUTHS = (-75.0, 15.0, 105.0, 195.0)
RING_VIEWS = 16


def video_cameras(size: int) -> Cameras:
    """Of the reference video, and of the test videos behind it."""
    return _level([0.0, *TEST_AZIMUTHS], size)


def ring_cameras(size: int) -> Cameras:
    """Around the first frame, the first as in the reference video."""
    return _level([360.0 * view / RING_VIEWS for view in range(RING_VIEWS)], size)


def _level(azimuths: list[float], size: int) -> Cameras:
    return orbit(azimuths, [0.0] * len(azimuths), RADIUS, FOV_Y, size, size)


class Drawn(NamedTuple):
    """One frame as V cameras see it."""

    images: Float[Tensor, "V H W 4"]  # straight RGBA, rounded to 8-bit values
    depths: Float[Tensor, "V H W 1"]  # world units
    alphas: Float[Tensor, "V H W 1"]  # where it is at least a half there is a surface at that depth


@dataclass(frozen=True)
class Views:
    """T frames as V cameras see them.

    Attributes:
        cameras: V cameras.
        images: Straight RGBA, rounded to 8-bit values.
        depths: Of the surface, world units.
        alphas: Where it is at least a half there is a surface at that depth.
        seen: Which of the J keypoints are visible.
    """

    cameras: Cameras
    images: Float[Tensor, "V T H W 4"]
    depths: Float[Tensor, "V T H W 1"]
    alphas: Float[Tensor, "V T H W 1"]
    seen: Bool[Tensor, "V T J"]

    @classmethod
    def of(cls, cameras: Cameras, drawn: list[Drawn], points: Float[Tensor, "T J 3"], slack: list[float]) -> "Views":
        """Put the frames together, and test which keypoints are visible.

        Keypoints lie inside the body, so keypoint j may be up to `slack[j]` world units behind the surface.
        """
        seen = [
            [
                depth_visible(point, cameras, frame.depths, frame.alphas, tolerance=tolerance)
                for point, tolerance in zip(positions, slack, strict=True)
            ]
            for positions, frame in zip(points, drawn, strict=True)
        ]
        images, depths, alphas = (torch.stack(parts, dim=1) for parts in zip(*drawn, strict=True))
        return cls(cameras, images, depths, alphas, torch.stack([torch.stack(row, dim=-1) for row in seen], dim=1))

    def posed_images(self, views: range, frames: int) -> PosedImages:
        """The images of the chosen views, one view after the other; the time of frame t is t / (frames - 1)."""
        chosen = torch.tensor(views)
        count = self.images.shape[1]
        index = torch.arange(count).repeat(len(chosen))
        return PosedImages(
            cameras=self.cameras[chosen.repeat_interleave(count)],
            images=self.images[chosen].flatten(0, 1),
            times=index / (frames - 1),
            frames=index,
            views=chosen.repeat_interleave(count),
        )


def exact_keypoints(
    names: tuple[str, ...], parents: tuple[int, ...], truth: Float[Tensor, "T J 3"], videos: Views, ring: Views
) -> Keypoints:
    """Keypoints at their true places, in the reference video, the test videos and the ring.

    Args:
        names: J names.
        parents: Index of the parent of each, -1 for a root.
        truth: World positions.
        videos: Of `video_cameras`.
        ring: Of `ring_cameras`.
    """
    uv = videos.cameras.project(truth).pixels
    return Keypoints(
        names=names,
        parents=parents,
        uv=uv[0],
        weights=videos.seen[0].float(),
        ring_uv=ring.cameras.project(truth[0]).pixels,
        ring_weights=ring.seen[:, 0].float(),
        truth=truth,
        test_uv=uv[1:],
        test_visible=videos.seen[1:],
    )
