"""Nodes of a glTF file and how a clip moves them.

Source: glTF 2.0 specification, sections 3.5.3 (transformations) and 3.11, appendix C (interpolation).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from kg4d.geometry.rotations import quat_to_matrix, slerp


class Interpolation(StrEnum):
    """How a channel goes from one key to the next."""

    STEP = "STEP"
    LINEAR = "LINEAR"
    CUBICSPLINE = "CUBICSPLINE"


@dataclass(frozen=True)
class Nodes:
    """The N nodes of a file at rest, float64.

    Attributes:
        names: Their names, all different.
        parents: Index of the parent, -1 for roots.
        order: All indices, parents before their children.
        translations: Relative to the parent.
        quats: Rotations relative to the parent, wxyz.
        scales: Relative to the parent.
        matrices: In their place for nodes that are given as matrices; NaN for the others.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    order: tuple[int, ...]
    translations: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    scales: Float[Tensor, "N 3"]
    matrices: Float[Tensor, "N 4 4"]


@dataclass(frozen=True)
class Channel:
    """What moves one property of one node.

    Attributes:
        node: Its index.
        path: `translation`, `rotation` or `scale`.
        times: Of the keys, ascending, seconds.
        values: At the keys, rotations as wxyz. Cubic splines have three rows a key: the tangent towards it, the value,
            the tangent away from it, both tangents a second.
        interpolation: Between the keys.
    """

    node: int
    path: str
    times: Float[Tensor, " k"]
    values: Float[Tensor, "k parts D"]  # 3 parts for cubic splines, else 1
    interpolation: Interpolation

    def at(self, times: Float[Tensor, " T"]) -> Float[Tensor, "T D"]:
        """The property at some times, seconds; before the first and after the last key as there."""
        values = self.values[:, self.values.shape[1] // 2]
        if len(self.times) == 1:
            return values.expand(len(times), -1)
        before = (torch.searchsorted(self.times, times, right=True) - 1).clamp(0, len(self.times) - 2)
        span = self.times[before + 1] - self.times[before]
        share = ((times - self.times[before]) / span).clamp(0, 1)
        start, end, u = values[before], values[before + 1], share[:, None]
        match self.interpolation:
            case Interpolation.STEP:
                return torch.where(u < 1, start, end)
            case Interpolation.LINEAR:
                return slerp(start, end, share) if self.path == "rotation" else torch.lerp(start, end, u)
            case Interpolation.CUBICSPLINE:
                leaving, arriving = self.values[before, 2], self.values[before + 1, 0]
                curve = (2 * u**3 - 3 * u**2 + 1) * start + (3 * u**2 - 2 * u**3) * end
                tangents = (u**3 - 2 * u**2 + u) * leaving + (u**3 - u**2) * arriving
                result: Tensor = curve + span[:, None] * tangents
                return normalize(result, dim=-1) if self.path == "rotation" else result


@dataclass(frozen=True)
class Clip:
    """An animation: its name, and what it moves."""

    name: str
    channels: tuple[Channel, ...]

    @property
    def span(self) -> tuple[float, float]:
        """From the first to the last key, seconds."""
        times = torch.cat([channel.times for channel in self.channels])
        return float(times.min()), float(times.max())


def node_matrices(nodes: Nodes, clip: Clip, times: Float[Tensor, " T"]) -> Float[Tensor, "T N 4 4"]:
    """From the axes of each node to the file's world, at some times of a clip, seconds."""
    count = len(times)
    places, turns, sizes = (part.repeat(count, 1, 1) for part in (nodes.translations, nodes.quats, nodes.scales))
    parts = {"translation": places, "rotation": turns, "scale": sizes}
    for channel in clip.channels:
        parts[channel.path][:, channel.node] = channel.at(times)
    local = torch.zeros(count, len(nodes.names), 4, 4, dtype=torch.float64)
    local[..., :3, :3] = quat_to_matrix(turns) * sizes[..., None, :]
    local[..., :3, 3], local[..., 3, 3] = places, 1
    fixed = ~nodes.matrices.isnan().any(-1).any(-1)
    local[:, fixed] = nodes.matrices[fixed]
    return _chained(local, nodes.parents, nodes.order)


def _chained(local: Float[Tensor, "T N 4 4"], parents: Sequence[int], order: Sequence[int]) -> Float[Tensor, "T N 4 4"]:
    whole = local.clone()
    for node in order:
        if parents[node] >= 0:
            whole[:, node] = whole[:, parents[node]] @ local[:, node]
    return whole
