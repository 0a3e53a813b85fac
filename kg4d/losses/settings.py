"""Settings of `kg4d.losses`: plain data that is checked before torch is loaded."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from kg4d.keypoints.settings import KeypointReading


@dataclass
class CoverageConfig:
    """The coverage loss: `matte_coverage_loss`. Lengths are shares of the longer side of the image.

    Attributes:
        weight: Weight of the loss; 0 switches it off.
        start: Width of the density estimates as the stage begins.
        end: Their width as it ends; it falls geometrically.
        points: Most Gaussians, and most pixels of a matte, that a step looks at in a frame.
    """

    weight: float = 0.0
    start: float = 0.1
    end: float = 0.02
    points: int = 512

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: A value is out of range.
        """
        for name in ("start", "end", "points"):
            if not getattr(self, name) > 0:
                raise ValueError(f"coverage.{name}: must be above 0, not {getattr(self, name)}")
        if not self.weight >= 0:
            raise ValueError(f"coverage.weight: must not be negative, not {self.weight}")


class DepthForm(StrEnum):
    """How drawn depth is compared with the prior's."""

    MINMAX = "minmax"  # L1 after both are brought to [0, 1] by least and largest value: FLAG-4D eq. 9, as printed
    QUANTILE = "quantile"  # by the quantiles of 2 and 98 %: one wrong pixel does not move all others
    ORDINAL = "ordinal"  # the order of random pairs of pixels, and nothing else


@dataclass
class DepthLossConfig:
    """The depth loss; off without a prior.

    Attributes:
        weight: Its weight.
        form: How depth is compared.
        pairs: For `form: ordinal`: pairs of pixels drawn at each step.
    """

    weight: float = 0.0
    form: DepthForm = DepthForm.QUANTILE
    pairs: int = 4096


class KfcMode(StrEnum):
    """How keypoints are read off the model."""

    BARYCENTRE = "barycentre"  # projected centre of the Gaussians, weighted by softmax over N of P: amodal, no render
    HEATMAP = "heatmap"  # P rendered as J channels, then soft-argmax (KG4D eq. 7-8): sees what the image sees


class KeypointSeeding(StrEnum):
    """Where the features P start."""

    TRIANGULATED = "triangulated"  # a normal window around each keypoint, triangulated from the views of frame 0
    VIEW = "view"  # a window around the keypoints of the first frame, on the Gaussians that are in front there
    NONE = "none"  # zero: every Gaussian has the same weight in every keypoint


class KeypointVisibility(StrEnum):
    """Which reference keypoints count."""

    DETECTOR = "detector"  # all, by their confidence
    DEPTH = "depth"  # those whose counterpart in the model (its barycentre) is not hidden in the rendered depth


@dataclass
class KfcConfig:
    """Keypoint Feature Calibration.

    Attributes:
        weight: Factor of the loss (KG4D: 100); 0 switches it off in both stages.
        mode: Reading of the keypoints.
        temperature: Softmax temperature, over the image (heatmap) or over the Gaussians (barycentre).
        reading: Reduction of a heatmap to a point (the paper leaves it open).
        background_logit: Logit where nothing covers (heatmap); far below any Gaussian's. `reading: mass` has none.
        heatmap_scale: Side of the heatmaps as a fraction of the image's.
        detach_geometry: Let the loss move only the features P in the static stage.
        compactness: Weight of the spread of each keypoint's Gaussians around their barycentre.
        seeding: Where P starts.
        seed_sigma: Standard deviation of the seeds, world units; for `view` a fraction of the image's side.
        visibility: Which reference keypoints count.
        visibility_tolerance: How far behind the surface a keypoint may lie and still be seen (`depth`), world units.
        learning_rate: Adam rate of P in the static stage.
        warmup: Fraction of the dynamic stage over which the weight grows from 0.
        freeze_after: Fraction of the static stage after which P no longer changes (1: never).
    """

    SIGNED: ClassVar[tuple[str, ...]] = ("background_logit",)

    weight: float = 100.0
    mode: KfcMode = KfcMode.BARYCENTRE
    temperature: float = 0.1
    reading: KeypointReading = KeypointReading.JOINT
    background_logit: float = -10.0
    heatmap_scale: float = 0.25
    detach_geometry: bool = True
    compactness: float = 1.0
    seeding: KeypointSeeding = KeypointSeeding.TRIANGULATED
    seed_sigma: float = 0.05
    visibility: KeypointVisibility = KeypointVisibility.DETECTOR
    visibility_tolerance: float = 0.08
    learning_rate: float = 0.05
    warmup: float = 0.1
    freeze_after: float = 1.0


