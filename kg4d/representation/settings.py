"""Settings of `kg4d.representation`: plain data that is checked before torch is loaded."""

from dataclasses import dataclass, field
from enum import StrEnum


class RepresentationKind(StrEnum):
    """What a moving set of Gaussians is."""

    CANONICAL = "canonical"  # those of frame 0 and a deformation
    SPACETIME = "spacetime"  # Gaussians in R^4, of which a time sees a slice


class SpacetimeInit(StrEnum):
    """Where the Gaussians start."""

    LIFT = "lift"  # those of frame 0, along the tracks of the keypoints; at rest without keypoints
    HULL = "hull"  # in the visual hull of every frame, which takes several videos at once


@dataclass
class SpacetimeConfig:
    """Gaussians in space and time.

    Attributes:
        init: Where they start.
        carry_steps: Steps for which `deformation` moves the Gaussians of frame 0, for `init: lift`, before they are cut
            into pieces along its motion; 0 cuts them along the lifted tracks.
        segments: Pieces along time of each Gaussian of frame 0, in each window of a long clip; of the hull, as many
            times as many Gaussians in all.
        overlap: Standard deviation along time of a piece, in distances of two pieces.
        least_weight: A Gaussian whose temporal weight is below this is not there at that time.
        waves: Frequencies of a Fourier series in time of the colours; 0 is the same colour at all times.
        learning_rate: Of the centres in space and time, world units and clips (windows of a long one) a step.
        rotation_learning_rate: Of the pairs of quaternions.
        scale_learning_rate: Of the log-scales.
        wave_learning_rate: Of the Fourier series.
        entropy: Weight of the opacities' mean entropy, which makes Gaussians be there or not.
        consistency: Weight of the mean squared difference of how far neighbours in space and time have moved from where
            they started, world units squared.
        neighbours: How many neighbours each has for that.
        samples: Gaussians that a step looks at for that.
    """

    init: SpacetimeInit = SpacetimeInit.LIFT
    carry_steps: int = 0
    segments: int = 8
    overlap: float = 0.5
    least_weight: float = 0.05
    waves: int = 0
    learning_rate: float = 2e-3
    rotation_learning_rate: float = 1e-2
    scale_learning_rate: float = 1e-2
    wave_learning_rate: float = 1e-3
    entropy: float = 0.0
    consistency: float = 0.0
    neighbours: int = 8
    samples: int = 1024

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: One is out of range; the message begins with its key.
        """
        for key in ("segments", "neighbours", "samples"):
            if getattr(self, key) < 1:
                raise ValueError(f"representation.spacetime.{key}: must be at least 1, not {getattr(self, key)}")
        if not self.overlap > 0:
            raise ValueError(f"representation.spacetime.overlap: must be positive, not {self.overlap}")
        if not 0 <= self.least_weight < 1:
            what = f"must be at least 0 and below 1, not {self.least_weight}"
            raise ValueError(f"representation.spacetime.least_weight: {what}")


@dataclass
class RepresentationConfig:
    """What a moving set of Gaussians is.

    Attributes:
        kind: Which representation; the block `deformation` belongs to `canonical`.
        spacetime: The block of `kind: spacetime`.
    """

    kind: RepresentationKind = RepresentationKind.CANONICAL
    spacetime: SpacetimeConfig = field(default_factory=SpacetimeConfig)
