"""The records of a scene: posed images, keypoints, optical flow."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kg4d.data.images import resample, resize_rgba
from kg4d.data.sizes import Size
from kg4d.errors import InputError
from kg4d.gaussians.points import PointCloud
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.lenses import Undistortion
from kg4d.geometry.sampling import sample_image


@dataclass(frozen=True)
class PosedImages:
    """M images with their cameras and times: a video, a set of views, or both.

    Attributes:
        cameras: M cameras.
        images: Straight (not premultiplied) RGBA in [0, 1].
        times: In [0, 1]; 0 is the first frame.
        frames: Index of the frame of the reference video that each image shows, from 0; from the length of that video
            on for images that show none of its frames.
        views: Index of the view (camera path) that each image belongs to.
    """

    cameras: Cameras
    images: Float[Tensor, "M H W 4"]
    times: Float[Tensor, " M"]
    frames: Int[Tensor, " M"]
    views: Int[Tensor, " M"]

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(self, index: slice | Int[Tensor, " n"]) -> "PosedImages":
        """Select images, in the order of the index."""
        return replace(
            self,
            cameras=self.cameras[index],
            images=self.images[index],
            times=self.times[index],
            frames=self.frames[index],
            views=self.views[index],
        )

    def composited(self, background: Float[Tensor, " 3"]) -> Float[Tensor, "M H W 3"]:
        """The colours composited on a constant background, RGB in [0, 1]."""
        alpha = self.images[..., 3:]
        return self.images[..., :3] * alpha + background.to(alpha) * (1 - alpha)

    @property
    def alphas(self) -> Float[Tensor, "M H W 1"]:
        """The mattes."""
        return self.images[..., 3:]

    def resized(self, longer: int | Size) -> "PosedImages":
        """The same images and cameras, resampled to `longer` px along the longer side, or to that size."""
        size = Size.of(self.images.shape).within(longer)
        return replace(self, cameras=self.cameras.resized(*size), images=resize_rgba(self.images, *size))


@dataclass(frozen=True)
class Keypoints:
    """J keypoints of the reference video and of the ring, as from a detector, and the ground truth if it is known.

    Attributes:
        names: J names.
        parents: Index of the parent of each keypoint, -1 for a root.
        uv: Pixel positions in the T reference frames; finite where the weight is positive.
        weights: Confidence in [0, 1]; 0 marks positions that must not be used (hidden, outside, not detected).
        ring_uv: Pixel positions in the R ring views.
        ring_weights: Confidence of these, in [0, 1].
        leans: For each keypoint with a parent the estimated sine of the angle by which the bone from there leans away
            from the camera, in [-1, 1]; 0 where it is not known. None where no detector estimated it.
        truth: True world positions, for metrics only.
        test_uv: True pixel positions in each of the V test videos, for metrics only.
        test_visible: Whether each of these is visible.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    uv: Float[Tensor, "T J 2"]
    weights: Float[Tensor, "T J"]
    ring_uv: Float[Tensor, "R J 2"] | None = None
    ring_weights: Float[Tensor, "R J"] | None = None
    leans: Float[Tensor, "T J"] | None = None
    truth: Float[Tensor, "T J 3"] | None = None
    test_uv: Float[Tensor, "V T J 2"] | None = None
    test_visible: Bool[Tensor, "V T J"] | None = None

    def resized(self, old: Size, new: Size) -> "Keypoints":
        """The same keypoints in images of another size."""
        factors = torch.tensor([new.width / old.width, new.height / old.height])
        ring_uv = None if self.ring_uv is None else self.ring_uv * factors
        test_uv = None if self.test_uv is None else self.test_uv * factors
        return replace(self, uv=self.uv * factors, ring_uv=ring_uv, test_uv=test_uv)


