"""What 3D tracks of keypoints are judged by: pixels of keypoints and of the surface around bones, bones, smoothness.

Keypoints of a bone that leans away from the image look like those of one that leans towards it. The surface around the
bone does not: it is turned with the bone, and where its points go in the image tells which way. So points of the
surface, known in 3D in frame 0 and followed along the flow, hang on the bones by shares that are found with the motion.
"""

import math
from copy import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from kg4d.geometry.cameras import Cameras, project_each
from kg4d.geometry.rotations import quat_multiply, quat_to_matrix, swing
from kg4d.keypoints.barycentre import log_window
from kg4d.keypoints.skeleton import segment_distances
from kg4d.lift.gait import Gait
from kg4d.lift.surface import SurfaceTracks
from kg4d.losses.motion_priors import bone_lengths, geman_mcclure, hinge_loss

_SHARE_RATE, _TWIST_RATE = 0.05, 0.02  # Adam rates


@dataclass
class LiftConfig:
    """Lifting of the reference video's keypoints to 3D.

    Attributes:
        steps: Optimiser steps; 0 leaves the lift out.
        hypotheses: Networks fitted side by side from different starts; the tracks are their median, in which the few
            that put a limb on the wrong side of the depth ambiguity have no say, unless images decide for one of them.
        weight: Weight of the squared distance of the model's keypoints to the tracks in the dynamic stage, where the
            hypotheses agree and the detections are clean; up to `exact` times as much where these are exact.
        doubt: Spread of the hypotheses, world units, at which they have half the weight of inexact detections; the
            tracks pull less where they differ more.
        learning_rate: Adam rate.
        pixels: Weight of the squared pixel error, in units of the longer image side.
        first_bones: Weight of the squared change of the bone lengths at the first step, squared world units.
        last_bones: The same at the last step; it grows by the same ratio at each.
        stretch: Change of a bone's length, world units, above which it counts as one that does bend or stretch, from
            three quarters of the steps on; `first_scale` at the first step.
        hinges: Weight of the variance of bones that bend, and of those above them, across the plane they move in,
            squared world units.
        bend: Change of a bone's length, world units, at which it counts for half as one that bends.
        acceleration: Weight of the squared second difference in time, squared world units.
        first_scale: Pixel error above which a keypoint counts as wrong, at the first step, in longer image sides.
        last_scale: The same from three quarters of the steps on.
        reject: The second fit leaves out what the first one misses by more than this many deviations of the noise.
        body_depth: Prior deviation of the body's way along the view since rest, world units. It counts as much as the
            noise that the first fit found: next to nothing on perfect detections.
        surface: Points of the surface that are followed along the dense flow, where there is one; 0 leaves them out.
        surface_pixels: Weight of their squared pixel error, as `pixels`.
        surface_scale: Pixel error above which one counts as wrong at the end, as `last_scale`.
        sigma: Width of the shares around a bone at the start, world units.
        twist: Weight of the squared tangent of half the angle by which a bone has turned about itself.
        gait: Weight of the squared distance of hidden bones from what the other side of the body says of them, where it
            does the same some frames before and after, squared world units; 0 leaves it out. Needs a surface,
            and keypoints whose names tell left from right.
        mirrors: Limbs that are turned to the other side of the depth ambiguity at most, where the surface fits better.
        exact: Factor by which keypoints that hardly jitter count more at the end, at most; 1 leaves it out. Needs a
            surface, which counts by the root of the factor less.
        trial_steps: Steps of the dynamic stage from each of the hypotheses that differ, after which the images decide
            between them, and from where unreliable keypoints are lifted again; 0 leaves both out.
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
        """Refuse what would divide by zero, and counts below 0.

        Raises:
            ValueError: A length or a weight of bones is not positive, a count is negative, or `exact` is below 1.
        """
        scales = ("first_bones", "last_bones", "first_scale", "last_scale", "surface_scale", "sigma", "stretch", "bend")
        for name in ("doubt", "body_depth", *scales):
            if not getattr(self, name) > 0:
                raise ValueError(f"lift.{name}: must be above 0, not {getattr(self, name)}")
        if self.hypotheses < 1:
            raise ValueError(f"lift.hypotheses: must be at least 1, not {self.hypotheses}")
        for name in ("steps", "surface", "mirrors", "trial_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"lift.{name}: must not be below 0, as {getattr(self, name)} is")
        if not self.exact >= 1:
            raise ValueError(f"lift.exact: must not be below 1, as {self.exact} is")


@dataclass(frozen=True)
class Sight:
    """What the video shows of N points.

    Attributes:
        pixels: Read where the weight is positive.
        weights: In [0, 1].
        cameras: T cameras.
    """

    pixels: Float[Tensor, "T N 2"]
    weights: Float[Tensor, "T N"]
    cameras: Cameras

    def places(self, points: Float[Tensor, "S T N 3"]) -> Float[Tensor, "S T N 2"]:
        """In the images, in units of their longer side."""
        read = project_each(points.transpose(0, 1).flatten(1, 2), self.cameras)
        read = read.reshape(len(read), len(points), -1, 2).transpose(0, 1)
        return read / max(self.cameras.width, self.cameras.height)

    def offsets(self, points: Float[Tensor, "S T N 3"]) -> Float[Tensor, "S T N 2"]:
        """From the detections, in units of the longer image side; finite where there is none."""
        target = torch.where(self.weights[..., None] > 0, self.pixels, 0.0)
        return self.places(points) - target / max(self.cameras.width, self.cameras.height)

    def squared_errors(self, points: Float[Tensor, "S T N 3"]) -> Float[Tensor, "S T N"]:
        """Squared lengths of the offsets."""
        return self.offsets(points).square().sum(-1)

    def robust_error(self, points: Float[Tensor, "S T N 3"], scale: float) -> Float[Tensor, " S"]:
        """Weighted mean of the squared errors, of which those beyond `scale` hardly grow."""
        robust = self.weights * geman_mcclure(self.squared_errors(points), scale)
        return robust.sum((1, 2)) / self.weights.sum().clamp_min(1)


class Body:
    """The keypoints at rest, their bones, and the surface around these.

    Attributes:
        start: Keypoints in the first frame.
        parents: Parent of each; -1 where there is no bone.
        children: Lower end of each of the K bones.
        above: Upper end of each.
        lengths: Of the bones.
        surface: Points of the surface; None without bones.
    """

    def __init__(
        self, start: Float[Tensor, "J 3"], parents: Int[Tensor, " J"], surface: SurfaceTracks | None = None
    ) -> None:
        self.start, self.parents = start, parents
        self.children = torch.nonzero(parents >= 0)[:, 0]
        self.above = parents[self.children]
        self.lengths = bone_lengths(start, parents)
        has_surface = surface is not None and len(surface.points) > 0 and len(self.children) > 0
        self.surface = surface if has_surface else None


class Skin(nn.Module):
    """S ways in which the surface hangs on the bones: shares of the bones in each point, and twists of the bones.

    Args:
        count: S.
        body: The keypoints and bones.
        surface: Its M points.
        sigma: Width of the shares around a bone at the start, world units.
    """

    def __init__(self, count: int, body: Body, surface: SurfaceTracks, sigma: float) -> None:
        super().__init__()
        self._start, self._points = body.start, surface.points
        self._children, self._above = body.children, body.above
        distances = segment_distances(surface.points, body.start[body.above], body.start[body.children])
        self.logits = nn.Parameter(log_window(distances, sigma).repeat(count, 1, 1))
        shape = (count, len(surface.pixels), len(body.children), 1)
        self.twists = nn.Parameter(torch.zeros(shape).to(body.start))  # tangents of half angles

    def parameter_groups(self) -> list[dict[str, object]]:
        """Shares and twists, each with its rate."""
        return [{"params": [self.logits], "rate": _SHARE_RATE}, {"params": [self.twists], "rate": _TWIST_RATE}]

    def forward(self, tracks: Float[Tensor, "S T J 3"]) -> Float[Tensor, "S T M 3"]:
        """The surface points, each a mean of where its bones carry it."""
        rest = self._start[self._children] - self._start[self._above]
        starts = tracks[:, :, self._above]
        turns = swing(rest, tracks[:, :, self._children] - starts)
        twists = torch.cat([torch.ones_like(self.twists), normalize(rest, dim=-1) * self.twists], dim=-1)
        rotations = quat_to_matrix(quat_multiply(turns, twists))
        offsets = starts - (rotations @ self._start[self._above][..., None])[..., 0]
        blended = self.logits.softmax(-1)[:, None] @ torch.cat([rotations.flatten(3), offsets], dim=-1)
        turned = (blended[..., :9].reshape(*blended.shape[:-1], 3, 3) @ self._points[..., None])[..., 0]
        moved: Tensor = turned + blended[..., 9:]
        return moved


class LiftObjective:
    """The loss of S tracks.

    Args:
        config: Weights.
        body: What moves.
        sight: What the video shows of the keypoints.
        noise: Deviation of the detections, longer image sides. The noisier they are, the more a prior keeps the
            body as far away as it was.
        reliability: How far the detections can be believed as a whole, in [0, 1]; beside a surface they count by it.
    """

    def __init__(self, config: LiftConfig, body: Body, sight: Sight, noise: float, reliability: float) -> None:
        self._config, self._body, self._sight = config, body, sight
        self._surface = None
        if body.surface is not None:
            self._surface = Sight(body.surface.pixels, body.surface.weights, sight.cameras)
        self._pixels = config.pixels * (reliability if body.surface is not None else 1.0)
        self._surface_pixels = config.surface_pixels
        self._view = sight.cameras.viewmats[:, 2, :3]
        self._depth_weight = config.pixels * (noise / config.body_depth) ** 2 / len(body.start)
        self._last_scale = max(config.last_scale, 3 * noise)
        self._gait: Gait | None = None

    def skin(self, count: int) -> Skin | None:
        """For S tracks; None where no surface is followed."""
        surface = self._body.surface
        return None if surface is None else Skin(count, self._body, surface, self._config.sigma)

    def sharper(self, factor: float) -> "LiftObjective":
        """The same with keypoints whose pixels count `factor` times as much, beside a surface that counts less."""
        other = copy(self)
        other._pixels, other._surface_pixels = self._pixels * factor, self._surface_pixels / math.sqrt(factor)
        return other

    def beside(self, gait: Gait) -> "LiftObjective":
        """The same with bones that the other side of the body tells of."""
        other = copy(self)
        other._gait = gait
        return other

    def __call__(
        self, tracks: Float[Tensor, "S T J 3"], skin: Skin | None, progress: float = 1.0
    ) -> Float[Tensor, " S"]:
        """The loss at `progress` in [0, 1], with which bones stiffen and fewer detections count as right."""
        config, body = self._config, self._body
        sharpened = min(1.0, progress / 0.75)
        loss = self._pixels * self._sight.robust_error(tracks, self._between(self._last_scale, sharpened))
        along = ((tracks - body.start) * self._view[:, None]).sum(-1)
        loss = loss + self._depth_weight * along.mean(2).square().mean(1)
        if len(body.children):
            stiffness = config.first_bones * (config.last_bones / config.first_bones) ** progress
            stretch = (bone_lengths(tracks, body.parents) - body.lengths).square()
            loss = loss + stiffness * geman_mcclure(stretch, self._between(config.stretch, sharpened)).mean((1, 2))
            loss = loss + config.hinges * hinge_loss(tracks, body.start, body.parents, config.bend)
        if skin is not None and self._surface is not None:
            scale = self._between(config.surface_scale, sharpened)
            loss = loss + self._surface_pixels * self._surface.robust_error(skin(tracks), scale)
            loss = loss + config.twist * skin.twists.square().mean((1, 2, 3))
        if self._gait is not None:
            loss = loss + config.gait * self._unlike(tracks, self._gait)
        if tracks.shape[1] > 2:
            loss = loss + config.acceleration * tracks.diff(n=2, dim=1).square().sum(-1).mean((1, 2))
        return loss

    def _unlike(self, tracks: Float[Tensor, "S T J 3"], gait: Gait) -> Float[Tensor, " S"]:
        """Squared distance of hidden bones from what the other side tells, shared out over all keypoints."""
        bones = tracks[:, :, gait.children] - tracks[:, :, self._body.parents[gait.children]]
        missed = gait.hidden * (bones - gait.bones).square().sum(-1)
        return missed.sum((1, 2)) / self._sight.weights.numel()

    def _between(self, last: float, sharpened: float) -> float:
        first = self._config.first_scale
        return float(first * (last / first) ** sharpened)
