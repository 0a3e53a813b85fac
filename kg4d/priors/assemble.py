"""From an input and the choices made for it to the scene: `begin`, which costs little, then `assemble`.

Each step takes what it needs and returns what it made. Whatever is costly goes through the cache of the workbench.
"""

import logging
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d.data.images import resize_rgba
from kg4d.data.records import Flow, Keypoints, PosedImages, Scene
from kg4d.data.videos import Clip
from kg4d.errors import InputError
from kg4d.geometry.sampling import sample_image
from kg4d.keypoints.sides import other_sides
from kg4d.priors.base import (
    FlowEstimator,
    KeypointDetector,
    KeypointTracks,
    KeypointTransfer,
    Matting,
    VideoSynthesizer,
    ViewSynthesizer,
)
from kg4d.priors.build import matting_for_generated
from kg4d.priors.diffusion.views import view_angles
from kg4d.priors.files import SuppliedFiles, read_masks
from kg4d.priors.footage import findings_in_frames, findings_in_mattes
from kg4d.priors.framing import Crop, cameras_at, crop_of
from kg4d.priors.keypoints.clicked import click_keypoints
from kg4d.priors.keypoints.detected import detect_keypoints
from kg4d.priors.keypoints.flips import flipped, flips_in_video
from kg4d.priors.keypoints.marked import SupportKeypoints
from kg4d.priors.keypoints.pose_files.poses import Poses, one_individual, seen_support
from kg4d.priors.keypoints.settings import KeypointsKind
from kg4d.priors.keypoints.spread import span_bones, spread_keypoints
from kg4d.priors.keypoints.transfer import FOUND_WEIGHT
from kg4d.priors.matting import GrabCutMatting, KeyMatting, NoForegroundError, picked
from kg4d.priors.plan import Plan
from kg4d.priors.settings import MattingConfig, MattingKind, PriorsConfig
from kg4d.priors.supplied import Supplied, read_supplied
from kg4d.priors.workbench import Workbench

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MattedInput:
    """An input after the first steps.

    Attributes:
        supplied: What the person supplied, the keypoints that they clicked included.
        frames: The frames of the input with their mattes: straight RGBA in [0, 1].
    """

    supplied: Supplied
    frames: Float[Tensor, "T H W 4"]


class Views(NamedTuple):
    """R views of the first frame: the frame itself, then the others by azimuth."""

    images: Float[Tensor, "R H W 4"]
    azimuths: list[float]  # degrees, relative to the input view
    elevations: list[float]  # degrees, relative to the input view
    files: list[int]  # for all views but the first: index among the supplied or generated views
    file_scale: float  # px of the scene per px of the supplied files
    fov_y: float | None  # vertical field of view of all but the first, degrees; that of the first when None


def begin(bench: Workbench, config: PriorsConfig, plan: Plan, clip: Clip) -> MattedInput:
    """The first steps: read what was supplied, matte the input, and let the person click keypoints if they want to.

    Mistakes in files and in the input show here, before hours of work.

    Args:
        bench: Cache and notes.
        config: The settings, as asked for.
        plan: Which provider makes what, as decided.
        clip: The input.

    Raises:
        InputError: The input has no clear foreground, or files do not fit it.
    """
    supplied = read_supplied(config, plan, clip)
    if len(clip.frames) > 1:
        background_seen = plan.matting.kind not in (MattingKind.ALPHA.value, MattingKind.KEY.value)
        for finding in findings_in_frames(clip.frames, background_seen):
            bench.note(finding)
    frames = matte_input(bench, config.matting, plan.matting.provider, clip)
    if supplied.poses is not None:
        supplied = _with_one_individual(bench, supplied, supplied.poses, frames)
    if plan.keypoints.kind == KeypointsKind.CLICK.value:
        assert config.keypoints.path is not None  # checked when it was planned
        support = click_keypoints(frames[0], config.keypoints.path, config.keypoints.port)
        supplied = supplied._replace(support=support)
    return MattedInput(supplied, frames)


