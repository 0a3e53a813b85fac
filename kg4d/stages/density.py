"""When to edit the set of Gaussians, and which: the policy between the optimiser's steps."""

from typing import Any, NamedTuple, assert_never

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.optim import Optimizer

from kg4d.gaussians import edits
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.rows import GaussianRows
from kg4d.geometry.cameras import Cameras, image_size
from kg4d.render.base import RenderOutput
from kg4d.stages.settings import DensityConfig, DensityKind
from kg4d.utils.ranks import ALONE, Ranks

_WITH_TIME = 4  # columns of centres in space and time


class DensityReport(NamedTuple):
    """How many Gaussians one call edited."""

    duplicated: int = 0
    split: int = 0
    removed: int = 0
    relocated: int = 0


class DensityControl:
    """Applies a `DensityConfig` to one stage. Its state follows the Gaussians; save and load it with the optimiser's.

    Attributes:
        gradient_sums: Per Gaussian, the norms of the screen gradients since the last edit. Empty unless adaptive.
        visits: Per Gaussian, the number of cameras that saw it since then. Empty unless adaptive.
        time_sums: Per Gaussian in space and time, the absolute gradients of its time since then. Empty for others.
        time_steps: Of how many steps.
    """

    def __init__(self, config: DensityConfig, steps: int, key: str = "static.density") -> None:
        """Prepare for a stage of `steps` steps; `key` is where the config stands.

        Raises:
            ValueError: The schedule is impossible (`DensityConfig.check`).
        """
        config.check(key)
        self.config = config
        self.gradient_sums = torch.zeros(0)
        self.visits = torch.zeros(0)
        self.time_sums, self.time_steps = torch.zeros(0), 0
        self._safe_opacity = min(0.99, 2 * config.opacity_threshold)  # so that no edit alone kills what it lowers
        self._edits = _schedule(config.start, config.stop, config.every, steps)
        reset = config.opacity_reset_every
        self._resets = _schedule(config.start + reset, config.stop, reset, steps) if reset > 0 else frozenset()

    @property
    def wants_absgrad(self) -> bool:
        """Whether renders must be made with `absgrad=True`."""
        return self.config.kind is DensityKind.ADAPTIVE and self.config.absgrad

    @torch.no_grad()
    def after_backward(self, output: RenderOutput, ranks: Ranks = ALONE, share: float = 1.0) -> None:
        """Take in the screen gradients of one render of the whole set; a no-op unless adaptive.

        Args:
            output: The render, after the backward pass.
            ranks: The processes that share a step's cameras out: all take in what any of them has seen.
            share: What the mean over this render's cameras weighs in the mean over the processes.
        """
        if self.config.kind is not DensityKind.ADAPTIVE:
            return
        gradient = output.means2d.absgrad if self.config.absgrad else output.means2d.grad  # type: ignore[attr-defined]
        self._take_in(gradient, output, ranks, share)

    @torch.no_grad()
    def after_frames(
        self, moving: MovingGaussians, cameras: Cameras, output: RenderOutput, ranks: Ranks = ALONE, share: float = 1.0
    ) -> None:
        """Take in the gradients of moved centres, as they show on the screen, after the backward pass.

        A render of frames keeps no gradient of what it projects. A centre that moves across the line of sight moves by
        the focal length over the depth as many pixels, so its gradient is that of the pixels by the same factor.

        Args:
            moving: At B or more times; their centres have kept their gradient.
            cameras: Of the first B times.
            output: The render of these.
            ranks: As for `after_backward`.
            share: As for `after_backward`.
        """
        if self.config.kind is not DensityKind.ADAPTIVE:
            return
        gradient = moving.means.grad
        if gradient is not None:
            means, gradient = moving.means[: len(cameras)], gradient[: len(cameras)]
            rotations, translations = cameras.viewmats[:, :3, :3], cameras.viewmats[:, None, :3, 3]
            depths = (means @ rotations.mT + translations)[..., 2:].clamp_min(0)
            focal = cameras.Ks[:, None, [0, 1], [0, 1]]
            gradient = (gradient @ rotations.mT)[..., :2] * depths / focal
        self._take_in(gradient, output, ranks, share)

    def _take_in(
        self, gradient: Float[Tensor, "C N 2"] | None, output: RenderOutput, ranks: Ranks, share: float
    ) -> None:
        if gradient is None:
            if ranks.count == 1:
                return
            gradient = torch.zeros_like(output.means2d)
        cameras, height, width = output.image.shape[:3]
        # losses are means over the cameras, so one camera's share is 1 / cameras
        each = cameras / share if share > 0 else 0.0
        norms = (gradient * (0.5 * each * image_size(gradient, width, height))).norm(dim=-1)
        seen = (output.radii > 0).all(-1) & (share > 0)
        if len(self.visits) != norms.shape[1]:
            self._clear(norms.shape[1], norms.device)
        if self.visits.device != norms.device:  # they come from a checkpoint, which is read on the CPU
            self.gradient_sums, self.visits = self.gradient_sums.to(norms), self.visits.to(norms)
        sums = (norms * seen).sum(0)
        both = ranks.total(torch.stack([sums, seen.sum(0).to(sums)]))
        self.gradient_sums += both[0]
        self.visits += both[1]

    def before_step(self, model: GaussianRows | None) -> None:
        """Take in the gradients of the centres along time, where Gaussians have a time.

        The processes of a fit have averaged them by then.
        """
        if self.config.kind is not DensityKind.ADAPTIVE or self.config.time_grad_threshold <= 0 or model is None:
            return
        gradient = model.means.grad
        if gradient is None or gradient.shape[1] < _WITH_TIME:
            return
        if len(self.time_sums) != len(gradient):
            self.time_sums, self.time_steps = torch.zeros_like(gradient[:, 0]), 0
        self.time_sums = self.time_sums.to(gradient) + gradient[:, 3].abs()
        self.time_steps += 1

    def after_step(
        self, step: int, model: GaussianRows, optimizer: Optimizer, generator: torch.Generator
    ) -> DensityReport:
        """Edit the model if step `step` (from 0) of the stage is due; call it after the optimiser's step.

        Raises:
            ValueError: All Gaussians have become transparent.
        """
        report = DensityReport()
        if self.config.kind is DensityKind.NONE:
            return report
        if step in self._edits:
            report = self._edit(model, optimizer, generator)
            if (
                self.config.opacity_decay > 0
            ):  # after the edit: the decay must not hide a dead Gaussian behind its floor
                edits.decay_opacity(model, self.config.opacity_decay, self.config.opacity_floor)
        if step in self._resets:
            edits.reset_opacity(model, optimizer, self._safe_opacity)
        return report

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed stage needs to go on exactly."""
        return {
            "gradient_sums": self.gradient_sums.clone(),
            "visits": self.visits.clone(),
            "time_sums": self.time_sums.clone(),
            "time_steps": torch.tensor(self.time_steps),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.gradient_sums, self.visits = state["gradient_sums"].clone(), state["visits"].clone()
        if "time_sums" in state:  # checkpoints of earlier versions have none
            self.time_sums, self.time_steps = state["time_sums"].clone(), int(state["time_steps"])

    def _edit(self, model: GaussianRows, optimizer: Optimizer, generator: torch.Generator) -> DensityReport:
        dead = model.opacity_logits.detach().sigmoid() < self.config.opacity_threshold
        match self.config.kind:
            case DensityKind.NONE:
                return DensityReport()
            case DensityKind.RELOCATE:
                edits.relocate(model, optimizer, dead, generator)
                return DensityReport(relocated=int(dead.sum()))
            case DensityKind.ADAPTIVE:
                edits.remove(model, optimizer, dead)
                duplicated, halved = self._grow(model, optimizer, ~dead, generator)
                self._clear(len(model), model.means.device)
                return DensityReport(duplicated, halved, int(dead.sum()))
            case _:
                assert_never(self.config.kind)

    def _grow(
        self, model: GaussianRows, optimizer: Optimizer, survivors: Bool[Tensor, " N"], generator: torch.Generator
    ) -> tuple[int, int]:
        """Duplicate or split those with the largest mean gradients; returns how many of each."""
        if len(self.visits) != len(survivors):
            return 0, 0
        gradients = (self.gradient_sums / self.visits.clamp_min(1))[survivors]
        chosen = _largest(gradients, self.config.grad_threshold, self.config.max_count - len(model))
        large = model.extents() > self.config.split_scale
        if len(self.time_sums) == len(survivors):
            late = (self.time_sums / max(1, self.time_steps))[survivors] > self.config.time_grad_threshold
            room = max(0, self.config.max_count - len(model) - int(chosen.sum()))
            late &= late.cumsum(0) <= room
            chosen, large = chosen | late, large | late
        small, large = chosen & ~large, chosen & large
        duplicated, halved = int(small.sum()), int(large.sum())
        if duplicated:
            edits.duplicate(model, optimizer, small, self._safe_opacity)
        if halved:
            mask = torch.cat([large, large.new_zeros(duplicated)])
            edits.split(model, optimizer, mask, generator, self._safe_opacity)
        return duplicated, halved

    def _clear(self, count: int, device: torch.device) -> None:
        self.gradient_sums = torch.zeros(count, device=device)
        self.visits = torch.zeros(count, device=device)
        self.time_sums, self.time_steps = torch.zeros(0, device=device), 0


def _schedule(start: float, stop: float, every: float, steps: int) -> frozenset[int]:
    """The steps nearest to the shares start, start + every, ... up to stop.

    >>> sorted(_schedule(0.2, 0.7, 0.1, 500))
    [100, 150, 200, 250, 300, 350]
    """
    count = int((stop - start) / every + 1e-9) + 1 if stop >= start else 0
    return frozenset(round((start + i * every) * steps) for i in range(count))


def _largest(values: Float[Tensor, " N"], threshold: float, limit: int) -> Bool[Tensor, " N"]:
    """Mask of the values above the threshold, the `limit` largest of them at most."""
    mask = values > threshold
    if int(mask.sum()) > limit:
        mask = torch.zeros_like(mask)
        mask[values.topk(max(0, limit)).indices] = True
    return mask
