"""Settings of `kg4d.data.studies`: plain data that is checked before torch is loaded."""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Optional


@dataclass
class FramesConfig:
    """Which frames of the reference video the fit sees, and how.

    Attributes:
        every: The fit sees every n-th frame, beginning with the first; the others are evaluated as `heldout/psnr`.
        hold_out: Of every n frames that are left the one in the middle is held out too, but for the last of all, for a
            search that needs something to judge by; 0 holds out none.
        textureless: Paint the object in its mean colour in all images, the test images included, so that motion inside
            its outline shows only in keypoints and flow. The mean is that of the images that a fit sees.
        videos: Which of the test videos the fit sees too, by their places from 0; the others are measured.
        ring: Whether the fit has the ring of views of the first frame; without it a scene is a video and nothing else.
    """

    every: int = 1
    hold_out: int = 0
    textureless: bool = False
    ring: bool = True
    videos: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check the range of the settings.

        Raises:
            ValueError: `every` is not positive, or `hold_out` leaves nothing.
        """
        if self.every < 1:
            raise ValueError(f"frames.every: must be at least 1, not {self.every}")
        if self.hold_out < 0 or self.hold_out == 1:
            raise ValueError(f"frames.hold_out: must be 0 or at least 2, not {self.hold_out}")


@dataclass
class KeypointsConfig:
    """Which of the scene's keypoints the fit uses.

    Attributes:
        count: How many, chosen by farthest-point sampling in the first frame; all when null, none when 0.
    """

    count: Optional[int] = None  # noqa: UP045 - structured configs read this form


class DetectionsSource(StrEnum):
    """Where the keypoints and the flow of a scene folder come from."""

    GIVEN = "given"  # from the folder
    FOUND = "found"  # tracked from the keypoints of its first frame, and estimated, by the providers of `priors`


@dataclass
class DetectionsConfig:
    """Keypoints and flow of a scene folder, for studies of imperfect ones.

    The noise is independent for each keypoint in each image of the video and of the ring. It does not lower the
    confidence of the keypoints.

    Attributes:
        source: Where they come from.
        noise_px: Standard deviation of the noise on both coordinates, px at the image size of the fit.
        outliers: Fraction of keypoints moved to a random position in the bounding box of all keypoints of their image.
        missing: Fraction of keypoints that are removed.
        seed: Seed of the noise; that of the run when null.
    """

    source: DetectionsSource = DetectionsSource.GIVEN
    noise_px: float = 0.0
    outliers: float = 0.0
    missing: float = 0.0
    seed: Optional[int] = None  # noqa: UP045 - structured configs read this form

    def __post_init__(self) -> None:
        """Check the ranges of the settings.

        Raises:
            ValueError: A fraction is outside [0, 1], or the standard deviation is negative.
        """
        for name, value, most in (("noise_px", self.noise_px, float("inf")), ("outliers", self.outliers, 1.0)):
            if not 0 <= value <= most:
                raise ValueError(f"detections.{name}: must be from 0 to {most:g}, not {value}")
        if not 0 <= self.missing <= 1:
            raise ValueError(f"detections.missing: must be from 0 to 1, not {self.missing}")

    @property
    def perfect(self) -> bool:
        """Whether there is no noise at all."""
        return self.noise_px == self.outliers == self.missing == 0


@dataclass
class WorldConfig:
    """What is done to the world of the scene, in this order.

    Attributes:
        mirrored: Left and right are exchanged, in the world and in the images.
        slower: Factor of all times, > 0.
        turn: Rotation vector: its direction is the axis, its length the angle in degrees.
        scale: Factor of all lengths, > 0.
        shift: Translation, in units of the scaled world.
    """

    mirrored: bool = False
    slower: float = 1.0
    turn: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    scale: float = 1.0
    shift: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])

    def __post_init__(self) -> None:
        """Check the ranges of the settings.

        Raises:
            ValueError: A factor is not positive, or a vector has not three numbers.
        """
        for name in ("slower", "scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"world.{name}: must be positive, not {getattr(self, name)}")
        for name in ("turn", "shift"):
            if len(getattr(self, name)) != 3:
                raise ValueError(f"world.{name}: must be three numbers, not {getattr(self, name)}")