def assemble(bench: Workbench, config: PriorsConfig, plan: Plan, matted: MattedInput, name: str) -> tuple[Scene, Crop]:
    """The other steps: crop, video, views, keypoints, flow.

    Args:
        bench: Cache and notes.
        config: The settings, as asked for.
        plan: Which provider makes what, as decided.
        matted: What `begin` made of the input.
        name: Name of the scene.

    Returns:
        The scene, and the crop of the input that its images show.

    Raises:
        InputError: Nothing of the input is opaque, a supplied keypoint is far from the object, or a provider failed.
    """
    supplied = matted.supplied
    crop = crop_of(matted.frames[..., 3:], config.framing)
    if crop.scale > 2:
        bench.note(f"the object is small in the input: it is enlarged {crop.scale:.1f} times")
    video = make_video(bench, config, plan.video.provider, crop.images(matted.frames))
    views = make_views(bench, config, plan.views.provider, video[0], supplied.views)
    keypoints = make_keypoints(bench, config, plan, video, views, supplied, crop)
    flow = make_flow(bench, plan.flow.provider, video, supplied.flow, crop)
    level = config.views.reference_elevation
    reference, ring = pose_video(video, level), None if views is None else pose_views(views, level)
    return Scene(name, reference, ring, keypoints, flow), crop


def matte_input(
    bench: Workbench, config: MattingConfig, provider: Matting | SuppliedFiles | None, clip: Clip
) -> Float[Tensor, "T H W 4"]:
    """The frames of the input with their mattes; what is odd about these is noted.

    Args:
        bench: Cache and notes.
        config: The settings of matting.
        provider: Makes the mattes; None keeps the alpha channel of the input.
        clip: The input.

    Raises:
        InputError: There is no clear foreground, masks do not fit, a matte is empty, or only some frames have an alpha
            channel.
    """
    rgb, mattes = clip.frames[..., :3], _mattes_of_input(bench, config, provider, clip)
    if config.point is not None:
        mattes = picked(mattes, (config.point[0], config.point[1]))
    empty = (mattes <= 0.5).flatten(1).all(1).tolist()
    if any(empty):
        what = f"nothing is opaque in {clip.names[empty.index(True)]}"
        remedy = "leave that frame out (start=, end=, every=), or give another matte (matting.kind, matting.path)"
        raise InputError("matting", what, remedy)
    for finding in findings_in_mattes(mattes, clip.names):
        bench.note(finding)
    return torch.cat([rgb, mattes], dim=-1)


def _mattes_of_input(
    bench: Workbench, config: MattingConfig, provider: Matting | SuppliedFiles | None, clip: Clip
) -> Float[Tensor, "T H W 1"]:
    match provider:
        case None:
            if config.kind is MattingKind.AUTO and clip.opaque:
                what = f"{clip.opaque[0]} has no transparent pixel, other frames have some"
                remedy = "give all frames an alpha channel, or set matting.kind=key, or alpha to take it as it is"
                raise InputError("matting.kind", what, remedy)
            return clip.frames[..., 3:]
        case SuppliedFiles(path=folder):
            return read_masks(folder, clip)
        case _:
            try:
                return _matte(bench, provider, clip.frames[..., :3], "the input")[..., 3:]
            except NoForegroundError as error:
                raise InputError(error.where, f"{clip.names[error.frame]}: {error.what}", error.remedy) from error


def make_video(
    bench: Workbench,
    config: PriorsConfig,
    provider: VideoSynthesizer | SuppliedFiles | None,
    cropped: Float[Tensor, "T H W 4"],
) -> Float[Tensor, "frames H W 4"]:
    """The input itself if it is a video, else a video that begins with it.

    Args:
        bench: Cache and notes.
        config: The settings; `video.frames` is the length of a generated video.
        provider: Makes the video; None, or files, where the input is one already.
        cropped: The matted input in its crop; one frame where it is an image.

    Returns:
        Straight RGBA in [0, 1].
    """
    if provider is None or isinstance(provider, SuppliedFiles):  # supplied files have become the clip
        return cropped
    first, count = cropped[0], config.video.frames
    inputs = {"image": first, "frames": torch.tensor(count)}
    made = bench.run(provider, inputs, lambda: {"rgb": provider(first, count)})
    rgb = made["rgb"][1:]
    try:
        later = _matte(bench, matting_for_generated(config.matting), rgb, "the video that was made")
    except InputError as error:
        what = f"the video that {provider.name} made cannot be matted ({error.what})"
        bench.note(f"{what}: all frames take the matte of the first; look at it")
        later = torch.cat([rgb, first[..., 3:].expand(len(rgb), -1, -1, -1)], dim=-1)
    return torch.cat([first[None], later])


