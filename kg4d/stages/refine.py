"""Refine stage: colours are fine-tuned on the reference video; geometry and motion are frozen."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from kg4d.data.batches.refine import RefineBatch
from kg4d.losses.photometric import photometric_loss
from kg4d.optim.build import ParameterGroup
from kg4d.optim.objective import Objective
from kg4d.optim.schedules import exponential, set_learning_rates
from kg4d.optim.settings import OptimizerConfig
from kg4d.render.base import Renderer
from kg4d.representation.base import Representation
from kg4d.stages.base import Stage
from kg4d.stages.settings import RefineConfig

_SEEN = 0.5  # px; what weighs less, summed over all images, is not seen


class RefineStage(Stage[RefineBatch]):
    """Fine-tunes the colours of a representation.

    Args:
        representation: The moving Gaussians.
        renderer: Draws them.
        config: This stage.
        background: Colour behind the Gaussians.
        seed: Seed of what is drawn inside a step.
        optimizer: Which optimiser takes the steps; Adam when None.
        seen: Weight of each Gaussian in the images that the stage sees, px (`blending_weights`): those below half a
            pixel keep their colours. None where views show all sides.
    """

    name = "refine"

    def __init__(
        self,
        representation: Representation,
        renderer: Renderer,
        config: RefineConfig,
        background: Tensor,
        seed: int,
        optimizer: OptimizerConfig | None = None,
        seen: Float[Tensor, " N"] | None = None,
    ) -> None:
        super().__init__(renderer, config.steps, seed, optimizer or OptimizerConfig())
        self.representation = representation
        self.config = config
        self.seen = seen
        self.register_buffer("background", background, persistent=False)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The colours alone."""
        return self.representation.colour_groups(self.config.learning_rate)

    def schedule(self, optimizer: Optimizer, step: int) -> None:
        """Exponential decay."""
        set_learning_rates(optimizer, exponential(step / max(1, self.steps), self.config.final_factor))

    def before_step(self) -> None:
        """No step for what no image shows: an optimiser makes whole steps of the smallest gradients."""
        if self.seen is None:
            return
        for parameter in (p for group in self.parameter_groups() for p in group.parameters):
            if parameter.grad is not None and len(parameter) == len(self.seen):  # else it is of no single Gaussian
                parameter.grad[self.seen.to(parameter.device) < _SEEN] = 0

    def objective(self, batch: RefineBatch, objective: Objective) -> None:
        """Image loss of the drawn frames and of the drawn views."""
        frames, views = batch.frames, batch.views
        moving = self.representation.states(frames.times)
        first = self.representation.states(frames.times.new_zeros(1)).at(0)
        self.clock.mark("deformation")
        outputs, targets, mattes = [], [], []
        weights = self.config.photometric
        if frames.share > 0 or batch.share == 0:  # else another process has frames, and this one has views
            target, background = self.backdrop(frames.images, frames.alphas, batch.step, weights)
            outputs.append(self.renderer.frames(moving, frames.cameras, background=background))
            targets.append(target)
            mattes.append(frames.alphas)
        if views is not None and views.share > 0:
            target, background = self.backdrop(views.images, views.alphas, batch.step, weights)
            outputs.append(self.renderer(first, views.cameras, background=background))
            targets.append(target)
            mattes.append(views.alphas)
        images, target = torch.cat([output.image for output in outputs]), torch.cat(targets)
        alphas = torch.cat([output.alpha for output in outputs])
        self.renders += len(images)
        self.clock.mark("render")
        loss = photometric_loss(images, target, alphas, torch.cat(mattes), weights)
        objective.add("photometric", loss, weights.weight)
        self.measure(images, target)
