"""What many tests start from: Gaussians, the optimiser of a model, cameras, and a tiny scene.

Everything is a pure function of its arguments, and as small as a test can use.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kg4d.data.records import Flow, Keypoints, PosedImages, Scene
from kg4d.gaussians.model import PARAMETERS, GaussianModel
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.degrees import harmonics_count
from kg4d.geometry.orbits import orbit
from kg4d.geometry.sampling import pixel_centers

Values = Tensor | Sequence[float] | float


def gaussians(
    means: Tensor,
    *,
    quats: Values = (1.0, 0.0, 0.0, 0.0),
    scales: Values = 0.05,
    opacities: Values = 0.9,
    colors: Values = 1.0,
    keypoint_logits: Tensor | None = None,
    skinning_logits: Tensor | None = None,
) -> GaussianState:
    """Gaussians at `means`, (N, 3); one value or one row of values serves all of them.

    By default they are white, nearly opaque balls without keypoints.
    """

    def rows(values: Values, *shape: int) -> Tensor:
        return torch.as_tensor(values, dtype=means.dtype).expand(len(means), *shape).clone()

    return GaussianState(
        means,
        rows(quats, 4),
        rows(scales, 3),
        rows(opacities),
        rows(colors, 3),
        means.new_zeros(len(means), 0) if keypoint_logits is None else keypoint_logits,
        skinning_logits,
    )


def random_gaussians(
    count: int,
    *,
    keypoints: int = 3,
    frames: int | None = 2,
    sh_degree: int = 1,
    spread: float = 1.0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> GaussianState:
    """Nothing is the same for two of them.

    Args:
        count: How many.
        keypoints: Number of keypoints.
        frames: Number of frames of a skinned motion, None for a state without skinning logits.
        sh_degree: Of the spherical harmonics of the colours; 0 for a state without any.
        spread: Standard deviation of the centres.
        dtype: Of all tensors.
        seed: Another seed, other Gaussians.
    """
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=dtype)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=dtype)

    return GaussianState(
        means=spread * normal(count, 3),
        quats=3 * normal(count, 4),  # not of length 1, as in a fit
        scales=0.01 + uniform(count, 3),
        opacities=0.01 + 0.98 * uniform(count),
        colors=uniform(count, 3),
        keypoint_logits=normal(count, keypoints),
        skinning_logits=None if frames is None else normal(count, frames),
        harmonics=None if sh_degree == 0 else 0.3 * normal(count, harmonics_count(sh_degree), 3),
    )


def blobs(keypoints: int = 2) -> GaussianState:
    """One opaque Gaussian for each keypoint, apart from the others, that claims it; at most two."""
    means = torch.tensor([[-0.3, 0.2, 0.0], [0.35, -0.1, 0.1]])[:keypoints]
    claims = torch.where(torch.eye(keypoints) > 0, 2.0, -4.0)
    return gaussians(means, opacities=0.95, keypoint_logits=claims)


def trained_optimizer(model: GaussianModel, steps: int = 2) -> torch.optim.Adam:
    """An optimiser of the model with moments that differ from row to row."""
    groups = [{"params": [model.get_parameter(name)], "name": name, "lr": 1e-3} for name in PARAMETERS]
    optimizer = torch.optim.Adam(groups)
    for _ in range(steps):
        optimizer.zero_grad()
        sum((model.get_parameter(name) ** 2).sum() for name in PARAMETERS).backward()
        optimizer.step()
    return optimizer


def cameras(
    azimuths: Sequence[float] = (0.0,), elevations: Sequence[float] | None = None, *, size: int | tuple[int, int]
) -> Cameras:
    """Cameras as usual: 2 away from the origin, 49.1 degrees of view; `size` is a side or (width, height), px."""
    width, height = (size, size) if isinstance(size, int) else size
    return orbit(azimuths, [0.0] * len(azimuths) if elevations is None else elevations, 2.0, 49.1, width, height)


SIZE, FRAMES, RING, JOINTS = 16, 4, 6, 3  # of the tiny scene
RADIUS = 0.4


def tiny_scene() -> Scene:
    """A ball that moves sideways, seen by cameras all around."""
    centers = torch.tensor([[0.05 * t, 0.0, 0.0] for t in range(FRAMES)])
    times = torch.arange(FRAMES) / (FRAMES - 1)
    frames = torch.arange(FRAMES)
    reference, ring = cameras([0.0] * FRAMES, size=SIZE), cameras([360.0 * r / RING for r in range(RING)], size=SIZE)
    test = cameras([-75.0] * FRAMES + [105.0] * FRAMES, size=SIZE)
    truth = centers[:, None] + torch.tensor([[0.0, 0.3, 0.0], [0.2, 0.0, 0.1], [-0.2, -0.1, 0.0]])
    seen = torch.ones(FRAMES, JOINTS)
    seen[1, 2] = 0
    ring_seen = torch.ones(RING, JOINTS)
    ring_seen[3, 0] = 0
    test_uv = torch.stack([test[[v * FRAMES]].project(truth).pixels[0] for v in range(2)])
    flow = torch.zeros(FRAMES - 1, SIZE, SIZE, 2)
    flow[..., 0] = 0.5
    weights = (_ball(reference, centers)[:-1, ..., 3] > 0.5).float()
    return Scene(
        name="tiny",
        reference=PosedImages(reference, _ball(reference, centers), times, frames, torch.zeros(FRAMES).long()),
        ring=PosedImages(
            ring,
            _ball(ring, centers[:1].expand(RING, 3)),
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
            _ball(test, centers.repeat(2, 1)),
            times.repeat(2),
            frames.repeat(2),
            torch.arange(1, 3).repeat_interleave(FRAMES),
        ),
    )


def _ball(views: Cameras, centers: Tensor) -> Tensor:
    """One image a camera, straight RGBA with 8-bit values: a disc whose colour varies over the image."""
    pixels = pixel_centers(views.height, views.width)
    images = []
    for camera, center in zip(range(len(views)), centers, strict=True):
        projected = views[camera].project(center)
        radius = RADIUS * views.Ks[camera, 0, 0] / projected.depths[0]
        alpha = (radius - (pixels - projected.pixels[0]).norm(dim=-1) + 0.5).clamp(0, 1)
        colors = torch.stack([pixels[..., 0], pixels[..., 1], pixels.sum(-1) / 2], dim=-1) / views.width
        images.append(torch.cat([colors * (alpha[..., None] > 0), alpha[..., None]], dim=-1))
    return (torch.stack(images) * 255).round() / 255
