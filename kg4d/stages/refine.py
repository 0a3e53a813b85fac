"""Refine stage: colours are fine-tuned on the reference video; geometry and motion are frozen."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kg4d.data.batches.refine import RefineBatch, RefineDataConfig
from kg4d.gaussians.model import GaussianModel
from kg4d.losses.photometric import PhotometricConfig, photometric_loss
from kg4d.optim.schedules import exponential, set_learning_rates
from kg4d.render.base import Renderer
from kg4d.stages.base import Stage, psnr_of
from kg4d.stages.objective import Objective


@dataclass
class RefineConfig:
    """The refine stage.

    Attributes:
        steps: Optimiser steps; 0 leaves the stage out.
        data: Images drawn at each step.
        learning_rate: Adam rate of the colours.
        final_factor: Factor that the rate falls to.
        photometric: The image loss, for both kinds of images.
    """

    steps: int = 50
    data: RefineDataConfig = field(default_factory=RefineDataConfig)
    learning_rate: float = 2e-3
    final_factor: float = 0.2
    photometric: PhotometricConfig = field(default_factory=PhotometricConfig)


class RefineStage(Stage[RefineBatch]):
    """Fine-tunes the colours of `model`.

    Args:
        model: The Gaussians.
        deformation: Moves them; frozen.
        renderer: Draws them.
        config: This stage.
        background: Colour behind the Gaussians.
        seed: Unused by this stage's objective, kept with the run's other seeds.
    """

    name = "refine"
    background: torch.Tensor

    def __init__(
        self,
        model: GaussianModel,
        deformation: nn.Module,
        renderer: Renderer,
        config: RefineConfig,
        background: Tensor,
        seed: int,
    ) -> None:
        super().__init__(renderer, config.steps, seed)
        self.model = model.requires_grad_(False)
        model.colors.requires_grad_(True)
        self.deformation = deformation.requires_grad_(False)
        self.config = config
        self.register_buffer("background", background, persistent=False)

    def configure_optimizers(self) -> Optimizer:
        """Adam on the colours alone."""
        group = {"params": [self.model.colors], "lr": self.config.learning_rate, "name": "colors"}
        return torch.optim.Adam([group], eps=1e-15)

    def schedule(self, optimizer: Optimizer, step: int) -> None:
        """Exponential decay."""
        factor = exponential(step / max(1, self.steps), self.config.final_factor)
        set_learning_rates(optimizer, {"colors": self.config.learning_rate}, factor)

    def objective(self, batch: RefineBatch, objective: Objective) -> None:
        """Image loss of the drawn frames and of the drawn views."""
        canonical, frames, views = self.model.state(), batch.frames, batch.views
        with torch.no_grad():
            geometry = self.deformation(canonical, frames.times)
            first = self.deformation(canonical, frames.times.new_zeros(1))
        self.clock.mark("deformation")
        outputs = [
            self.renderer(geometry.at(b, canonical), frames.cameras[b], background=self.background)
            for b in range(len(frames.times))
        ]
        targets, mattes = [frames.images], [frames.alphas]
        if views is not None:
            outputs.append(self.renderer(first.at(0, canonical), views.cameras, background=self.background))
            targets.append(views.images)
            mattes.append(views.alphas)
        images, target = torch.cat([output.image for output in outputs]), torch.cat(targets)
        alphas = torch.cat([output.alpha for output in outputs])
        self.renders += len(images)
        self.clock.mark("render")
        config = self.config.photometric
        loss = photometric_loss(images, target, alphas, torch.cat(mattes), config)
        objective.add("photometric", loss, config.weight)
        objective.terms["psnr"] = psnr_of(images, target)