def make_views(
    bench: Workbench,
    config: PriorsConfig,
    provider: ViewSynthesizer | SuppliedFiles | None,
    first: Float[Tensor, "H W 4"],
    supplied: Float[Tensor, "R side side 4"] | None,
) -> Views | None:
    """Views of the first frame from other cameras; None if they are switched off.

    A view that cannot be matted is left out; so is one from the camera of the input.

    Args:
        bench: Cache and notes.
        config: The settings; `views` says from where.
        provider: Makes the views.
        first: The first frame of the video: straight RGBA in [0, 1].
        supplied: The views that a person supplied, in place of the provider's.
    """
    if provider is None:
        return None
    azimuths, elevations = view_angles(config.views)
    unmatted = _unmatted_views(bench, provider, first, (azimuths, elevations), supplied)
    kept, matting = [first], matting_for_generated(config.matting)
    angles, files = [(0.0, 0.0)], []
    for index in sorted(range(len(azimuths)), key=lambda view: azimuths[view] % 360):
        angle = (azimuths[index] % 360, elevations[index])
        if angle == (0.0, 0.0):
            continue
        what, image = f"the view at azimuth {azimuths[index]:g}", unmatted.images[index]
        try:
            kept.append(image if unmatted.has_alpha[index] else _matte(bench, matting, image[None, ..., :3], what)[0])
        except InputError as error:
            bench.note(f"{what} is left out: {error.what}")
            continue
        angles.append(angle)
        files.append(index)
    _warn_of_another_scale(kept)
    kept_azimuths, kept_elevations = [angle[0] for angle in angles], [angle[1] for angle in angles]
    return Views(torch.stack(kept), kept_azimuths, kept_elevations, files, unmatted.file_scale, unmatted.fov_y)


def make_keypoints(
    bench: Workbench,
    config: PriorsConfig,
    plan: Plan,
    video: Float[Tensor, "T H W 4"],
    views: Views | None,
    supplied: Supplied,
    crop: Crop,
) -> Keypoints | None:
    """The keypoints of the video and of the views; None if they are switched off.

    Args:
        bench: Cache and notes.
        config: The settings, as asked for.
        plan: Which provider makes what, as decided.
        video: The frames of the scene: straight RGBA in [0, 1].
        views: Views of its first frame.
        supplied: Keypoints of the first frame or of all frames, if a person supplied them, in pixels of the input.
        crop: The crop of the input that the scene shows.
    """
    detector = plan.keypoints.provider
    if plan.keypoints.kind == KeypointsKind.NONE.value:
        return None
    if isinstance(detector, KeypointDetector):
        return _detected(bench, detector, video, views, config.views.reference_elevation)
    if supplied.tracks is not None:
        return _supplied_tracks(supplied.tracks, views, crop)
    if supplied.poses is not None:
        poses = _unflipped(bench, supplied.poses) if config.keypoints.unflip else supplied.poses
        return _tracks_of_poses(bench, plan.transfer.provider, poses, video, views, crop)
    if supplied.support is not None:
        support = _support_in_crop(bench, supplied.support, video[0], crop)
    else:
        support = spread_keypoints(video[0], config.keypoints.count)
    tracker, start = plan.tracking.provider, support.uv
    assert tracker is not None  # whoever plans keypoints plans their tracking
    tracks = bench.tracks(tracker, {"video": video, "start": start}, lambda: tracker(video, start))
    parents = support.parents
    if plan.keypoints.kind == KeypointsKind.SPREAD.value:  # the motion shows which bones were wrong
        parents = span_bones(tracks, video[..., 3:])
    ring_uv, ring_weights = _transferred(bench, plan.transfer.provider, support, views)
    return Keypoints(support.names, parents, tracks.uv, tracks.weights, ring_uv, ring_weights)


def make_flow(
    bench: Workbench,
    provider: FlowEstimator | SuppliedFiles | None,
    video: Float[Tensor, "T H W 4"],
    supplied: Flow | None,
    crop: Crop,
) -> Flow | None:
    """Optical flow of the video; None if it is switched off, or the video is a picture.

    Args:
        bench: Cache and notes.
        provider: Estimates the flow.
        video: The frames of the scene: straight RGBA in [0, 1].
        supplied: The flow that a person supplied, in pixels of the input, in place of the provider's.
        crop: The crop of the input that the scene shows.
    """
    if supplied is not None:
        return crop.flow(supplied)
    if provider is None or isinstance(provider, SuppliedFiles) or len(video) < 2:
        return None
    return bench.flow(provider, video)


