"""A tiny scene made by hand: a ball that moves sideways, seen by cameras all around."""

import torch

from kg4d.data.records import Flow, Keypoints, PosedImages, Scene
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.orbits import orbit
from kg4d.geometry.sampling import pixel_centers

SIZE, FRAMES, RING, JOINTS = 16, 4, 6, 3
RADIUS = 0.4


def ball(cameras: Cameras, centers: torch.Tensor) -> torch.Tensor:
    """One image a camera, straight RGBA with 8-bit values: a disc whose colour varies over the image."""
    pixels = pixel_centers(cameras.height, cameras.width)
    images = []
    for camera, center in zip(range(len(cameras)), centers, strict=True):
        projected = cameras[camera].project(center)
        radius = RADIUS * cameras.Ks[camera, 0, 0] / projected.depths[0]
        alpha = (radius - (pixels - projected.pixels[0]).norm(dim=-1) + 0.5).clamp(0, 1)
        colors = torch.stack([pixels[..., 0], pixels[..., 1], pixels.sum(-1) / 2], dim=-1) / cameras.width
        images.append(torch.cat([colors * (alpha[..., None] > 0), alpha[..., None]], dim=-1))
    return (torch.stack(images) * 255).round() / 255


def make_tiny_scene() -> Scene:
    centers = torch.tensor([[0.05 * t, 0.0, 0.0] for t in range(FRAMES)])
    times = torch.arange(FRAMES) / (FRAMES - 1)
    frames = torch.arange(FRAMES)

    def cameras(azimuths: list[float]) -> Cameras:
        return orbit(azimuths, [0.0] * len(azimuths), 2.0, 49.1, SIZE, SIZE)

    reference, ring = cameras([0.0] * FRAMES), cameras([360.0 * r / RING for r in range(RING)])
    test = cameras([-75.0] * FRAMES + [105.0] * FRAMES)
    truth = centers[:, None] + torch.tensor([[0.0, 0.3, 0.0], [0.2, 0.0, 0.1], [-0.2, -0.1, 0.0]])
    seen = torch.ones(FRAMES, JOINTS)
    seen[1, 2] = 0
    ring_seen = torch.ones(RING, JOINTS)
    ring_seen[3, 0] = 0
    test_uv = torch.stack([test[[v * FRAMES]].project(truth).pixels[0] for v in range(2)])
    flow = torch.zeros(FRAMES - 1, SIZE, SIZE, 2)
    flow[..., 0] = 0.5
    weights = (ball(reference, centers)[:-1, ..., 3] > 0.5).float()
    return Scene(
        name="tiny",
        reference=PosedImages(reference, ball(reference, centers), times, frames, torch.zeros(FRAMES).long()),
        ring=PosedImages(
            ring,
            ball(ring, centers[:1].expand(RING, 3)),
            torch.zeros(RING),
            torch.zeros(RING).long(),
            torch.arange(RING),
        ),
        keypoints=Keypoints(
            names=("top", "left", "right"),
            parents=(-1, 0, 0),
            uv=reference[[0]].project(truth).pixels[0],
            weights=seen,
            ring_uv=ring.project(truth[0]).pixels,
            ring_weights=ring_seen,
            truth=truth,
            test_uv=test_uv,
            test_visible=torch.ones(2, FRAMES, JOINTS, dtype=torch.bool),
        ),
        flow=Flow(flow * weights[..., None], weights),
        test=PosedImages(
            test,
            ball(test, centers.repeat(2, 1)),
            times.repeat(2),
            frames.repeat(2),
            torch.arange(1, 3).repeat_interleave(FRAMES),
        ),
    )
