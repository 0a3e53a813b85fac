"""HexPlane: six learned planes over the pairs of (x, y, z, t), multiplied, as in 4DGS (Wu et al. 2024) and DG4D."""

from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kg4d.deform.base import Deformation
from kg4d.deform.encoding import HSE
from kg4d.deform.extent import Extent
from kg4d.deform.offsets import OffsetMlp, anchored, apply_offsets
from kg4d.deform.settings import HexPlaneConfig
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState
from kg4d.optim.build import ParameterGroup
from kg4d.optim.objective import Objective

_PLANES = list(combinations(range(4), 2))  # axis 3 is time


class HexPlane(nn.Module):
    """Features of (mu, t): at each level the product over six planes of their bilinear samples; levels side by side.

    Space planes start uniform in [0.1, 0.5], time planes at one, so that at first nothing depends on time.
    """

    def __init__(self, config: HexPlaneConfig, scene_radius: float, generator: torch.Generator) -> None:
        """The grids span [-scene_radius, scene_radius]³ (world units) and [0, 1]; their border values hold beyond."""
        super().__init__()
        if not config.levels:
            raise ValueError("need at least one level")
        self.extent = Extent(scene_radius)
        self.config, self.learning_rate = config, config.learning_rate
        self.width = config.channels * len(config.levels)
        self.levels = nn.ModuleList()
        for factor in config.levels:
            sizes = [config.resolution * factor] * 3 + [config.time_resolution]
            planes = [torch.ones(1, config.channels, sizes[second], sizes[first]) for first, second in _PLANES]
            for plane, (_, second) in zip(planes, _PLANES, strict=True):
                if second < 3:
                    plane.uniform_(0.1, 0.5, generator=generator)
            self.levels.append(nn.ParameterList(planes))

    def forward(self, means: Float[Tensor, "N 3"], times: Float[Tensor, " B"]) -> Float[Tensor, "B N F"]:
        """Features of positions in world units at times in [0, 1]."""
        space = means / self.extent.radius
        shape = (len(times), len(means), 1)
        grid = torch.cat([space.expand(*shape[:2], 3), (2 * times - 1)[:, None, None].expand(shape)], dim=-1)
        return torch.cat([_product(level, space, grid) for level in self.levels], dim=-1)

    def regularisers(self, objective: Objective) -> None:
        """Smoothness of the planes, summed over planes and levels.

        Sources: Fridovich-Keil et al. 2023, K-Planes, section 3.2; Wu et al. 2024, 4D Gaussian Splatting, section 4.3.
        """
        config = self.config
        if not (config.space_variation or config.time_curvature or config.time_change):
            return
        space: list[Tensor] = []
        curvature: list[Tensor] = []
        change: list[Tensor] = []
        for level in self.levels:
            for plane, axes in zip(level.parameters(), _PLANES, strict=True):
                if 3 in axes:  # time runs along the rows
                    curvature.append(plane.diff(n=2, dim=2).square().mean())
                    change.append((plane - 1).abs().mean())
                space.extend(plane.diff(dim=dim).square().mean() for dim in ((3,) if 3 in axes else (2, 3)))
        for name, terms, weight in (
            ("space_variation", space, config.space_variation),
            ("time_curvature", curvature, config.time_curvature),
            ("time_change", change, config.time_change),
        ):
            if weight > 0:
                objective.add(name, torch.stack(terms).sum(), weight)


def _product(planes: nn.Module, space: Float[Tensor, "N 3"], grid: Float[Tensor, "B N 4"]) -> Float[Tensor, "B N F"]:
    """Product over the planes; those without time are sampled once for all times."""
    still, moving = torch.ones((), device=space.device), torch.ones((), device=space.device)
    for plane, axes in zip(planes.parameters(), _PLANES, strict=True):
        if 3 in axes:
            moving = moving * _sample(plane, torch.stack([grid[..., axis] for axis in axes], dim=-1))
        else:
            still = still * _sample(plane, torch.stack([space[None, :, axis] for axis in axes], dim=-1))
    return still * moving


def _sample(plane: Float[Tensor, "1 F V U"], points: Float[Tensor, "B N 2"]) -> Float[Tensor, "B N F"]:
    """Bilinear samples at (u, v) in [-1, 1]; -1 and 1 are the centres of the outermost grid points."""
    samples: Tensor = nn.functional.grid_sample(
        plane, points.flatten(0, 1)[None, None], padding_mode="border", align_corners=True
    )
    return samples[0, :, 0].mT.reshape(*points.shape[:2], -1)


class HexPlaneMlp(Deformation):
    """Offsets as a function of HexPlane features, beside HSE(mu, t) or alone; the positions read are detached."""

    def __init__(
        self, planes: HexPlane, encoding: HSE | None, mlp: OffsetMlp, anchor_first: bool, learning_rate: float
    ) -> None:
        super().__init__()
        self.planes = planes
        self.encoding = encoding
        self.mlp = mlp
        self.anchor_first = anchor_first
        self.learning_rate = learning_rate

    def parameter_groups(self) -> list[ParameterGroup]:
        """The network, and the planes at a rate of their own."""
        return [
            ParameterGroup("network", list(self.mlp.parameters()), self.learning_rate),
            ParameterGroup("grid", list(self.planes.parameters()), self.planes.learning_rate),
        ]

    def regularisers(self, objective: Objective, times: Float[Tensor, " B"]) -> None:
        """Those of the planes."""
        self.planes.regularisers(objective)

    def forward(self, canonical: GaussianState, times: Float[Tensor, " B"]) -> MovingGaussians:
        """Move the canonical Gaussians to `times`."""
        means = canonical.means.detach()
        space = None if self.encoding is None else self.encoding.space(means)

        def offsets_at(times: Float[Tensor, " R"]) -> Float[Tensor, "R N O"]:
            time = None if self.encoding is None else self.encoding.time(times)
            offsets: Tensor = self.mlp(space, time, self.planes(means, times))
            return offsets

        offsets = anchored(offsets_at, times) if self.anchor_first else offsets_at(times)
        return apply_offsets(MovingGaussians.still(canonical, len(times)), offsets)