def pose_video(video: Float[Tensor, "T H W 4"], elevation: float) -> PosedImages:
    """The frames with the camera of the input, `elevation` degrees above the horizon."""
    count, (height, width) = len(video), video.shape[1:3]
    frames = torch.arange(count)
    cameras = cameras_at([0.0] * count, [elevation] * count, width, height)
    return PosedImages(cameras, video, frames / max(1, count - 1), frames, torch.zeros_like(frames))


def pose_views(views: Views, elevation: float) -> PosedImages:
    """The views with their cameras; that of the input is `elevation` degrees above the horizon."""
    count, (height, width) = len(views.images), views.images.shape[1:3]
    elevations = [elevation + relative for relative in views.elevations]
    cameras = cameras_at(views.azimuths, elevations, width, height, views.fov_y)
    first_frame = torch.zeros(count, dtype=torch.int64)
    return PosedImages(cameras, views.images, torch.zeros(count), first_frame, torch.arange(count))


def _matte(bench: Workbench, provider: Matting, rgb: Float[Tensor, "T H W 3"], what: str) -> Float[Tensor, "T H W 4"]:
    """Images with their mattes; `what` names the images in notes."""
    if isinstance(provider, GrabCutMatting) or (
        isinstance(provider, KeyMatting) and not provider.has_even_background(rgb)
    ):
        bench.note(f"the background of {what} is not even: the object is guessed by GrabCut; look at the preview")
    alpha = bench.run(provider, {"rgb": rgb}, lambda: {"alpha": provider(rgb)})["alpha"]
    return torch.cat([rgb, alpha], dim=-1)


class _UnmattedViews(NamedTuple):
    images: Float[Tensor, "R H W 4"]
    has_alpha: Bool[Tensor, " R"]
    file_scale: float
    fov_y: float | None


def _unmatted_views(
    bench: Workbench,
    provider: ViewSynthesizer | SuppliedFiles,
    first: Float[Tensor, "H W 4"],
    angles: tuple[list[float], list[float]],
    supplied: Float[Tensor, "R side side 4"] | None,
) -> _UnmattedViews:
    """The supplied views at the size of the scene, or those that the provider makes."""
    if supplied is not None:
        size = first.shape[0]
        has_alpha = (supplied[..., 3] < 1).flatten(1).any(1)
        return _UnmattedViews(resize_rgba(supplied, size, size), has_alpha, size / supplied.shape[1], None)
    assert not isinstance(provider, SuppliedFiles)
    inputs = {"image": first, "cameras": torch.tensor(angles)}
    rgb = bench.run(provider, inputs, lambda: {"rgb": provider(first, *angles)})["rgb"]
    images = torch.cat([rgb, torch.ones_like(rgb[..., :1])], dim=-1)
    return _UnmattedViews(images, torch.zeros(len(rgb), dtype=torch.bool), 1.0, provider.fov_y)


