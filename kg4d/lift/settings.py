"""Settings of `kg4d.lift`: plain data that is checked before torch is loaded."""

from dataclasses import dataclass


@dataclass
class LiftConfig:
    """Lifting of the reference video's keypoints to 3D.

    Lengths are in world units, and pixel errors in units of the longer image side. A robust loss (Geman-McClure) of
    scale s is about e² for errors e well below s, and hardly pulls where they are well above it.

    Attributes:
        steps: Optimiser steps; 0 switches the lift off.
        hypotheses: Number of networks fitted side by side from different random weights. The tracks are their median,
            which outvotes the few that put a limb on the wrong side of the depth ambiguity.
        weight: Weight, in the dynamic stage, of the squared distance of the model's keypoints from the tracks. It is
            multiplied by `Lift.track_confidence`.
        doubt: Spread of the hypotheses at which the track confidence of inexact detections is halved.
        learning_rate: Adam rate of the networks.
        pixels: Weight of the robust reprojection error of the keypoints, and of that of the surface.
        first_bones: Weight of the robust change of the bone lengths at the first step.
        last_bones: The same at the last step; in between it grows by a constant factor per step.
        stretch: Scale of the robust loss on bone lengths from three quarters of the steps on; it shrinks to this from
            `first_scale`. A bone whose length changes by a third of it has half its weight in `hinge_loss`.
        hinges: Weight of `hinge_loss`, which keeps bones whose length changes in a plane with the bones above them.
        leans: Weight of `lean_loss`, where a detector has estimated which way the bones lean; 0 leaves it out.
        acceleration: Weight of `acceleration_loss` of the tracks.
        first_scale: Scale of the robust losses at the first step.
        last_scale: Scale of the keypoints' robust reprojection error from three quarters of the steps on; that of the
            surface is half of it.
        reject: So many standard deviations of the noise that the first fit finds are the scale in a second fit, where
            that is more than `last_scale`. It leaves out the detections that the first one misses by more than that.
        surface: Number of surface points to follow along the dense flow, where there is one; 0 leaves them out.
        sigma: Standard deviation of the window around each bone from which their skinning weights start.
        exact: Largest factor by which detections with hardly any jitter count more in a last fit; 1 leaves that fit
            out. Needs a surface, whose weight is divided by the square root of the factor.
    """

    steps: int = 0
    hypotheses: int = 5
    weight: float = 1.0
    doubt: float = 0.01
    learning_rate: float = 5e-3
    pixels: float = 100.0
    first_bones: float = 3.0
    last_bones: float = 100.0
    stretch: float = 0.03
    hinges: float = 100.0
    leans: float = 1.0
    acceleration: float = 0.3
    first_scale: float = 0.2
    last_scale: float = 0.02
    reject: float = 3.5
    surface: int = 200
    sigma: float = 0.06
    exact: float = 10.0

    def __post_init__(self) -> None:
        """Check the values that would divide by zero, and the counts.

        Raises:
            ValueError: A scale or a weight of bones is not positive, a count is negative, or `exact` is below 1.
        """
        scales = ("first_bones", "last_bones", "first_scale", "last_scale", "sigma", "stretch")
        for name in ("doubt", *scales):
            if not getattr(self, name) > 0:
                raise ValueError(f"lift.{name}: must be above 0, not {getattr(self, name)}")
        if self.hypotheses < 1:
            raise ValueError(f"lift.hypotheses: must be at least 1, not {self.hypotheses}")
        for name in ("steps", "surface"):
            if getattr(self, name) < 0:
                raise ValueError(f"lift.{name}: must be at least 0, not {getattr(self, name)}")
        if not self.exact >= 1:
            raise ValueError(f"lift.exact: must be at least 1, not {self.exact}")
