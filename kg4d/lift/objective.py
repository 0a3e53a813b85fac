"""The loss of 3D tracks: reprojection of keypoints and of the surface around the bones, bone lengths, smoothness.

The keypoints of a bone that leans away from the camera look like those of one that leans towards it. The surface around
the bone does not: it rotates with the bone, and the motion of its points in the image tells which way. Points of the
surface, known in 3D in frame 0 and followed along the flow, are therefore skinned to the bones, by weights that are
optimised together with the motion.
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
from kg4d.lift.settings import LiftConfig
from kg4d.lift.surface import SurfaceTracks
from kg4d.losses.motion_priors import acceleration_loss, bone_lengths, geman_mcclure, hinge_loss, lean_loss

_WEIGHT_RATE, _TWIST_RATE = 0.05, 0.02  # Adam rates of the surface's skinning
_ANNEALED = 0.75  # share of the steps after which the robust scales have reached their last values


@dataclass(frozen=True)
class Observations:
    """Where the video shows N points.

    Attributes:
        pixels: Positions in the T images, px; anything where the weight is 0.
        weights: In [0, 1]; 0 where a point was not observed.
        cameras: One for each of the T images.
        leans: Which way the bones lean that end at the points, as in `kg4d.data.records.Keypoints`; None if unknown.
    """

    pixels: Float[Tensor, "T N 2"]
    weights: Float[Tensor, "T N"]
    cameras: Cameras
    leans: Float[Tensor, "T N"] | None = None

    def residuals(self, points: Float[Tensor, "S T N 3"]) -> Float[Tensor, "S T N 2"]:
        """Projections of world points minus the observations, in longer image sides; finite without an observation."""
        projected = project_each(points.transpose(0, 1).flatten(1, 2), self.cameras)
        projected = projected.reshape(len(projected), len(points), -1, 2).transpose(0, 1)
        observed = torch.where(self.weights[..., None] > 0, self.pixels, 0.0)
        side = max(self.cameras.width, self.cameras.height)
        return projected / side - observed / side

    def squared_errors(self, points: Float[Tensor, "S T N 3"]) -> Float[Tensor, "S T N"]:
        """Squared lengths of the residuals."""
        return self.residuals(points).square().sum(-1)

    def robust_error(self, points: Float[Tensor, "S T N 3"], scale: float) -> Float[Tensor, " S"]:
        """Weighted mean of the Geman-McClure loss of the residuals; `scale` in longer image sides."""
        robust = self.weights * geman_mcclure(self.squared_errors(points), scale)
        return robust.sum((1, 2)) / self.weights.sum().clamp_min(1)


class RestBody:
    """The body in the first frame: keypoints, K bones between them, and M points of the surface around these.

    Attributes:
        rest: Keypoints, world units.
        parents: Parent of each keypoint; -1 where there is no bone.
        children: Keypoint at the lower end of each bone.
        above: Keypoint at the upper end of each bone.
        lengths: Lengths of the bones, world units.
        surface: Followed points of the surface; None without points or without bones.
    """

    def __init__(
        self, rest: Float[Tensor, "J 3"], parents: Int[Tensor, " J"], surface: SurfaceTracks | None = None
    ) -> None:
        self.rest, self.parents = rest, parents
        self.children = torch.nonzero(parents >= 0)[:, 0]
        self.above = parents[self.children]
        self.lengths = bone_lengths(rest, parents)
        has_surface = surface is not None and len(surface.points) > 0 and len(self.children) > 0
        self.surface = surface if has_surface else None


class SurfaceSkinning(nn.Module):
    """How the surface follows the bones in S tracks: skinning weights of its points, and twists of the bones.

    The tracks determine the swing of a bone, but not its twist about its own axis, which is therefore a parameter.

    Args:
        count: Number S of tracks.
        body: Keypoints and bones at rest.
        surface: The M points.
        sigma: Standard deviation of the window around each bone from which the weights start, world units.
    """

    def __init__(self, count: int, body: RestBody, surface: SurfaceTracks, sigma: float) -> None:
        super().__init__()
        self._rest, self._points = body.rest, surface.points
        self._children, self._above = body.children, body.above
        distances = segment_distances(surface.points, body.rest[body.above], body.rest[body.children])
        self.logits = nn.Parameter(log_window(distances, sigma).repeat(count, 1, 1))
        shape = (count, len(surface.pixels), len(body.children), 1)
        self.twists = nn.Parameter(torch.zeros(shape).to(body.rest))  # tangents of half angles

    def parameter_groups(self) -> list[dict[str, object]]:
        """Logits of the weights and twists, each with its Adam rate."""
        return [{"params": [self.logits], "rate": _WEIGHT_RATE}, {"params": [self.twists], "rate": _TWIST_RATE}]

    def forward(self, tracks: Float[Tensor, "S T J 3"]) -> Float[Tensor, "S T M 3"]:
        """World positions of the surface points, by linear blend skinning."""
        rest = self._rest[self._children] - self._rest[self._above]
        upper_ends = tracks[:, :, self._above]
        swings = swing(rest, tracks[:, :, self._children] - upper_ends)
        twists = torch.cat([torch.ones_like(self.twists), normalize(rest, dim=-1) * self.twists], dim=-1)
        rotations = quat_to_matrix(quat_multiply(swings, twists))
        offsets = upper_ends - (rotations @ self._rest[self._above][..., None])[..., 0]
        blended = self.logits.softmax(-1)[:, None] @ torch.cat([rotations.flatten(3), offsets], dim=-1)
        rotated = (blended[..., :9].reshape(*blended.shape[:-1], 3, 3) @ self._points[..., None])[..., 0]
        moved: Tensor = rotated + blended[..., 9:]
        return moved


class LiftObjective:
    """The loss of S tracks.

    Args:
        config: Weights and scales.
        body: What moves.
        keypoints: Where the video shows its J keypoints.
        times: Of the T frames, ascending, in [0, 1].
        noise: Standard deviation of the detections, longer image sides. The noisier they are, the more a prior keeps
            the body at its depth in the first frame.
        confidence: `Lift.overall_confidence`: factor on the weight of the keypoints, where there is a surface too.
    """

    def __init__(
        self,
        config: LiftConfig,
        body: RestBody,
        keypoints: Observations,
        times: Float[Tensor, " T"],
        noise: float,
        confidence: float,
    ) -> None:
        self.config, self.body, self.keypoints, self._times = config, body, keypoints, times
        self._surface = None
        if body.surface is not None:
            self._surface = Observations(body.surface.pixels, body.surface.weights, keypoints.cameras)
        self._keypoint_weight = config.pixels * (confidence if body.surface is not None else 1.0)
        self._surface_weight = config.surface_pixels
        self._viewing_directions = keypoints.cameras.viewmats[:, 2, :3]
        self._depth_weight = config.pixels * (noise / config.body_depth) ** 2 / len(body.rest)
        self._last_scale = max(config.last_scale, 3 * noise)
        self._gait: Gait | None = None

    def new_skinning(self, count: int) -> SurfaceSkinning | None:
        """A skinning to start from for `count` tracks; None without a surface."""
        surface = self.body.surface
        return None if surface is None else SurfaceSkinning(count, self.body, surface, self.config.sigma)

    def with_keypoint_factor(self, factor: float) -> "LiftObjective":
        """The same with `factor` times the weight of the keypoints, and 1 / sqrt(factor) times that of the surface."""
        other = copy(self)
        other._keypoint_weight = self._keypoint_weight * factor
        other._surface_weight = self._surface_weight / math.sqrt(factor)
        return other

    def with_gait(self, gait: Gait) -> "LiftObjective":
        """The same with hidden bones held to those of the other side of the body."""
        other = copy(self)
        other._gait = gait
        return other

    def __call__(
        self, tracks: Float[Tensor, "S T J 3"], skinning: SurfaceSkinning | None, progress: float = 1.0
    ) -> Float[Tensor, " S"]:
        """The loss of each of the tracks.

        Args:
            tracks: Keypoints at T times, world units.
            skinning: How the surface follows each of them; None leaves the surface out.
            progress: In [0, 1]. As it grows, bones stiffen, and the scales of the robust losses shrink.
        """
        config, body = self.config, self.body
        loss = self._keypoint_weight * self.keypoints.robust_error(tracks, self._scale(self._last_scale, progress))
        depth_change = ((tracks - body.rest) * self._viewing_directions[:, None]).sum(-1)
        loss = loss + self._depth_weight * depth_change.mean(2).square().mean(1)
        if len(body.children):
            stiffness = config.first_bones * (config.last_bones / config.first_bones) ** progress
            stretch = (bone_lengths(tracks, body.parents) - body.lengths).square()
            loss = loss + stiffness * geman_mcclure(stretch, self._scale(config.stretch, progress)).mean((1, 2))
            loss = loss + config.hinges * hinge_loss(tracks, body.rest, body.parents, config.bend)
            if self.keypoints.leans is not None:
                loss = loss + config.leans * self._lean_error(tracks, self.keypoints.leans)
        if skinning is not None and self._surface is not None:
            scale = self._scale(config.surface_scale, progress)
            loss = loss + self._surface_weight * self._surface.robust_error(skinning(tracks), scale)
            loss = loss + config.twist * skinning.twists.square().mean((1, 2, 3))
        if self._gait is not None:
            loss = loss + config.gait * self._gait_error(tracks, self._gait)
        return loss + config.acceleration * acceleration_loss(tracks, self._times)

    def _lean_error(self, tracks: Float[Tensor, "S T J 3"], leans: Float[Tensor, "T J"]) -> Float[Tensor, " S"]:
        body = self.body
        bones = tracks[:, :, body.children] - tracks[:, :, body.above]
        sines = (bones * self._viewing_directions[:, None]).sum(-1) / body.lengths.clamp_min(1e-6)
        confident = leans[:, body.children] * self.keypoints.weights[:, body.children]
        return lean_loss(sines, confident)

    def _gait_error(self, tracks: Float[Tensor, "S T J 3"], gait: Gait) -> Float[Tensor, " S"]:
        """Squared distance of hidden bones from those of the other side; their sum over the number of all keypoints."""
        bones = tracks[:, :, gait.children] - tracks[:, :, self.body.parents[gait.children]]
        squared = gait.hidden * (bones - gait.bones).square().sum(-1)
        return squared.sum((1, 2)) / self.keypoints.weights.numel()

    def _scale(self, last: float, progress: float) -> float:
        """A robust scale on its way from `first_scale` to `last`."""
        first = self.config.first_scale
        return float(first * (last / first) ** min(1.0, progress / _ANNEALED))
