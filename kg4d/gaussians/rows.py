"""Gaussians as parameters whose number of rows may change from step to step."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer


class GaussianRows(nn.Module, ABC):
    """N Gaussians as one parameter per property, so that each can have its own learning rate.

    An optimiser holds one group for each parameter. Edits of the number of Gaussians go through `replace_parameters`,
    which keeps the optimiser in step; every other tensor of a model (networks, grids) must not be indexed by Gaussian.

    Attributes:
        NAMES: Of the parameters, in order; each has N rows.
        FREE_WIDTHS: Those whose number of columns a checkpoint may change too.
        means: (N, D), in a space of D dimensions.
        log_scales: (N, D), or fewer columns where axes are tied.
        opacity_logits: (N,).
    """

    NAMES: ClassVar[tuple[str, ...]]
    FREE_WIDTHS: ClassVar[tuple[str, ...]] = ()
    means: nn.Parameter
    log_scales: nn.Parameter
    opacity_logits: nn.Parameter

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        """Copy `values`, one tensor for each name in `NAMES`.

        Raises:
            ValueError: A name is missing or unknown, or the tensors differ in their number of rows.
        """
        super().__init__()
        if set(values) != set(self.NAMES):
            raise ValueError(f"need exactly the parameters {', '.join(self.NAMES)}, got {', '.join(values)}")
        _common_length(values)
        for name in self.NAMES:
            self.register_parameter(name, nn.Parameter(values[name].detach().clone().contiguous()))

    def __len__(self) -> int:
        return self.means.shape[0]

    @abstractmethod
    def draws(self, rows: Int[Tensor, " M"], generator: torch.Generator) -> Float[Tensor, "M D"]:
        """A point drawn from each of the given Gaussians, relative to its centre."""

    @abstractmethod
    def extents(self) -> Float[Tensor, " N"]:
        """How long the longest axis of each is in space: its standard deviation, world units."""

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
        if unknown := set(values) - set(self.NAMES):
            raise ValueError(f"unknown parameters {', '.join(sorted(unknown))}")
        _common_length({name: values.get(name, getattr(self, name)) for name in self.NAMES})
        for name, value in values.items():
            old = self.get_parameter(name)
            new = nn.Parameter(value.detach().clone().contiguous(), requires_grad=old.requires_grad)
            setattr(self, name, new)
            if optimizer is not None:
                _swap(optimizer, old, new, inherit)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take over the checkpoint's number of Gaussians.

        The `Parameter` objects stay, so that optimisers keep them; no graph may still need their old shape.
        """
        for name in self.NAMES:
            value, own = state_dict.get(prefix + name), self.get_parameter(name)
            if not isinstance(value, Tensor) or value.shape == own.shape or value.ndim != own.ndim:
                continue
            if value.shape[1:] == own.shape[1:] or name in self.FREE_WIDTHS:
                own.data, own.grad = own.data.new_empty(value.shape), None
        super()._load_from_state_dict(state_dict, prefix, *args)


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
