"""Several processes that fit one scene together: what they tell one another, and means over what they share out.

Each takes a part of every step's batch. Whatever is drawn at random is drawn alike in all of them.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

T = TypeVar("T")


class LostRankError(RuntimeError):
    """Another process of the fit has ended before its time."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a fit, seen from one of them. By default it is alone, and nothing here does anything.

    Attributes:
        rank: Which one this is, from 0. The first one alone writes files, logs and measures.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes; no gradient flows. All of them must ask, with tensors of one shape."""
        if self.count == 1:
            return values
        summed = values.detach().clone()
        with _company():
            dist.all_reduce(summed)
        return summed

    def anywhere(self, here: bool) -> bool:
        """Whether something is so in any of them."""
        return bool(self.total(torch.tensor(float(here))) > 0)

    def told(self, thing: T) -> T:
        """What the first one says; the others' own is ignored."""
        if self.count == 1:
            return thing
        box = [thing if self.first else None]
        with _company():
            dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def wait(self) -> None:
        """Until all of them are here."""
        self.total(torch.zeros(()))

    def in_turn(self, make: Callable[[], T]) -> T:
        """What `make` returns; the first one makes its own before the others, who may find in a cache what it left."""
        made = make() if self.first else None
        self.wait()
        result = make() if made is None else made
        self.wait()
        return result

    @torch.no_grad()
    def equalise(self, module: nn.Module) -> None:
        """Give all of them the parameters and buffers of the first one: GPUs may differ by rounding."""
        if self.count > 1:
            for tensor in (*module.parameters(), *module.buffers()):
                with _company():
                    dist.broadcast(tensor.data, src=0)

    def mean_gradients(self, parameters: Iterable[nn.Parameter], drawn: int = 0) -> int:
        """Replace the gradients by their means over the processes; none counts as 0 where another one has it.

        Args:
            parameters: The same ones, in the same order, in all processes.
            drawn: How many images this one has drawn.

        Returns:
            How many images all of them have drawn.
        """
        if self.count == 1:
            return drawn
        parameters = list(parameters)
        here = [float(parameter.grad is not None) for parameter in parameters]
        known = self.total(torch.tensor([drawn, *here]))  # on the CPU, so that no GPU is waited for
        fitted = [parameter for parameter, holders in zip(parameters, known[1:].tolist(), strict=True) if holders > 0]
        if fitted:
            for parameter in fitted:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            gradients = [parameter.grad for parameter in fitted if parameter.grad is not None]
            mean = self.total(torch.cat([gradient.reshape(-1) for gradient in gradients])) / self.count
            parts = torch.split(mean, [gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.reshape(gradient.shape))
        return int(known[0])


ALONE = Ranks()

_counted: ContextVar[tuple[Ranks, bool]] = ContextVar("_counted", default=(ALONE, True))


@contextmanager
def shared_out(ranks: Ranks, counted: bool = True) -> Iterator[None]:
    """Inside, `weighted_mean` is over what all processes hold.

    Args:
        ranks: The processes; all of them must form the same means, in the same order.
        counted: Whether what this process holds counts; it may hold something only in order to join in.
    """
    token = _counted.set((ranks, counted))
    try:
        yield
    finally:
        _counted.reset(token)


def weighted_mean(values: Float[Tensor, "*P"], weights: Float[Tensor, "*P"]) -> Float[Tensor, ""]:
    """Sum of weights times values over the sum of the weights, or over 1 where they sum to less.

    Where the values are shared out (`shared_out`), the *mean over the processes* of what each gets has the value, and
    the gradient, of the mean over all values: each divides by what all weights sum to.
    """
    ranks, counted = _counted.get()
    total, weight = (weights * values).sum(), weights.sum()
    if ranks.count == 1:
        return total / weight.clamp_min(1.0)
    if not counted:
        total, weight = torch.zeros_like(total), torch.zeros_like(weight)
    all_total, all_weight = ranks.total(torch.stack([total, weight])).unbind()
    scale = ranks.count / all_weight.clamp_min(1.0)
    mean = scale * total
    if weight.requires_grad:  # its part of the derivative of the denominator, where that is not held at 1
        slope = scale * all_total / all_weight.clamp_min(1.0) * (all_weight >= 1)
        mean = mean - slope * (weight - weight.detach())
    return mean


@contextmanager
def _company() -> Iterator[None]:
    """An exchange that fails has lost a process: that one says why, not this one."""
    try:
        yield
    except RuntimeError as error:
        raise LostRankError("another process of the fit has ended") from error
