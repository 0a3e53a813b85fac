"""Settings of `kg4d.priors.diffusion`: plain data that is checked before torch is loaded."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, NamedTuple


class VideoKind(StrEnum):
    """Where the video of a single image comes from."""

    AUTO = "auto"  # diffusion
    DIFFUSION = "diffusion"
    FILES = "files"
    STILL = "still"  # none: the image is all there is, and a motion comes from elsewhere (`motion.path`)


@dataclass
class VideoConfig:
    """The video of a single image. Settings for which a pipeline has no argument are not passed to it.

    Attributes:
        kind: Where it comes from.
        path: For `kind: files`: the video, or the folder of its frames.
        model: Hub id or folder of an image-to-video pipeline.
        local_files_only: Do not contact the hub.
        frames: Number of frames; networks do best at the lengths that they were trained on.
        size: Side of the frames that the network generates, px, a multiple of 8.
        prompt: Text prompt, for pipelines that take one.
        steps: Number of sampling steps.
        fps: Frame rate that the network is conditioned on, frames per second.
        motion: Amount of motion, from 1 to 255 (Stable Video Diffusion's motion bucket).
        noise: Noise added to the input (Stable Video Diffusion); more gives more motion, and less likeness.
        decode_chunk_size: Number of frames decoded at once: fewer take less memory, more flicker less.
        seed: Seed of the noise.
        attention_slicing: Compute attention in slices: less memory, more time. Stable Video Diffusion does not support
            it.
    """

    kind: VideoKind = VideoKind.AUTO
    path: str | None = None
    model: str = "stabilityai/stable-video-diffusion-img2vid"
    local_files_only: bool = False
    frames: int = 14
    size: int = 512
    prompt: str = ""
    steps: int = 25
    fps: int = 7
    motion: int = 127
    noise: float = 0.02
    decode_chunk_size: int = 4
    seed: int = 0
    attention_slicing: bool = False

    def __post_init__(self) -> None:
        """Check the ranges of the settings.

        Raises:
            ValueError: The size is not a positive multiple of 8, or another number is too small.
        """
        if self.size < 8 or self.size % 8:
            raise ValueError(f"video.size: must be a positive multiple of 8, not {self.size}")
        if self.frames < 2:
            raise ValueError(f"video.frames: must be at least 2, not {self.frames}")
        for name in ("steps", "fps", "decode_chunk_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"video.{name}: must be at least 1, not {getattr(self, name)}")


class Sampling(NamedTuple):
    """Number of steps, and scale of classifier-free guidance."""

    steps: int
    scale: float


class Zero123Kind(StrEnum):
    """The two models; they differ in how the camera is encoded."""

    ZERO123 = "zero123"
    STABLE_ZERO123 = "stable_zero123"


class GuidanceKind(StrEnum):
    """Which model guides the fit."""

    NONE = "none"
    AUTO = "auto"
    ZERO123 = Zero123Kind.ZERO123.value
    STABLE_ZERO123 = Zero123Kind.STABLE_ZERO123.value


@dataclass
class NoiseModelConfig:
    """The diffusion model that judges renders.

    Attributes:
        kind: Which model; `none` leaves guidance out; `auto` takes one whose weights are on this machine, or none.
        model: Its hub id or folder; the default model of its kind when null.
        local_files_only: Do not contact the hub.
        scale: Scale of classifier-free guidance.
        reference_elevation: Elevation of the camera of the input, degrees above the horizon; when null it is computed
            from the camera's pose (+Y up).
        attention_slicing: Compute attention in slices: less memory, more time.
    """

    SIGNED: ClassVar[tuple[str, ...]] = ("reference_elevation",)

    kind: GuidanceKind = GuidanceKind.NONE
    model: str | None = None
    local_files_only: bool = False
    scale: float = 5.0
    reference_elevation: float | None = None
    attention_slicing: bool = False

    def __post_init__(self) -> None:
        """Check the range of the elevation.

        Raises:
            ValueError: It is within 5 degrees of a pole, where azimuths mean nothing.
        """
        if self.reference_elevation is not None and not -85 <= self.reference_elevation <= 85:
            what = f"must lie between -85 and 85 degrees, not {self.reference_elevation}"
            raise ValueError(f"guidance.reference_elevation: {what}")


class ViewsKind(StrEnum):
    """Where the views of the first frame come from."""

    AUTO = "auto"  # what `path` or `model` names, else none: nothing is fetched that was not asked for
    ZERO123 = Zero123Kind.ZERO123.value
    STABLE_ZERO123 = Zero123Kind.STABLE_ZERO123.value
    ZERO123PLUS = "zero123plus"
    FILES = "files"
    NONE = "none"


@dataclass
class ViewsConfig:
    """Views of the first frame from other cameras.

    Attributes:
        kind: Where they come from; `none` leaves them out.
        path: For `kind: files`: the folder of the images.
        model: Hub id or folder of the weights; the default ones of the kind when null.
        local_files_only: Do not contact the hub.
        pipeline: For `kind: zero123plus`: your copy of its authors' `pipeline.py`. It is executed, so read it first.
        azimuths: Degrees from the input view, positive to the right; zero123plus has its own.
        elevations: Degrees above the input view, one per view, or one for all; zero123plus has its own.
        reference_elevation: Elevation of the camera of the input, degrees above the horizon; stable_zero123 is
            conditioned on it.
        steps: Number of sampling steps; when null 50, and 75 for zero123plus, as its authors take.
        scale: Scale of classifier-free guidance; when null 3, and 4 for zero123plus.
        seed: Seed of the noise.
        attention_slicing: Compute attention in slices: less memory, more time.
    """

    SIGNED: ClassVar[tuple[str, ...]] = ("reference_elevation",)

    kind: ViewsKind = ViewsKind.AUTO
    path: str | None = None
    model: str | None = None
    local_files_only: bool = False
    pipeline: str | None = None
    azimuths: list[float] = field(default_factory=lambda: [45.0 * k for k in range(1, 8)])
    elevations: list[float] = field(default_factory=lambda: [0.0])
    reference_elevation: float = 0.0
    steps: int | None = None
    scale: float | None = None
    seed: int = 0
    attention_slicing: bool = False

    def __post_init__(self) -> None:
        """Check the ranges of the settings.

        Raises:
            ValueError: A camera is within one degree of the vertical, or there are no sampling steps.
        """
        for elevation in [0.0, *self.elevations]:
            if not -89 <= self.reference_elevation + elevation <= 89:
                what = f"{elevation:g} above {self.reference_elevation:g} degrees"
                raise ValueError(f"views.elevations: a camera must stay within 89 degrees of the horizon, not {what}")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"views.steps: must be at least 1, not {self.steps}")

    @property
    def sampling(self) -> Sampling:
        """How views are sampled: as asked for, else as suits the kind."""
        usual = Sampling(75, 4.0) if self.kind is ViewsKind.ZERO123PLUS else Sampling(50, 3.0)
        steps = usual.steps if self.steps is None else self.steps
        return Sampling(steps, usual.scale if self.scale is None else self.scale)