@dataclass
class RigidityConfig:
    """Local rigidity of the deformed Gaussians: `rigidity_loss`.

    Attributes:
        weight: Weight of the loss; 0 switches it off.
        neighbours: Number of canonical neighbours that each Gaussian is compared with.
        samples: Number of Gaussians drawn at each step.
    """

    weight: float = 1.0
    neighbours: int = 20
    samples: int = 1200


@dataclass
class BonesConfig:
    """Bones, each between a keypoint and its parent, keep their canonical length: `bone_loss`.

    Attributes:
        weight: Weight of the loss; 0 switches it off.
    """

    weight: float = 100.0


@dataclass
class ArapConfig:
    """Control points move as rigidly as possible (`deformation.kind: control_points`): `arap_loss`.

    Attributes:
        weight: Weight of the loss; 0 switches it off.
        neighbours: Number of other control points that each one is compared with.
    """

    weight: float = 0.0
    neighbours: int = 8


@dataclass
class HandlesConfig:
    """Priors on the keypoint frames of a skinned motion, over all key times (`deformation.kind: skinned`).

    Attributes:
        bones: Weight of `carried_bones_loss`: frames carry their children rigidly. 0 switches it off.
        loose: Scale of its robust loss on positions, world units. A child farther than this from where its parent's
            frame would carry it counts as not rigidly attached, and is hardly pulled.
        stretch: Scale of its robust loss on bone lengths, world units. A bone whose length changes by more than this
            counts as one that bends or stretches.
        smoothness: Weight of `acceleration_loss` of the frames' positions; 0 switches it off.
        coherence: Weight of `coherence_loss` between the rotations of a frame and its parent; 0 switches it off.
    """

    bones: float = 3.0
    loose: float = 0.1
    stretch: float = 0.03
    smoothness: float = 1.0
    coherence: float = 0.01

    def __post_init__(self) -> None:
        """Check that both scales are positive.

        Raises:
            ValueError: One is not.
        """
        for name in ("loose", "stretch"):
            if not getattr(self, name) > 0:
                raise ValueError(f"handles.{name}: must be above 0, not {getattr(self, name)}")


@dataclass
class PhotometricConfig:
    """Weights of the image loss.

    Attributes:
        weight: Factor of the whole loss.
        l1: Weight of the mean absolute colour error.
        ssim: Weight of 1 - SSIM.
        alpha: Weight of the mean absolute coverage error.
        random_background: Put the images of each step, which have mattes, on a colour of its own, so that no Gaussian
            in the colour of the background can pass for it.
    """

    weight: float = 1.0
    l1: float = 0.8
    ssim: float = 0.2
    alpha: float = 0.5
    random_background: bool = False


@dataclass
class SdsConfig:
    """Score distillation in one stage.

    Attributes:
        weight: Factor of the loss, a mean over the views; 0 leaves it out.
        final_factor: Factor that the weight falls to, linearly over the stage.
        views: Views drawn at each step.
        azimuths: From and to, degrees from the reference camera; positive is to its right.
        elevations: From and to, degrees above the reference camera.
        min_time: Least timestep, as a fraction of the noise schedule.
        max_time: Greatest timestep, as a fraction of the noise schedule.
        random_time: Draw each timestep between `min_time` and the falling one; else take the falling one itself.
    """

    weight: float = 1e-2
    final_factor: float = 0.1
    views: int = 1
    azimuths: list[float] = field(default_factory=lambda: [-180.0, 180.0])
    elevations: list[float] = field(default_factory=lambda: [-30.0, 30.0])
    min_time: float = 0.02
    max_time: float = 0.98
    random_time: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn from.

        Raises:
            ValueError: A range is empty, or there are no views.
        """
        if self.views < 1:
            raise ValueError(f"guidance: views must be at least 1, not {self.views}")
        if not 0 <= self.min_time <= self.max_time <= 1:
            raise ValueError(f"guidance: need 0 <= min_time <= max_time <= 1, not {self.min_time} and {self.max_time}")
        for name, limits in (("azimuths", self.azimuths), ("elevations", self.elevations)):
            if len(limits) != 2 or limits[0] > limits[1]:
                raise ValueError(f"guidance: {name} must be two numbers, from and to, not {limits}")