@dataclass(frozen=True)
class Flow:
    """Optical flow of the reference video from each frame to the next.

    Attributes:
        flow: Displacement (dx, dy) in px, y down.
        weights: Confidence in [0, 1]; 0 on the background and where the flow is unknown.
    """

    flow: Float[Tensor, "pairs H W 2"]  # pairs = T - 1
    weights: Float[Tensor, "pairs H W"]

    def resized(self, longer: int | Size) -> "Flow":
        """The same flow with `longer` px along its longer side or of that size, in new pixels: means by confidence."""
        old = Size.of(self.flow.shape)
        new = old.within(longer)
        if old == new:
            return self
        flow, weights = _unmixed(resample(_mixable(self.flow, self.weights), *new))
        return replace(
            self, flow=flow * flow.new_tensor([new.width / old.width, new.height / old.height]), weights=weights
        )


@dataclass(frozen=True)
class Depth:
    """What is known of the depth in M images: of each up to a scale > 0 and a shift of its own.

    Attributes:
        depth: Depth along the optical axis, or its inverse.
        weights: Confidence in [0, 1]; 0 where nothing is known.
        inverse: It is one over the depth that is known up to scale and shift, as most networks tell it.
    """

    depth: Float[Tensor, "M H W"]
    weights: Float[Tensor, "M H W"]
    inverse: bool = False

    def __len__(self) -> int:
        return len(self.depth)

    def __getitem__(self, index: slice | Int[Tensor, " n"]) -> "Depth":
        """Select images, in the order of the index."""
        return replace(self, depth=self.depth[index], weights=self.weights[index])

    def to(self, device: torch.device | str) -> "Depth":
        """The same on `device`."""
        return replace(self, depth=self.depth.to(device), weights=self.weights.to(device))

    def resampled(self, size: Size) -> "Depth":
        """The same in images of another size: means by confidence."""
        if Size(self.depth.shape[2], self.depth.shape[1]) == size:
            return self
        depth, weights = _unmixed(resample(_mixable(self.depth[..., None], self.weights), *size))
        return replace(self, depth=depth[..., 0], weights=weights)

    def sampled(self, pixels: Float[Tensor, "height width 2"]) -> "Depth":
        """The same in images that show at each pixel what these show at `pixels`."""
        mixed = torch.stack([sample_image(image, pixels) for image in _mixable(self.depth[..., None], self.weights)])
        depth, weights = _unmixed(mixed)
        return replace(self, depth=depth[..., 0], weights=weights)


def _mixable(values: Float[Tensor, "M H W D"], weights: Float[Tensor, "M H W"]) -> Float[Tensor, "M H W more"]:
    """Values times their weights, and the weights: these may be averaged over pixels."""
    return torch.cat([values * weights[..., None], weights[..., None]], dim=-1)


def _unmixed(mixed: Float[Tensor, "M H W more"]) -> tuple[Float[Tensor, "M H W D"], Float[Tensor, "M H W"]]:
    weights = mixed[..., -1:]
    values = torch.where(weights > 0, mixed[..., :-1] / weights.clamp_min(torch.finfo(weights.dtype).tiny), 0)
    return values, weights[..., 0].clamp(0, 1)


@dataclass(frozen=True)
class VideoFeatures:
    """What a video shows of its own motion, as features.

    Attributes:
        maps: Feature maps of its T frames, with C = `CHANNELS`: flows of two scales both ways, their errors, and deep
            features.
        times: Of the frames, ascending, in [0, 1].
    """

    CHANNELS: ClassVar[int] = 42
    maps: Float[Tensor, "T C h w"]
    times: Float[Tensor, " T"]


@dataclass(frozen=True)
class Truth:
    """What is known of the T frames of the reference video beyond their images, for metrics only; None where it is not.

    Attributes:
        depth: Exact, world units.
        flow: From each frame to the next, in which the camera may have moved.
        moving: Where something moves by itself.
        surface: Points of the surface, world units: the same N points in all frames.
    """

    depth: Depth | None = None
    flow: Flow | None = None
    moving: Bool[Tensor, "T H W"] | None = None
    surface: Float[Tensor, "T N 3"] | None = None

    def resized(self, old: Size, longer: int | Size) -> "Truth":
        """The same in images of `longer` px along their longer side or of that size, which were `old`."""
        size = old.within(longer)
        return replace(
            self,
            depth=self.depth and self.depth.resampled(size),
            flow=self.flow and self.flow.resized(longer),
            moving=None if self.moving is None else resized_masks(self.moving, size),
        )


