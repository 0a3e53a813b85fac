"""Settings of `kg4d.stages`: plain data that is checked before torch is loaded."""

from dataclasses import dataclass, field
from enum import StrEnum

from kg4d.data.batches.settings import DynamicDataConfig, RefineDataConfig, StaticDataConfig
from kg4d.gaussians.settings import LearningRates
from kg4d.losses.settings import (
    PhotometricConfig,
)


class DensityKind(StrEnum):
    """What happens to Gaussians that contribute nothing, and where more are needed."""

    NONE = "none"
    RELOCATE = "relocate"
    ADAPTIVE = "adaptive"


@dataclass
class DensityConfig:
    """Schedule and thresholds; start, stop, every and opacity_reset_every are shares of the stage's steps.

    Attributes:
        kind: `relocate` keeps N and reuses transparent Gaussians; `adaptive` grows where the screen gradient is large
            and removes transparent ones.
        start: First edit.
        stop: Last edit.
        every: Distance of two edits.
        opacity_threshold: Gaussians below this opacity are relocated or removed.
        grad_threshold: Adaptive: grow where the mean screen gradient of the centre exceeds this. Its unit is loss per
            half image, for one camera, so it holds for every image size.
        absgrad: Adaptive: use absolute gradients (AbsGS); they need a threshold about four times as large.
        split_scale: Adaptive: Gaussians whose longest axis exceeds this are split, others duplicated. World units.
        max_count: Adaptive: N never grows beyond this.
        time_grad_threshold: Adaptive, of Gaussians in space and time: split where the mean absolute gradient of the
            centre along time exceeds this, loss per clip; 0 is never.
        opacity_reset_every: Adaptive: distance of two opacity resets within [start, stop]; 0 is never.
        opacity_decay: Taken off each opacity at each edit (FLAG-4D); 0 is off.
        opacity_floor: The decay stops here.
    """

    kind: DensityKind = DensityKind.RELOCATE
    start: float = 0.2
    stop: float = 0.7
    every: float = 0.1
    opacity_threshold: float = 0.02
    grad_threshold: float = 0.0002
    absgrad: bool = False
    split_scale: float = 0.02
    max_count: int = 20000
    time_grad_threshold: float = 0.0
    opacity_reset_every: float = 0.0
    opacity_decay: float = 0.0
    opacity_floor: float = 0.01

    def check(self, key: str) -> None:
        """Check the schedule; `key` is where it stands.

        Raises:
            ValueError: It is not 0 <= start <= stop <= 1 with a positive distance.
        """
        if not 0 <= self.start <= self.stop <= 1 or self.every <= 0 or self.opacity_reset_every < 0:
            raise ValueError(f"{key}: need 0 <= start <= stop <= 1, every > 0 and opacity_reset_every >= 0")


@dataclass
class DynamicConfig:
    """The dynamic stage. Learning rates belong to what moves: see `deformation`.

    Attributes:
        steps: Optimiser steps; of each window, where a long clip is fitted in windows.
        data: Frames drawn at each step.
        warmup_steps: Steps over which the learning rates grow linearly from 0.
        final_factor: Factor that they fall to, along a half cosine.
        gaussian_rates: Factor of the static stage's learning rates by which the Gaussians of frame 0 are trained with
            their motion (DreamGaussian4D: 1); 0 freezes them. Bones go on to refer to the Gaussians that the static
            stage has left; so do the neighbours of rigidity, until density control changes their number.
        time_noise: Standard deviation of noise on the times that the motion is asked for, in distances of two frames;
            it falls to 0 along the stage (annealed smooth training of Deformable 3D Gaussians, section 3.3).
        density: Density control of Gaussians that are trained; by `adaptive` without absolute gradients.
        photometric: The image loss, a mean over the drawn frames.
    """

    steps: int = 500
    data: DynamicDataConfig = field(default_factory=DynamicDataConfig)
    warmup_steps: int = 20
    final_factor: float = 0.05
    gaussian_rates: float = 0.0
    time_noise: float = 0.0
    density: DensityConfig = field(default_factory=lambda: DensityConfig(kind=DensityKind.NONE))
    photometric: PhotometricConfig = field(default_factory=lambda: PhotometricConfig(weight=4.0))


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


class Accelerator(StrEnum):
    """What the processes of a fit compute on."""

    AUTO = "auto"  # what the renderer needs
    CPU = "cpu"
    GPU = "gpu"


@dataclass
class TrainerConfig:
    """Settings of Lightning's Trainer and of what is written while it runs.

    Attributes:
        accelerator: What the processes of a fit compute on: `gpu`, one each, or `cpu`; `auto` takes what the renderer
            needs.
        devices: Number of processes that fit together, each on its own GPU; `auto` and `-1` are all GPUs that this
            process may use, or one process on the CPU.
        strategy: How they work together: each takes a part of every step's batch, and gradients are averaged (`ddp`).
            `auto` is that where there are several.
        progress_bar: Show how far a stage is: a bar on a terminal, elsewhere a line each tenth.
        checkpoint_every: Steps between two writes of `last.ckpt`; 0 writes it only when a stage ends or is interrupted.
        preview_every: Steps between two previews; 0 draws them only at the end of a stage.
    """

    accelerator: Accelerator = Accelerator.AUTO
    devices: str = "1"
    strategy: str = "auto"
    progress_bar: bool = True
    checkpoint_every: int = 100
    preview_every: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no number, and other ways of working together.

        Raises:
            ValueError: Of the settings.
        """
        known = self.devices in ("auto", "-1") or (self.devices.isascii() and self.devices.isdigit())
        if not known or self.devices.strip("0") == "":
            what = "which GPUs these are is said by CUDA_VISIBLE_DEVICES, and by renderer.device where it is one"
            raise ValueError(f"trainer.devices: must be a number above 0, auto or -1, not {self.devices!r}; {what}")
        if self.strategy not in ("auto", "ddp"):
            raise ValueError(f"trainer.strategy: must be auto or ddp, not {self.strategy!r}")


@dataclass
class StaticConfig:
    """The static stage.

    Attributes:
        steps: Optimiser steps.
        data: Views drawn at each step.
        learning_rates: Rates of the Gaussians.
        photometric: The image loss.
        density: Density control.
    """

    steps: int = 500
    data: StaticDataConfig = field(default_factory=StaticDataConfig)
    learning_rates: LearningRates = field(default_factory=LearningRates)
    photometric: PhotometricConfig = field(default_factory=PhotometricConfig)
    density: DensityConfig = field(default_factory=DensityConfig)
