"""The Gaussians that training changes: raw, unbounded parameters whose number N may change from step to step."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer

from kg4d.gaussians.state import GaussianState
from kg4d.geometry.harmonics import MOST_DEGREE, harmonics_count
from kg4d.optim.build import ParameterGroup

_RATED = ("means", "quats", "log_scales", "opacity_logits", "colors")  # each has a learning rate of its own
PARAMETERS = (*_RATED, "keypoint_logits", "skinning_logits", "harmonics")
"""Names of the per-Gaussian tensors, in order; each has N rows. Nothing else may depend on N."""

_HARMONICS_RATE = 1 / 20  # of the colours' learning rate (Kerbl et al. 2023)


@dataclass
class LearningRates:
    """Adam rates of the per-Gaussian tensors at the first step.

    Attributes:
        means: Centres, world units a step.
        quats: Rotations.
        log_scales: Scales.
        opacity_logits: Opacities.
        colors: Colours; harmonics learn at a twentieth of it.
        final_means: Factor that the rate of the centres falls to.
        final_others: Factor that the other rates fall to.
    """

    means: float = 2e-3
    quats: float = 1e-2
    log_scales: float = 1e-2
    opacity_logits: float = 5e-2
    colors: float = 2e-2
    final_means: float = 0.05
    final_others: float = 0.2

    def scaled(self, factor: float) -> "LearningRates":
        """All rates times a factor."""
        return replace(self, **{name: factor * getattr(self, name) for name in _RATED})


class GaussianModel(nn.Module):
    """N Gaussians as one parameter per property, so that each can have its own learning rate.

    An optimiser holds one group for each parameter. Edits of the number of Gaussians go through `replace_parameters`,
    which keeps the optimiser in step; every other tensor of a model (networks, grids) must not be indexed by Gaussian.

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

    means: nn.Parameter
    quats: nn.Parameter
    log_scales: nn.Parameter
    opacity_logits: nn.Parameter
    colors: nn.Parameter
    keypoint_logits: nn.Parameter
    skinning_logits: nn.Parameter
    harmonics: nn.Parameter

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        """Copy `values`, one tensor for each name in `PARAMETERS`.

        Raises:
            ValueError: A name is missing or unknown, or the tensors differ in their number of rows.
        """
        super().__init__()
        if set(values) != set(PARAMETERS):
            raise ValueError(f"need exactly the parameters {', '.join(PARAMETERS)}, got {', '.join(values)}")
        _common_length(values)
        for name in PARAMETERS:
            self.register_parameter(name, nn.Parameter(values[name].detach().clone().contiguous()))

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

    def __len__(self) -> int:
        return self.means.shape[0]

    def parameter_groups(self, rates: LearningRates) -> list[ParameterGroup]:
        """What the images show of the Gaussians, one group a tensor: edits of their number edit the state of each."""
        shape = [ParameterGroup(name, [self.get_parameter(name)], getattr(rates, name)) for name in _RATED[:-1]]
        return [*shape, *self.color_groups(rates.colors)]

    def color_groups(self, rate: float) -> list[ParameterGroup]:
        """The colours, and the harmonics where there are any.

        Args:
            rate: Of the colours.
        """
        groups = [ParameterGroup("colors", [self.colors], rate)]
        if self.harmonics.shape[1]:
            groups.append(ParameterGroup("harmonics", [self.harmonics], rate * _HARMONICS_RATE))
        return groups

    @torch.no_grad()
    def replace_parameters(
        self,
        values: Mapping[str, Tensor],
        optimizer: Optimizer | None = None,
        inherit: Int[Tensor, " M"] | None = None,
    ) -> None:
        """Replace the named `Parameter` objects by new ones, here and in the optimiser that holds them.

        Args:
            values: New values by parameter name; after the call all parameters must have the same number of rows.
            optimizer: Its groups get the new objects. Its step counts stay.
            inherit: For each new row the old row whose moments (running averages) it takes over, or -1 to start from
                zero. All start from zero when None.

        Raises:
            ValueError: A name is unknown, or the numbers of rows would differ.
        """
        if unknown := set(values) - set(PARAMETERS):
            raise ValueError(f"unknown parameters {', '.join(sorted(unknown))}")
        _common_length({name: values.get(name, getattr(self, name)) for name in PARAMETERS})
        for name, value in values.items():
            old = self.get_parameter(name)
            new = nn.Parameter(value.detach().clone().contiguous(), requires_grad=old.requires_grad)
            setattr(self, name, new)
            if optimizer is not None:
                _swap(optimizer, old, new, inherit)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take over the checkpoint's number of Gaussians, and of frames that they follow.

        The `Parameter` objects stay, so that optimisers keep them; no graph may still need their old shape. Checkpoints
        of earlier versions know no harmonics; a model that has none of them takes these checkpoints too.
        """
        means = state_dict.get(prefix + "means")
        if isinstance(means, Tensor) and not self.harmonics.shape[1]:
            state_dict.setdefault(prefix + "harmonics", _none_of(means))
        for name in PARAMETERS:
            value, own = state_dict.get(prefix + name), self.get_parameter(name)
            if not isinstance(value, Tensor) or value.shape == own.shape:
                continue
            if value.shape[1:] == own.shape[1:] or (name == "skinning_logits" and value.ndim == 2):
                own.data, own.grad = own.data.new_empty(value.shape), None
        super()._load_from_state_dict(state_dict, prefix, *args)


def _none_of(means: Tensor) -> Float[Tensor, "N 0 3"]:
    """The harmonics of Gaussians that have none."""
    return means.new_zeros(len(means), 0, 3)


def _common_length(values: Mapping[str, Tensor]) -> int:
    lengths = {name: value.shape[0] for name, value in values.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"all parameters need the same number of rows, got {lengths}")
    return next(iter(lengths.values()))


def _swap(optimizer: Optimizer, old: nn.Parameter, new: nn.Parameter, inherit: Tensor | None) -> None:
    """Let `optimizer` train `new` instead of `old`; a parameter that it does not hold is left alone."""
    for group in optimizer.param_groups:
        for index, parameter in enumerate(group["params"]):
            if parameter is old:
                group["params"][index] = new
    state = optimizer.state.pop(old, None)
    if state is not None:
        optimizer.state[new] = {
            key: _rows(value, new, inherit) if isinstance(value, Tensor) and value.shape == old.shape else value
            for key, value in state.items()
        }


def _rows(moment: Tensor, new: nn.Parameter, inherit: Tensor | None) -> Tensor:
    if inherit is None:
        return torch.zeros_like(new, requires_grad=False)
    rows = moment[inherit.clamp_min(0)]
    rows[inherit < 0] = 0
    return rows
