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
            which outvotes the few that put a limb on the wrong side of the depth ambiguity; with `trial_steps` the
            images may still choose a single one.
        weight: Weight, in the dynamic stage, of the squared distance of the model's keypoints from the tracks. It is
            multiplied by `Lift.track_confidence`.
        doubt: Spread of the hypotheses at which the track confidence of inexact detections is halved.
        learning_rate: Adam rate of the networks.
        pixels: Weight of the robust reprojection error of the keypoints.
        first_bones: Weight of the robust change of the bone lengths at the first step.
        last_bones: The same at the last step; in between it grows by a constant factor per step.
        stretch: Scale of the robust loss on bone lengths from three quarters of the steps on; it shrinks to this from
            `first_scale`. A bone whose length changes by more counts as one that bends or stretches.
        hinges: Weight of `hinge_loss`, which keeps bones whose length changes in a plane with the bones above them.
        leans: Weight of `lean_loss`, where a detector has estimated which way the bones lean; 0 leaves it out.
        bend: Change of length at which a bone has half its full weight in that loss.
        acceleration: Weight of `acceleration_loss` of the tracks.
        first_scale: Scale of the robust losses at the first step.
        last_scale: Scale of the robust reprojection error of the keypoints from three quarters of the steps on, or
            three times the noise where that is larger.
        reject: The second fit leaves out detections that the first one misses by more than this many standard
            deviations of the noise.
        body_depth: Prior standard deviation of how far the body as a whole moves along the viewing direction after
            frame 0. Its weight grows with the noise that the first fit finds, from none for perfect detections.
        surface: Number of surface points to follow along the dense flow, where there is one; 0 leaves them out.
        surface_pixels: Weight of their robust reprojection error.
        surface_scale: Its scale from three quarters of the steps on.
        sigma: Standard deviation of the window around each bone from which their skinning weights start.
        twist: Weight of the squared tangent of half the angle by which a bone twists about its own axis.
        gait: Weight of the squared distance of hidden bones from their mirrored counterparts on the other side of the
            body, where the two sides move alike some frames apart (`kg4d.lift.gait`); 0 leaves it out. Needs a surface,
            and keypoints whose names distinguish left from right.
        mirrors: Number of limbs that may be mirrored to the other side of the depth ambiguity, each only if that fits
            clearly better. Needs a surface.
        exact: Largest factor by which detections with hardly any jitter count more in a last fit; 1 leaves that fit
            out. Needs a surface, whose weight is divided by the square root of the factor.
        trial_steps: Steps of the short fits of the dynamic stage by which the images decide between the lift and its
            rivals, and of those after which unreliable detections are lifted again; 0 leaves both out.
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
    bend: float = 0.01
    acceleration: float = 0.3
    first_scale: float = 0.2
    last_scale: float = 0.02
    reject: float = 3.5
    body_depth: float = 0.1
    surface: int = 200
    surface_pixels: float = 100.0
    surface_scale: float = 0.01
    sigma: float = 0.06
    twist: float = 1e-3
    gait: float = 1.0
    mirrors: int = 4
    exact: float = 10.0
    trial_steps: int = 80

    def __post_init__(self) -> None:
        """Check the values that would divide by zero, and the counts.

        Raises:
            ValueError: A scale or a weight of bones is not positive, a count is negative, or `exact` is below 1.
        """
        scales = ("first_bones", "last_bones", "first_scale", "last_scale", "surface_scale", "sigma", "stretch", "bend")
        for name in ("doubt", "body_depth", *scales):
            if not getattr(self, name) > 0:
                raise ValueError(f"lift.{name}: must be above 0, not {getattr(self, name)}")
        if self.hypotheses < 1:
            raise ValueError(f"lift.hypotheses: must be at least 1, not {self.hypotheses}")
        for name in ("steps", "surface", "mirrors", "trial_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"lift.{name}: must be at least 0, not {getattr(self, name)}")
        if not self.exact >= 1:
            raise ValueError(f"lift.exact: must be at least 1, not {self.exact}")