@dataclass(frozen=True)
class ImageFiles:
    """How images lie in their files.

    Attributes:
        grid: Size of the files.
        lenses: What undid the lens of each image; None for a pinhole.
    """

    grid: Size
    lenses: tuple[Undistortion | None, ...]

    def __getitem__(self, index: Int[Tensor, " n"]) -> "ImageFiles":
        """Select images, in the order of the index."""
        return replace(self, lenses=tuple(self.lenses[image] for image in index.tolist()))


@dataclass(frozen=True)
class Scene:
    """Everything that a fit may use, and what only metrics may (the test videos, the true keypoints).

    Attributes:
        name: For logs and folders.
        reference: The input video; its frame 0 is the input image.
        ring: A ring of views of frame 0, or None.
        keypoints: Keypoints, or None.
        flow: Flow of the reference video, or None.
        depth: Depth of the reference video from a prior, or None.
        videos: Further videos of the same moments, which a fit sees as it sees the reference video, or None.
        test: Held-out videos, never trained on, or None.
        points: Points on what the scene shows, as from structure from motion, or None.
        regions: Parts of the test images that are measured by themselves, by name.
        truth: What is known of the reference video beyond its images, for metrics only, or None.
        backdrop: The images show a whole place, not an object in front of nothing.
        depth_range: From which to which depth, along the optical axes of the cameras, the scene lies, world units; None
            where that is not stated.
        files: The image files of the reference video, for more that is given in their pixels; None without.
        cache_keys: Keys of the cached priors that the scene was made from, by provider; empty if it was not prepared
            from an image or a video.
        pictured: Whether the reference video shows the motion; else all its images are the first one, and nothing can
            be compared with them.
    """

    name: str
    reference: PosedImages
    ring: PosedImages | None = None
    keypoints: Keypoints | None = None
    flow: Flow | None = None
    depth: Depth | None = None
    test: PosedImages | None = None
    points: PointCloud | None = None
    regions: Mapping[str, Bool[Tensor, "M H W"]] = field(default_factory=dict)
    truth: Truth | None = None
    backdrop: bool = False
    depth_range: tuple[float, float] | None = None
    files: ImageFiles | None = field(default=None, compare=False)  # no part of what the scene is
    cache_keys: Mapping[str, list[str]] = field(default_factory=dict)
    videos: PosedImages | None = None
    pictured: bool = True

    def resized(self, longer: int | Size) -> "Scene":
        """The same scene at `longer` px along the longer side, or at that size, with all that is in pixels."""
        old = Size.of(self.reference.images.shape)
        return replace(
            self,
            reference=self.reference.resized(longer),
            ring=self.ring and self.ring.resized(longer),
            keypoints=self.keypoints and self.keypoints.resized(old, old.within(longer)),
            flow=self.flow and self.flow.resized(longer),
            depth=self.depth and self.depth.resampled(old.within(longer)),
            test=self.test and self.test.resized(longer),
            videos=self.videos and self.videos.resized(longer),
            regions={name: resized_masks(masks, old.within(longer)) for name, masks in self.regions.items()},
            truth=self.truth and self.truth.resized(old, longer),
        )


def resized_masks(masks: Bool[Tensor, "M H W"], size: Size) -> Bool[Tensor, "M height width"]:
    """Masks in images of another size."""
    return resample(masks[..., None].float(), *size)[..., 0] > 0.5


def view_grid(images: PosedImages) -> list[list[int]]:
    """Indices of the images, as a table of views x frames; the images of a view are in the order of time.

    Raises:
        InputError: The views do not have the same frames.
    """
    table = {
        view: sorted(torch.nonzero(images.views == view)[:, 0].tolist(), key=lambda m: float(images.times[m]))
        for view in sorted(set(images.views.tolist()))
    }
    if len({len(row) for row in table.values()}) != 1:
        counts = ", ".join(f"view {view}: {len(row)}" for view, row in table.items())
        raise InputError(
            "transforms_test.json", f"views differ in their number of frames ({counts})", "complete the videos"
        )
    return list(table.values())
