"""The Gaussians that training changes: raw, unbounded parameters whose number N may change from step to step."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kg4d.gaussians.rows import GaussianRows
from kg4d.gaussians.settings import RATED, LearningRates
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.degrees import MOST_DEGREE, harmonics_count
from kg4d.geometry.rotations import quat_rotate
from kg4d.optim.build import ParameterGroup

PARAMETERS = (*RATED, "keypoint_logits", "skinning_logits", "harmonics")
"""Names of the per-Gaussian tensors, in order; each has N rows. Nothing else may depend on N."""

_HARMONICS_RATE = 1 / 20  # of the colours' learning rate (Kerbl et al. 2023)


class GaussianModel(GaussianRows):
    """N Gaussians at one time, or at rest.

    Attributes:
        means: (N, 3), world units.
        quats: (N, 4), (w, x, y, z), not normalised.
        log_scales: (N, 3), or (N, 1) for Gaussians that are kept isotropic.
        opacity_logits: (N,).
        colors: (N, 3), as rendered, without what depends on the direction of sight.
        keypoint_logits: (N, J).
        skinning_logits: (N, K); K is 0 until a skinned motion starts.
        harmonics: (N, H, 3), above degree 0; H is 0 where colours do not depend on the direction of sight.
    """

    NAMES = PARAMETERS
    FREE_WIDTHS = ("skinning_logits",)
    quats: nn.Parameter
    colors: nn.Parameter
    keypoint_logits: nn.Parameter
    skinning_logits: nn.Parameter
    harmonics: nn.Parameter

    @classmethod
    def from_state(cls, state: GaussianState, isotropic: bool = False) -> "GaussianModel":
        """The raw parameters of activated Gaussians; `isotropic` ties the three scales at their geometric mean."""
        quats, scales = state.ellipsoids
        log_scales = scales.log()
        return cls(
            {
                "means": state.means,
                "quats": quats,
                "log_scales": log_scales.mean(-1, keepdim=True) if isotropic else log_scales,
                "opacity_logits": torch.logit(state.opacities, eps=1e-6),
                "colors": state.colors,
                "keypoint_logits": state.keypoint_logits,
                "skinning_logits": state.means.new_zeros(len(state), 0)
                if state.skinning_logits is None
                else state.skinning_logits,
                "harmonics": _none_of(state.means) if state.harmonics is None else state.harmonics,
            }
        )

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor], prefix: str) -> "GaussianModel":
        """The model whose state dict, as kept by this or an earlier version, is in `weights` below `prefix`.

        Raises:
            KeyError: A tensor is missing.
        """
        kept = {prefix + "harmonics": _none_of(weights[prefix + "means"]), **weights}
        return cls({name: kept[prefix + name] for name in PARAMETERS})

    def state(self, sh_degree: int = MOST_DEGREE) -> GaussianState:
        """The activated Gaussians, differentiable; quaternions are passed on as they are, not normalised.

        Args:
            sh_degree: Harmonics of higher degrees are left out.
        """
        harmonics = self.harmonics[:, : harmonics_count(sh_degree)]
        return GaussianState(
            means=self.means,
            quats=self.quats,
            scales=self.log_scales.exp().expand(-1, 3),
            opacities=self.opacity_logits.sigmoid(),
            colors=self.colors,
            keypoint_logits=self.keypoint_logits,
            skinning_logits=self.skinning_logits if self.skinning_logits.shape[1] else None,
            harmonics=harmonics if harmonics.shape[1] else None,
        )

    @torch.no_grad()
    def draws(self, rows: Int[Tensor, " M"], generator: torch.Generator) -> Float[Tensor, "M 3"]:
        """A point drawn from each of the given Gaussians, relative to its centre."""
        local = torch.randn(len(rows), 3, generator=generator).to(self.means) * self.log_scales[rows].exp()
        return quat_rotate(self.quats[rows], local)

    @torch.no_grad()
    def extents(self) -> Float[Tensor, " N"]:
        """The longest of the scales of each."""
        return self.log_scales.exp().amax(-1)

    def parameter_groups(self, rates: LearningRates) -> list[ParameterGroup]:
        """What the images show of the Gaussians, one group a tensor: edits of their number edit the state of each."""
        shape = [ParameterGroup(name, [self.get_parameter(name)], getattr(rates, name)) for name in RATED[:-1]]
        return [*shape, *self.color_groups(rates.colors)]

    def color_groups(self, rate: float) -> list[ParameterGroup]:
        """The colours, and the harmonics where there are any.

        Args:
            rate: Of the colours.
        """
        return color_groups(self.colors, self.harmonics, rate)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Checkpoints of earlier versions know no harmonics; a model that has none of them takes these too."""
        means = state_dict.get(prefix + "means")
        if isinstance(means, Tensor) and not self.harmonics.shape[1]:
            state_dict.setdefault(prefix + "harmonics", _none_of(means))
        super()._load_from_state_dict(state_dict, prefix, *args)


def color_groups(colors: nn.Parameter, harmonics: nn.Parameter, rate: float) -> list[ParameterGroup]:
    """The colours, which learn at `rate`, and the harmonics where there are any."""
    groups = [ParameterGroup("colors", [colors], rate)]
    if harmonics.shape[1]:
        groups.append(ParameterGroup("harmonics", [harmonics], rate * _HARMONICS_RATE))
    return groups


def _none_of(means: Tensor) -> Float[Tensor, "N 0 3"]:
    """The harmonics of Gaussians that have none."""
    return means.new_zeros(len(means), 0, 3)
