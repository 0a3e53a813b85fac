"""All priors of one input together: the scene in memory. Whatever is costly goes through the cache."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kg4d.data.images import resize_rgba
from kg4d.data.records import Flow, Keypoints, PosedImages, Scene
from kg4d.data.videos import Clip
from kg4d.errors import InputError
from kg4d.geometry.sampling import sample_image
from kg4d.priors.base import KeypointTracks, Matting, Provider
from kg4d.priors.build import PriorsConfig, matting_of_made
from kg4d.priors.cache.store import PriorCache
from kg4d.priors.diffusion.views import cameras_of
from kg4d.priors.files import GivenFiles, read_masks
from kg4d.priors.framing import Crop, cameras_at, crop_of
from kg4d.priors.given import Given, read_given
from kg4d.priors.keypoints.marked import KeypointsKind, SupportKeypoints
from kg4d.priors.keypoints.people import COCO_NAMES, COCO_PARENTS, PersonKeypoints
from kg4d.priors.keypoints.spread import span_bones, spread_keypoints
from kg4d.priors.keypoints.transfer import FOUND_WEIGHT
from kg4d.priors.matting import KeyMatting, MattingKind
from kg4d.priors.plan import Plan
from kg4d.priors.progress import listening
from kg4d.utils.logs import progress_bar

_log = logging.getLogger(__name__)


class Views(NamedTuple):
    """Views of the first frame, the frame itself first, then by azimuth."""

    images: Float[Tensor, "R H W 4"]
    azimuths: list[float]
    elevations: list[float]
    files: list[int]  # which of the files each but the first is, where files give them
    file_scale: float  # px of the scene per px of the files
    fov_y: float | None  # of all but the first, degrees; that of the first when None


@dataclass(frozen=True)
class Assembly:
    """One input on its way to a scene.

    Attributes:
        config: Who makes what, as asked for.
        clip: The input.
        plan: Who makes what, as decided.
        cache: What was made before.
        notes: What a person should look at, filled while the scene is made; also in the log.
    """

    config: PriorsConfig
    clip: Clip
    plan: Plan
    cache: PriorCache
    notes: list[str] = field(default_factory=list)

    def scene(self, name: str) -> Scene:
        """Make everything.

        Raises:
            InputError: The input has no clear foreground, or files do not fit it.
        """
        _ = self.given  # a mistake in a file shows before hours of work
        if self.frame.scale > 2:
            self._note(f"the object is small in the input: it is enlarged {self.frame.scale:.1f} times")
        level, count = self.config.views.reference_elevation, len(self.video)
        views = self._views()
        ring = None
        if views is not None:
            elevations = [level + elevation for elevation in views.elevations]
            still = torch.zeros(len(views.images), dtype=torch.int64)
            where = (views.azimuths, elevations, still, torch.arange(len(still)))
            ring = self._posed(views.images, *where, views.fov_y)
        frames = torch.arange(count)
        reference = self._posed(self.video, [0.0] * count, [level] * count, frames, torch.zeros_like(frames))
        return Scene(name, reference, ring, self._keypoints(views), self._flow())

    @cached_property
    def given(self) -> Given:
        """What a person supplied."""
        return read_given(self.config, self.plan, self.clip, lambda: self.matted[0])

    @cached_property
    def matted(self) -> Float[Tensor, "T H W 4"]:
        """The input with its matte."""
        rgb = self.clip.frames[..., :3]
        match self.plan.matting.provider:
            case None:
                if self.config.matting.kind is MattingKind.AUTO and self.clip.opaque:
                    what = f"{self.clip.opaque[0]} has no transparent pixel, other frames have some"
                    remedy = "give all frames an alpha channel, or set matting.kind=key, or alpha to take it as it is"
                    raise InputError("matting.kind", what, remedy)
                return self.clip.frames
            case GivenFiles(path=folder):
                return torch.cat([rgb, read_masks(folder, self.clip)], dim=-1)
            case provider:
                return self._matte(provider, rgb, "the input")

    @cached_property
    def frame(self) -> Crop:
        """The square around the object."""
        return crop_of(self.matted[..., 3:], self.config.framing)

    @cached_property
    def video(self) -> Float[Tensor, "T H W 4"]:
        """The input in its frame where it is a video, else a video that begins with it."""
        framed, provider = self.frame.images(self.matted), self.plan.video.provider
        if provider is None or isinstance(provider, GivenFiles):  # then the files are the clip
            return framed
        first, count = framed[0], self.config.video.frames
        inputs = {"image": first, "frames": torch.tensor(count)}
        made = self._make(provider, inputs, lambda: {"rgb": provider(first, count)})
        rgb = made["rgb"][1:]
        try:
            later = self._matte(matting_of_made(self.config.matting), rgb, "the video that was made")
        except InputError as error:
            what = f"the video that {provider.name} made cannot be matted ({error.what})"
            self._note(f"{what}: all frames take the matte of the first; look at it")
            later = torch.cat([rgb, first[..., 3:].expand(len(rgb), -1, -1, -1)], dim=-1)
        return torch.cat([first[None], later])

    def _make(
        self, provider: Provider, inputs: Mapping[str, Tensor], make: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        with progress_bar(provider.name, self.config.progress_bar) as report, listening(report):
            return self.cache.get_or_make(provider, inputs, make)

    def _note(self, words: str) -> None:
        _log.warning(words)
        self.notes.append(words)

    def _matte(self, provider: Matting, rgb: Float[Tensor, "T H W 3"], what: str) -> Float[Tensor, "T H W 4"]:
        if isinstance(provider, KeyMatting) and not provider.sees_even(rgb):
            self._note(f"the background of {what} is not even: the object is guessed by GrabCut; look at the preview")
        alpha = self._make(provider, {"rgb": rgb}, lambda: {"alpha": provider(rgb)})["alpha"]
        return torch.cat([rgb, alpha], dim=-1)

    def _posed(
        self,
        images: Float[Tensor, "M H W 4"],
        azimuths: list[float],
        elevations: list[float],
        frames: Tensor,
        views: Tensor,
        fov_y: float | None = None,
    ) -> PosedImages:
        height, width = images.shape[1:3]
        cameras = cameras_at(azimuths, elevations, width, height, fov_y)
        return PosedImages(cameras, images, frames / max(1, int(frames.max())), frames, views)

    def _views(self) -> Views | None:
        """Views that cannot be matted are left out; so is one from where the input was taken."""
        provider = self.plan.views.provider
        if provider is None:
            return None
        first, size = self.video[0], self.config.framing.size
        azimuths, elevations = cameras_of(self.config.views)
        fov_y = None
        if (given := self.given.views) is not None:
            scale = size / given.shape[1]
            images, has_alpha = resize_rgba(given, size, size), (given[..., 3] < 1).flatten(1).any(1)
        else:
            assert not isinstance(provider, GivenFiles)
            fov_y = provider.fov_y
            inputs = {"image": first, "cameras": torch.tensor([azimuths, elevations])}
            rgb = self._make(provider, inputs, lambda: {"rgb": provider(first, azimuths, elevations)})["rgb"]
            images, scale = torch.cat([rgb, torch.ones_like(rgb[..., :1])], dim=-1), 1.0
            has_alpha = torch.zeros(len(rgb), dtype=torch.bool)
        kept, matting = [first], matting_of_made(self.config.matting)
        cameras, order = [(0.0, 0.0)], []
        for index in sorted(range(len(azimuths)), key=lambda view: azimuths[view] % 360):
            camera = (azimuths[index] % 360, elevations[index])
            if camera == (0.0, 0.0):
                continue
            what, rgb = f"the view at azimuth {azimuths[index]:g}", images[index : index + 1, ..., :3]
            try:
                kept.append(images[index] if has_alpha[index] else self._matte(matting, rgb, what)[0])
            except InputError as error:
                self._note(f"{what} is left out: {error.what}")
                continue
            cameras.append(camera)
            order.append(index)
        _warn_of_another_scale(kept)
        return Views(torch.stack(kept), [c[0] for c in cameras], [c[1] for c in cameras], order, scale, fov_y)

    def _keypoints(self, views: Views | None) -> Keypoints | None:
        detector = self.plan.keypoints.provider
        if self.plan.keypoints.kind == KeypointsKind.NONE.value:
            return None
        if isinstance(detector, PersonKeypoints):
            return self._person(detector, views)
        if self.given.tracks is not None:
            return self._given_tracks(self.given.tracks, views)
        support = self._support()
        tracker = self.plan.tracking.provider
        assert tracker is not None  # whoever plans keypoints plans their tracking
        start = support.uv
        tracks = self._tracks(tracker, {"video": self.video, "start": start}, lambda: tracker(self.video, start))
        parents = support.parents
        if self.plan.keypoints.kind == KeypointsKind.SPREAD.value:  # the motion tells which bones are none
            parents = span_bones(tracks, self.video[..., 3:])
        return Keypoints(support.names, parents, tracks.uv, tracks.weights, *self._transferred(support, views))

    def _support(self) -> SupportKeypoints:
        """Keypoints of the first frame, in pixels of the scene.

        Raises:
            InputError: One is so far from the object that the scene does not show its place.
        """
        found, first = self.given.support, self.video[0]
        if found is None:
            return spread_keypoints(first, self.config.keypoints.count)
        uv, size = self.frame.points(found.uv), self.config.framing.size
        for name, place, outside in zip(found.names, found.uv.tolist(), ((uv < 0) | (uv > size)).any(-1), strict=True):
            if outside:
                what = f"{name!r} at ({place[0]:g}, {place[1]:g}) is far off the object"
                raise InputError("keypoints", what, "give pixels of the input's first frame")
        near = F.max_pool2d(first[None, ..., 3], 2 * (size // 32) + 1, 1, size // 32)
        for name, alpha in zip(found.names, sample_image(near[0, ..., None], uv)[..., 0].tolist(), strict=True):
            if alpha < 0.5:
                self._note(f"keypoint {name!r} lies beside the object; look at the preview")
        return SupportKeypoints(found.names, found.parents, uv)

    def _tracks(
        self, provider: Provider, inputs: Mapping[str, Tensor], find: Callable[[], KeypointTracks]
    ) -> KeypointTracks:
        def make() -> dict[str, Tensor]:
            found = find()
            return {"uv": found.uv, "weights": found.weights}

        made = self._make(provider, inputs, make)
        return KeypointTracks(made["uv"], made["weights"])

    def _transferred(
        self, support: SupportKeypoints, views: Views | None
    ) -> tuple[Float[Tensor, "R J 2"], Float[Tensor, "R J"]] | tuple[None, None]:
        """Keypoints of the views; in the first they are known."""
        provider = self.plan.transfer.provider
        if views is None or provider is None:
            return None, None
        first, others = views.images[0], views.images[1:]
        known = KeypointTracks(support.uv[None], torch.ones(1, len(support.names)))
        if not len(others):
            return known.uv, known.weights
        inputs = {"support": first, "uv": support.uv, "views": others}
        found = self._tracks(provider, inputs, lambda: provider(first, support.uv, others))
        return torch.cat([known.uv, found.uv]), torch.cat([known.weights, FOUND_WEIGHT * found.weights])

    def _person(self, detector: PersonKeypoints, views: Views | None) -> Keypoints:
        found = self._tracks(detector, {"images": self.video}, lambda: detector(self.video))
        if views is None:
            return Keypoints(COCO_NAMES, COCO_PARENTS, found.uv, found.weights)
        around = self._tracks(detector, {"images": views.images}, lambda: detector(views.images))
        return Keypoints(COCO_NAMES, COCO_PARENTS, found.uv, found.weights, around.uv, around.weights)

    def _given_tracks(self, found: Keypoints, views: Views | None) -> Keypoints:
        uv, ring_uv, ring_weights = self.frame.points(found.uv), None, None
        if views is not None and found.ring_uv is not None and found.ring_weights is not None:
            ring_uv = torch.cat([uv[:1], found.ring_uv[views.files] * views.file_scale])
            ring_weights = torch.cat([found.weights[:1], found.ring_weights[views.files]])
        return Keypoints(found.names, found.parents, uv, found.weights, ring_uv, ring_weights)

    def _flow(self) -> Flow | None:
        if self.given.flow is not None:
            return self.frame.flow(self.given.flow)
        match self.plan.flow.provider:
            case None | GivenFiles():
                return None
            case provider:

                def make() -> dict[str, Tensor]:
                    found = provider(self.video)
                    return {"flow": found.flow, "weights": found.weights}

                made = self._make(provider, {"video": self.video}, make)
                return Flow(made["flow"], made["weights"])


def _warn_of_another_scale(views: list[Float[Tensor, "H W 4"]]) -> None:
    """A ring around an upright object keeps its height, roughly; other tools frame as they like."""
    heights = [float((view[..., 3] > 0.5).any(1).float().sum()) for view in views]
    median = sorted(heights[1:])[len(heights[1:]) // 2] if len(heights) > 1 else heights[0]
    if not 0.75 < median / max(heights[0], 1) < 1.33:
        what = "the object is %.2f times as high in the views as in the input: are they framed alike?"
        _log.warning(what, median / max(heights[0], 1))