def _support_in_crop(
    bench: Workbench, support: SupportKeypoints, first: Float[Tensor, "H W 4"], crop: Crop
) -> SupportKeypoints:
    """Keypoints that a person marked, in pixels of the scene.

    Raises:
        InputError: One is so far from the object that it lies outside the crop.
    """
    uv, size = crop.points(support.uv), crop.size
    outside_crop = ((uv < 0) | (uv > size)).any(-1)
    for name, position, outside in zip(support.names, support.uv.tolist(), outside_crop, strict=True):
        if outside:
            what = f"{name!r} at ({position[0]:g}, {position[1]:g}) is far off the object"
            raise InputError("keypoints", what, "give pixels of the input's first frame")
    near = F.max_pool2d(first[None, ..., 3], 2 * (size // 32) + 1, 1, size // 32)
    for name, alpha in zip(support.names, sample_image(near[0, ..., None], uv)[..., 0].tolist(), strict=True):
        if alpha < 0.5:
            bench.note(f"keypoint {name!r} lies beside the object; look at the preview")
    return SupportKeypoints(support.names, support.parents, uv)


def _transferred(
    bench: Workbench, provider: KeypointTransfer | None, support: SupportKeypoints, views: Views | None
) -> tuple[Float[Tensor, "R J 2"], Float[Tensor, "R J"]] | tuple[None, None]:
    """Positions and weights of the keypoints in the views; in the first view they are known."""
    if views is None or provider is None:
        return None, None
    first, others = views.images[0], views.images[1:]
    known = KeypointTracks(support.uv[None], torch.ones(1, len(support.names)))
    if not len(others):
        return known.uv, known.weights
    inputs = {"support": first, "uv": support.uv, "views": others}
    found = bench.tracks(provider, inputs, lambda: provider(first, support.uv, others))
    return torch.cat([known.uv, found.uv]), torch.cat([known.weights, FOUND_WEIGHT * found.weights])


def _detected(
    bench: Workbench, detector: KeypointDetector, video: Float[Tensor, "T H W 4"], views: Views | None, level: float
) -> Keypoints:
    """The keypoints that a detector finds in every image; the first view is the first frame."""
    if views is None:
        return detect_keypoints(bench, detector, video)
    cameras = pose_views(views, level).cameras
    found = detect_keypoints(bench, detector, video, views.images[1:], cameras)
    assert found.ring_uv is not None
    assert found.ring_weights is not None
    ring_uv, ring_weights = torch.cat([found.uv[:1], found.ring_uv]), torch.cat([found.weights[:1], found.ring_weights])
    return replace(found, ring_uv=ring_uv, ring_weights=ring_weights)


def _supplied_tracks(supplied: Keypoints, views: Views | None, crop: Crop) -> Keypoints:
    """Keypoints that a person supplied for all frames, in pixels of the scene."""
    uv, ring_uv, ring_weights = crop.points(supplied.uv), None, None
    if views is not None and supplied.ring_uv is not None and supplied.ring_weights is not None:
        ring_uv = torch.cat([uv[:1], supplied.ring_uv[views.files] * views.file_scale])
        ring_weights = torch.cat([supplied.weights[:1], supplied.ring_weights[views.files]])
    return Keypoints(supplied.names, supplied.parents, uv, supplied.weights, ring_uv, ring_weights)


def _with_one_individual(
    bench: Workbench, supplied: Supplied, poses: Poses, frames: Float[Tensor, "T H W 4"]
) -> Supplied:
    """The same with the poses of one individual; in the first frame alone they count as marked there."""
    chosen, note = one_individual(poses, frames[..., 3:])
    if note:
        bench.note(note)
    if len(chosen.labels) > 1:
        return supplied._replace(poses=chosen)
    support = seen_support(chosen)
    if len(support.names) < len(chosen.names):
        missing = ", ".join(name for name in chosen.names if name not in support.names)
        bench.note(f"the first frame shows no {missing}: left out")
    return supplied._replace(poses=None, support=support)


def _unflipped(bench: Workbench, poses: Poses) -> Poses:
    """The poses of one individual with left and right as in most frames; what is exchanged is noted."""
    others, tracks = other_sides(poses.names), KeypointTracks(poses.uv[:, 0], poses.weights[:, 0])
    flips = flips_in_video(tracks, others)
    if not flips.any():
        return poses
    frames = ", ".join(label for label, flip in zip(poses.labels, flips.tolist(), strict=True) if flip)
    what = f"left and right are exchanged in frames {frames} of the file, as keypoints move less that way"
    bench.note(f"{what}; keypoints.unflip=false keeps them")
    tracks = flipped(tracks, others, flips)
    return replace(poses, uv=tracks.uv[:, None], weights=tracks.weights[:, None])


def _tracks_of_poses(
    bench: Workbench,
    transfer: KeypointTransfer | None,
    poses: Poses,
    video: Float[Tensor, "T H W 4"],
    views: Views | None,
    crop: Crop,
) -> Keypoints:
    """The poses of one individual in all frames, in pixels of the scene, with bones; transferred to the views."""
    uv, weights = crop.points(poses.uv[:, 0]), poses.weights[:, 0]
    parents = poses.parents
    if parents is None:
        parents = span_bones(KeypointTracks(uv, weights), video[..., 3:])
    support = SupportKeypoints(poses.names, parents, uv[0])
    ring_uv, ring_weights = _transferred(bench, transfer, support, views)
    if ring_weights is not None:  # nobody knows where the others are in the first frame
        ring_weights = ring_weights * (weights[0] > 0)
    return Keypoints(poses.names, parents, uv, weights, ring_uv, ring_weights)


def _warn_of_another_scale(views: list[Float[Tensor, "H W 4"]]) -> None:
    """Warn if the object is much taller or shorter in the other views than in the first.

    A ring of views around an upright object shows it at about the same height; some tools frame each view anew.
    """
    heights = [float((view[..., 3] > 0.5).any(1).float().sum()) for view in views]
    median = sorted(heights[1:])[len(heights[1:]) // 2] if len(heights) > 1 else heights[0]
    if not 0.75 < median / max(heights[0], 1) < 1.33:
        what = "the object is %.2f times as high in the views as in the input: are they framed alike?"
        _log.warning(what, median / max(heights[0], 1))
