"""Small random models and their optimisers, shared by the tests of this room."""

import torch

from kg4d.gaussians.model import PARAMETERS, GaussianModel
from kg4d.gaussians.state import GaussianState


def random_state(count: int, keypoints: int = 3, seed: int = 0) -> GaussianState:
    generator = torch.Generator().manual_seed(seed)
    return GaussianState(
        means=torch.randn(count, 3, generator=generator),
        quats=torch.randn(count, 4, generator=generator) * 3,
        scales=torch.rand(count, 3, generator=generator) + 0.01,
        opacities=torch.rand(count, generator=generator) * 0.98 + 0.01,
        colors=torch.rand(count, 3, generator=generator),
        keypoint_logits=torch.randn(count, keypoints, generator=generator),
        skinning_logits=torch.randn(count, 2, generator=generator),
    )


def trained(model: GaussianModel, steps: int = 2) -> torch.optim.Adam:
    """An optimiser with moments that differ from row to row."""
    groups = [{"params": [model.get_parameter(name)], "name": name, "lr": 1e-3} for name in PARAMETERS]
    optimizer = torch.optim.Adam(groups)
    for _ in range(steps):
        optimizer.zero_grad()
        sum((model.get_parameter(name) ** 2).sum() for name in PARAMETERS).backward()
        optimizer.step()
    return optimizer
