"""The step that all stages share: objective, backward, optimiser, logs, times."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import lightning
import torch
from jaxtyping import Float
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer

from kg4d.data.batches.batch import step_generator
from kg4d.data.records import Depth
from kg4d.losses.depth import depth_loss
from kg4d.losses.settings import DepthLossConfig, PhotometricConfig
from kg4d.metrics.image import PSNR
from kg4d.optim.build import ParameterGroup, build_optimizer
from kg4d.optim.objective import Objective, check_finite
from kg4d.optim.settings import OptimizerConfig
from kg4d.render.base import Renderer, RenderOutput
from kg4d.stages.checkpoints import seal
from kg4d.stages.clock import Clock
from kg4d.utils.ranks import ALONE


@runtime_checkable  # for the tests, which check arguments at run time
class Batch(Protocol):
    """Any batch: it knows which step of its stage it is for."""

    @property
    def step(self) -> int:
        """Step of the stage, from 0."""
        ...

    @property
    def share(self) -> float:
        """What a mean over its images weighs in the mean over the processes that share the step out; 1 for one."""
        ...


BatchT = TypeVar("BatchT", bound=Batch)

LOG_EVERY = 10


class Stage(lightning.LightningModule, ABC, Generic[BatchT]):
    """One stage of the fit. Manual optimisation, one optimiser; a subclass says what the objective is.

    Args:
        renderer: Draws the Gaussians.
        steps: Length of the stage.
        seed: Seed of what is drawn inside a step.
        optimizer: Which optimiser takes the steps.
    """

    name: str  # of the stage, in checkpoints and logs
    after_backward_slice = "backward"  # what the time up to the end of the backward pass is booked under
    background: Tensor  # colour behind the Gaussians, RGB in [0, 1]

    def __init__(self, renderer: Renderer, steps: int, seed: int, optimizer: OptimizerConfig) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.renderer = renderer
        self.steps = steps
        self.seed = seed
        self.optimizer_config = optimizer
        self.psnr = PSNR()  # of the images of one step, in this process
        self.psnr.sync_on_compute = False
        self.run = ""  # hash of the configuration that the checkpoints belong to
        self.clock = Clock(renderer.device)
        self.renders = 0  # of all processes
        self.ranks = ALONE  # the processes that take the steps together
        self.shown: dict[str, float] = {}  # the values that were logged last, for the progress bar

    @abstractmethod
    def parameter_groups(self) -> list[ParameterGroup]:
        """What this stage fits; everything else that it holds is frozen while it runs."""

    @abstractmethod
    def objective(self, batch: BatchT, objective: Objective) -> None:
        """Add this stage's terms for one batch."""

    @abstractmethod
    def schedule(self, optimizer: Optimizer, step: int) -> None:
        """Set the learning rates of this step."""

    def progress(self, step: int) -> float:
        """How much of the stage lies before a step, from 0 to 1."""
        return step / max(1, self.steps)

    def measure(self, drawn: Float[Tensor, "B H W 3"], target: Float[Tensor, "B H W 3"]) -> None:
        """Note how well a step's images are drawn; the mean of their PSNR is logged."""
        self.psnr.update(drawn.movedim(-1, 1), target.movedim(-1, 1))

    def backdrop(
        self, images: Float[Tensor, "B H W 3"], alphas: Float[Tensor, "B H W 1"], step: int, config: PhotometricConfig
    ) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, " 3"]]:
        """The images of a step on the background of the step, and that background.

        Args:
            images: On the background of the run.
            alphas: Their mattes.
            step: Index of the step.
            config: Whether the step has a background of its own.
        """
        if not config.random_background:
            return images, self.background
        drawn = torch.rand(3, generator=step_generator(self.seed, f"{self.name} background", step))
        background = drawn.to(self.background)
        return images + (1 - alphas) * (background - self.background), background

    def add_depth(
        self, objective: Objective, output: RenderOutput, prior: Depth | None, step: int, config: DepthLossConfig
    ) -> None:
        """Add the depth loss of a step's images, where there is a prior.

        Args:
            objective: What it is added to.
            output: The renders of the images.
            prior: Of the same images.
            step: Index of the step.
            config: The loss.
        """
        if prior is None or config.weight <= 0:
            return
        assert output.depth is not None  # it was asked for
        loss = depth_loss(
            output.depth,
            output.alpha,
            prior.depth,
            prior.weights,
            config,
            step_generator(self.seed, f"{self.name} depth", step),
            inverse=prior.inverse,
        )
        objective.add("depth", loss, config.weight)

    def begin(self) -> None:
        """Freeze what the stage does not fit; a subclass also forms what stays the same in all of its steps."""
        self.requires_grad_(False)
        for group in self.parameter_groups():
            for parameter in group.parameters:
                parameter.requires_grad_(True)

    def before_step(self) -> None:
        """Change the gradients that the optimiser is about to follow; nothing by default."""

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Hook after the optimiser has moved the parameters."""

    def configure_optimizers(self) -> Optimizer:
        """The optimiser of the stage's parameter groups."""
        return build_optimizer(self.optimizer_config, self.parameter_groups())

    def take_step(
        self,
        batch: BatchT,
        optimizer: Optimizer | LightningOptimizer,
        backward: Callable[[Tensor], None] = torch.autograd.backward,
    ) -> Objective:
        """One step, in a Trainer or without one.

        Args:
            batch: On the device of the stage.
            optimizer: From `configure_optimizers`; Lightning counts the steps of its wrapper.
            backward: Computes the gradients.

        Returns:
            What was minimised.

        Raises:
            FloatingPointError: The loss or a gradient is not finite.
        """
        bare = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        self.schedule(bare, batch.step)
        self.psnr.reset()
        objective, drawn_before = Objective(self.progress(batch.step), batch.share), self.renders
        self.objective(batch, objective)
        total = objective.total
        if total is not None:
            self.clock.mark("losses")
            backward(total)
        fitted = [parameter for group in bare.param_groups for parameter in group["params"]]
        self.renders = drawn_before + self.ranks.mean_gradients(fitted, self.renders - drawn_before)
        if total is not None:
            check_finite(total, objective.terms, self.named_parameters(), batch.step)
            self.clock.mark(self.after_backward_slice)
        self.before_step()
        optimizer.step()  # also where nothing has a gradient: Lightning counts these calls, and ends the stage by them
        optimizer.zero_grad(set_to_none=True)
        self.after_step(batch.step, bare)
        self.clock.mark("optimizer")
        return objective

    def training_step(self, batch: BatchT, batch_idx: int) -> None:
        """One step of the Trainer."""
        optimizer = self.optimizers(use_pl_optimizer=True)
        assert isinstance(optimizer, LightningOptimizer)
        self.clock.mark("loop")  # what the Trainer and the loader did since the last step
        objective = self.take_step(batch, optimizer, self.manual_backward)
        if batch.step % LOG_EVERY == 0 or batch.step == self.steps - 1:
            self._log_terms(batch.step, objective)

    def on_train_start(self) -> None:
        """Everything is on its device: begin, and let the clock run from the first step on."""
        self.begin()
        self.clock.start()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep which stage of which run this is, what it has cost, and what else it needs to go on."""
        checkpoint["kg4d"] = {"stage": self.name, "renders": self.renders, "seconds": self.clock.snapshot()}
        self.save_state(checkpoint)
        seal(checkpoint, self.run)  # the last thing: the hash is over all the rest

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting, and with what else was kept."""
        self.renders = checkpoint["kg4d"]["renders"]
        self.clock.seconds.update(checkpoint["kg4d"]["seconds"])
        self.load_state(checkpoint)

    def save_state(self, checkpoint: dict[str, Any]) -> None:
        """Put into a checkpoint what a subclass needs besides its parameters; nothing by default."""

    def load_state(self, checkpoint: Mapping[str, Any]) -> None:
        """Take it up again."""

    def _log_terms(self, step: int, objective: Objective) -> None:
        terms = {name: value.float() for name, value in objective.terms.items()}
        total = objective.total
        if total is not None or self.ranks.count > 1:
            terms["loss"] = torch.zeros_like(next(iter(terms.values()))) if total is None else total.detach()
        terms["psnr"] = self.psnr.compute() * objective.share
        stacked = torch.stack([value.reshape(()) for value in terms.values()])
        values = (self.ranks.total(stacked) / self.ranks.count).tolist()  # one read for all of them
        self.shown = dict(zip(terms, values, strict=True))
        self.record(step, self.shown)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Log values of a step. Lightning's own `log` would read all of them from the device at every step."""
        if self.logger is not None:
            self.logger.log_metrics(dict(values), step)
