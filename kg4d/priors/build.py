"""From the settings to providers. Whatever is `auto` is decided here, once, and each choice states its reason."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import assert_never

import torch

from kg4d.data.images import quantize
from kg4d.data.videos import Clip
from kg4d.errors import InputError
from kg4d.priors.base import (
    DepthEstimator,
    FlowEstimator,
    KeypointDetector,
    KeypointTracker,
    KeypointTransfer,
    Matting,
    VideoSynthesizer,
    ViewSynthesizer,
)
from kg4d.priors.depth import FOLDER, MonocularDepth
from kg4d.priors.diffusion.settings import VideoConfig, VideoKind, ViewsKind
from kg4d.priors.diffusion.video import DiffusionVideo
from kg4d.priors.diffusion.views import Zero123PlusViews, build_views
from kg4d.priors.diffusion.zero123 import DEFAULT_MODELS
from kg4d.priors.files import SuppliedFiles, require_path
from kg4d.priors.flow import DisFlow, RaftFlow
from kg4d.priors.flow_features import DisAndVgg, FlowSource, RaftAlone
from kg4d.priors.keypoints.blazepose import load_blazepose
from kg4d.priors.keypoints.features import build_features
from kg4d.priors.keypoints.people import PersonKeypoints
from kg4d.priors.keypoints.point_tracking import build_tracker
from kg4d.priors.keypoints.pose_files.poses import Poses
from kg4d.priors.keypoints.pose_files.read import read_keypoint_file
from kg4d.priors.keypoints.settings import (
    FeaturesConfig,
    KeypointsKind,
    KeypointSourceConfig,
    PointTrackingConfig,
    TrackerKind,
)
from kg4d.priors.keypoints.transfer import ChainTransfer
from kg4d.priors.matting import GrabCutMatting, KeyMatting, RembgMatting
from kg4d.priors.plan import Choice, Plan
from kg4d.priors.saliency import NetworkMatting, StillCameraMatting, still_share
from kg4d.priors.settings import (
    DepthKind,
    DepthPriorConfig,
    FlowConfig,
    FlowFeaturesConfig,
    FlowFeaturesKind,
    FlowKind,
    MattingConfig,
    MattingKind,
    PriorsConfig,
)
from kg4d.utils.reading import is_there


def check_files(config: PriorsConfig) -> None:
    """Check that the files named in the settings exist and will be used; takes no time, as no model is looked for.

    Raises:
        InputError: A file does not exist, or would silently be ignored.
    """
    named: list[tuple[str, StrEnum, str | None]] = [
        ("matting", config.matting.kind, config.matting.path),
        ("video", config.video.kind, config.video.path),
        ("views", config.views.kind, config.views.path),
        ("keypoints", config.keypoints.kind, config.keypoints.path),
        ("flow", config.flow.kind, config.flow.path),
    ]
    for key, kind, path in named:
        if kind.value in ("files", "file") or (kind.value in ("auto", "raft") and path is not None):
            require_path(f"{key}.path", path)
        elif path is not None and kind.value not in ("none", "click"):
            remedy = f"set {key}.kind={'file' if key == 'keypoints' else 'files'}, or leave the path out"
            raise InputError(f"{key}.path", f"is not read where {key}.kind={kind.value}", remedy)


def decide(
    config: PriorsConfig, clip: Clip, video: Choice[VideoSynthesizer | SuppliedFiles | None], device: torch.device
) -> Plan:
    """Choose the provider of every prior. Models are located, but nothing is computed.

    Args:
        config: The settings, as asked for.
        clip: The input; where it is an image and a video was supplied with it, that video.
        video: The choice that `decide_video` made.
        device: Where diffusion models run.

    Raises:
        InputError: A file, model or library that was asked for or is needed is not available.
    """
    check_files(config)
    matting, keypoints, flow = _matting(config.matting, clip), _keypoints(config.keypoints), _flow(config.flow)
    views = _views(config, device)  # after the others, since it may ask the network for a model
    tracking, transfer = _tracking_and_transfer(config, keypoints, views, flow, clip)
    return Plan(matting, video, views, keypoints, tracking, transfer, flow)


def matting_for_generated(config: MattingConfig) -> Matting:
    """The provider of mattes for generated views and videos, which have no alpha channel."""
    match config.kind:
        case MattingKind.GRABCUT:
            return GrabCutMatting()
        case MattingKind.NETWORK:
            return NetworkMatting()
        case MattingKind.REMBG:
            return RembgMatting(config.model)
        case _:
            return KeyMatting(config)


def _why(kind: StrEnum, key: str) -> str:
    return f"asked for: {key}={kind.value}"


def _matting(config: MattingConfig, clip: Clip) -> Choice[Matting | SuppliedFiles | None]:
    kind, why = config.kind, _why(config.kind, "matting.kind")
    if kind is MattingKind.AUTO:
        kind, why = _matting_that_suits(config, clip)
    match kind:
        case MattingKind.ALPHA:
            if not clip.has_alpha:
                raise InputError("matting.kind", "the input has no alpha channel", "set matting.kind=auto")
            return Choice(kind.value, why, None)
        case MattingKind.FILES:
            return Choice(kind.value, why, SuppliedFiles("matting-files", require_path("matting.path", config.path)))
        case MattingKind.NETWORK:
            point = None if config.point is None else (config.point[0], config.point[1])
            return Choice(kind.value, why, NetworkMatting(point))
        case MattingKind.STILL:
            if len(clip.frames) < 3:
                what = f"the background is the median over time, of {len(clip.frames)} frames"
                raise InputError("matting.kind", what, "give a video of at least three, or set matting.kind=network")
            return Choice(kind.value, why, StillCameraMatting(config.tolerance))
        case _:
            return Choice(kind.value, why, matting_for_generated(config))


def _matting_that_suits(config: MattingConfig, clip: Clip) -> tuple[MattingKind, str]:
    """What `matting.kind=auto` means for an input, and why; the borders of the frames tell."""
    if config.path is not None:
        return MattingKind.FILES, "matting.path names masks"
    if clip.has_alpha:
        return MattingKind.ALPHA, "the input has an alpha channel"
    rgb = clip.frames[..., :3]
    if KeyMatting(config).has_even_background(rgb):
        return MattingKind.KEY, "the input has no alpha channel, and its border is of one colour"
    try:
        NetworkMatting()
    except InputError as error:
        return MattingKind.GRABCUT, f"less reliable than a network, which is not there: {error}"
    still = still_share(quantize(rgb).numpy(), config.tolerance)
    share = f"{still:.0%} of the border's pixels keep their colour"
    if len(rgb) >= 3 and still >= config.border_share:
        return MattingKind.STILL, f"the camera is still: {share}"
    what = f"the camera moves, or the object crosses the border: {share}" if len(rgb) > 1 else "the input is an image"
    return MattingKind.NETWORK, f"the background is not even, and {what}"


def decide_video(
    config: VideoConfig, clip: Clip, device: torch.device
) -> Choice[VideoSynthesizer | SuppliedFiles | None]:
    """Choose the provider of the video.

    Args:
        config: The settings of the video.
        clip: The input.
        device: Where diffusion models run.

    Raises:
        InputError: The file or the model does not exist.
    """
    if len(clip.frames) > 1:
        return Choice("given", "the input is a video", None)
    kind, why = config.kind, _why(config.kind, "video.kind")
    if kind is VideoKind.AUTO:
        kind = VideoKind.DIFFUSION if config.path is None else VideoKind.FILES
        why = "the input is a single image" if config.path is None else "video.path names a video"
    match kind:
        case VideoKind.FILES:
            return Choice(kind.value, why, SuppliedFiles("video-files", require_path("video.path", config.path)))
        case VideoKind.STILL:
            return Choice(kind.value, why, None)
        case VideoKind.DIFFUSION:
            return Choice(kind.value, why, DiffusionVideo(config, device))
        case VideoKind.AUTO:
            raise AssertionError("auto is resolved before")
        case _:
            assert_never(kind)


def _views(config: PriorsConfig, device: torch.device) -> Choice[ViewSynthesizer | SuppliedFiles | None]:
    views, matting = config.views, matting_for_generated(config.matting)
    kind, why = views.kind, _why(views.kind, "views.kind")
    if kind is ViewsKind.AUTO and views.path is not None:
        kind, why = ViewsKind.FILES, "views.path names images"
    elif kind is ViewsKind.AUTO and views.model is not None:
        kind, why = _kind_of_model(views.model), "views.model names a model of that kind"
    match kind:
        case ViewsKind.AUTO:
            why = "not asked for: views.kind=zero123 fetches 2.5 GB of weights, and wants a GPU"
            return Choice(ViewsKind.NONE.value, why, None)
        case ViewsKind.NONE:
            return Choice(kind.value, why, None)
        case ViewsKind.FILES:
            return Choice(kind.value, why, SuppliedFiles("views-files", require_path("views.path", views.path)))
        case _:
            return Choice(kind.value, why, build_views(replace(views, kind=kind), device, matting))


def _kind_of_model(model: str) -> ViewsKind:
    """The kind of a model by its name; each kind describes the camera in its own way.

    Raises:
        InputError: The name is not known.
    """
    kinds = {known: ViewsKind(kind.value) for kind, known in DEFAULT_MODELS.items()}
    kinds[Zero123PlusViews.MODEL] = ViewsKind.ZERO123PLUS
    if model not in kinds:
        remedy = "set views.kind to zero123, stable_zero123 or zero123plus"
        raise InputError("views.kind", f"the name of {model} does not tell of what kind it is", remedy)
    return kinds[model]


def detector_of(config: KeypointSourceConfig) -> KeypointDetector:
    """The detector of keypoints that the settings name.

    Raises:
        InputError: Its library or its weights are not available.
        ValueError: The settings name none.
    """
    if config.kind is KeypointsKind.BLAZEPOSE:
        return load_blazepose()
    if config.kind is KeypointsKind.PERSON:
        return PersonKeypoints(config.person)
    raise ValueError(f"keypoints.kind={config.kind} is no detector")


def _keypoints(config: KeypointSourceConfig) -> Choice[KeypointDetector | SuppliedFiles | None]:
    kind, why = config.kind, _why(config.kind, "keypoints.kind")
    if kind is KeypointsKind.AUTO:
        kind = KeypointsKind.SPREAD if config.path is None else KeypointsKind.FILE
        why = "no file of keypoints is named" if config.path is None else "keypoints.path names a file"
    match kind:
        case KeypointsKind.FILE:
            path = require_path("keypoints.path", config.path)
            return Choice(kind.value, why, SuppliedFiles("keypoints-file", path))
        case KeypointsKind.CLICK:
            if config.path is None:
                raise InputError("keypoints.path", "names no file", "name the .json that the page shall write")
            return Choice(kind.value, why, None)
        case KeypointsKind.PERSON | KeypointsKind.BLAZEPOSE:
            return Choice(kind.value, why, detector_of(config))
        case KeypointsKind.SPREAD | KeypointsKind.NONE:
            return Choice(kind.value, why, None)
        case KeypointsKind.AUTO:
            raise AssertionError("auto is resolved before")
        case _:
            assert_never(kind)


def _tracking_and_transfer(
    config: PriorsConfig,
    keypoints: Choice[KeypointDetector | SuppliedFiles | None],
    views: Choice[ViewSynthesizer | SuppliedFiles | None],
    flow: Choice[FlowEstimator | SuppliedFiles | None],
    clip: Clip,
) -> tuple[Choice[KeypointTracker | None], Choice[KeypointTransfer | None]]:
    """Choose the providers that find the keypoints of the first frame in the other frames and in the views."""
    if keypoints.kind == KeypointsKind.NONE.value:
        return Choice("none", "there are no keypoints", None), Choice("none", "there are no keypoints", None)
    if isinstance(keypoints.provider, KeypointDetector):
        why = "the detector looks at every image"
        return Choice("detector", why, None), Choice("detector", why, None)
    if keypoints.provider is not None and keypoints.provider.path.suffix == ".npz":
        return Choice("given", "the file has all frames", None), Choice("given", "the file has them, or not", None)
    estimator = (
        DisFlow(config.flow) if flow.provider is None or isinstance(flow.provider, SuppliedFiles) else flow.provider
    )
    try:
        features, missing = build_features(config.features), None
    except InputError as error:
        features, missing = None, error
    tracking = Choice[KeypointTracker | None]("given", "the file has all frames", None)
    if keypoints.provider is None or not _has_tracks(keypoints.provider.path, clip):
        tracking = _tracker(config.tracking, config.features, missing, estimator)
    if views.provider is None:
        return tracking, Choice("none", "there are no views", None)
    if features is None:
        why = f"the views get no keypoints, which switches the keypoint losses off: {missing}"
        return tracking, Choice("none", why, None)
    return tracking, Choice("chain", "the only one there is", ChainTransfer(features, config.transfer))


def _has_tracks(path: Path, clip: Clip) -> bool:
    """Whether a file of keypoints shows more than the first frame."""
    found = read_keypoint_file(path, clip.frames.shape[2], clip.frames.shape[1])
    return isinstance(found, Poses) and len(found.labels) > 1


def _tracker(
    config: PointTrackingConfig, features: FeaturesConfig, missing: InputError | None, flow: FlowEstimator
) -> Choice[KeypointTracker | None]:
    """Choose the tracker; `missing` is the error of building the features, if there was one."""
    kind, why = config.kind, _why(config.kind, "tracking.kind")
    if kind is TrackerKind.AUTO:
        kind = TrackerKind.CHAIN if missing is None else TrackerKind.KLT
        why = f"less reliable than chain, whose features are missing: {missing}" if missing else "the default"
    if kind is TrackerKind.CHAIN and missing is not None:
        raise missing
    return Choice(kind.value, why, build_tracker(replace(config, kind=kind), features, flow))


def _flow(config: FlowConfig) -> Choice[FlowEstimator | SuppliedFiles | None]:
    kind, why = config.kind, _why(config.kind, "flow.kind")
    if kind is FlowKind.AUTO:
        kind = FlowKind.DIS if config.path is None else FlowKind.FILES
        why = "the default, which needs no weights" if config.path is None else "flow.path names a file"
    match kind:
        case FlowKind.DIS:
            return Choice(kind.value, why, DisFlow(config))
        case FlowKind.RAFT:
            return Choice(kind.value, why, RaftFlow(config))
        case FlowKind.FILES:
            return Choice(kind.value, why, SuppliedFiles("flow-files", require_path("flow.path", config.path)))
        case FlowKind.NONE:
            return Choice(kind.value, why, None)
        case FlowKind.AUTO:
            raise AssertionError("auto is resolved before")
        case _:
            assert_never(kind)


def decide_depth(
    config: DepthPriorConfig, scene: Path | None, device: torch.device
) -> Choice[DepthEstimator | SuppliedFiles | None]:
    """Choose where the depth of a scene's reference video comes from.

    Args:
        config: The settings.
        scene: The folder of the scene, where it has one.
        device: Where a network runs.

    Raises:
        InputError: Files or a model that were asked for are not there, or would silently be ignored.
    """
    own = None if scene is None or not is_there(scene / FOLDER) else str(scene / FOLDER)
    kind, why = config.kind, _why(config.kind, "depth.kind")
    if kind is DepthKind.AUTO:
        kind, why = _depth_that_is_there(config, own)
    ignored = {"path": config.path, "model": config.model}
    ignored.pop({DepthKind.FILES: "path", DepthKind.NETWORK: "model"}.get(kind, ""), None)
    for key, value in ignored.items():
        if value is not None and kind is not DepthKind.NONE:
            raise InputError(f"depth.{key}", f"is not read where depth.kind={kind.value}", "leave it out")
    match kind:
        case DepthKind.FILES:
            path = config.path or own
            if path is None:
                raise InputError("depth.path", f"names no folder, and the scene has no {FOLDER}/", "give one of them")
            return Choice(kind.value, why, SuppliedFiles("depth-files", require_path("depth.path", path)))
        case DepthKind.NETWORK:
            if config.model is None:
                remedy = "set it to a hub id or a folder, such as depth-anything/Depth-Anything-V2-Small-hf"
                raise InputError("depth.model", "names no network", remedy)
            return Choice(kind.value, why, MonocularDepth(config.model, config.measure, device))
        case DepthKind.NONE:
            return Choice(kind.value, why, None)
        case DepthKind.AUTO:
            raise AssertionError("auto is resolved before")
        case _:
            assert_never(kind)


def decide_flow_features(config: FlowFeaturesConfig) -> Choice[FlowSource | SuppliedFiles]:
    """Choose where the features come from that a motion sees of the reference video.

    Args:
        config: The settings.

    Raises:
        InputError: What was asked for is not there, or would silently be ignored.
    """
    kind, why = config.kind, _why(config.kind, "flow_features.kind")
    if kind is FlowFeaturesKind.AUTO:
        kind = FlowFeaturesKind.DIS if config.path is None else FlowFeaturesKind.FILES
        why = "the default, which fetches nothing" if config.path is None else "flow_features.path names a folder"
    match kind:
        case FlowFeaturesKind.DIS:
            if config.path is not None:
                raise InputError("flow_features.path", "is not read where flow_features.kind=dis", "leave it out")
            return Choice(kind.value, why, DisAndVgg())
        case FlowFeaturesKind.RAFT:
            if config.path is not None:
                require_path("flow_features.path", config.path)
            return Choice(kind.value, why, RaftAlone(config.path))
        case FlowFeaturesKind.FILES:
            folder = require_path("flow_features.path", config.path)
            return Choice(kind.value, why, SuppliedFiles("flow-feature-files", folder))
        case FlowFeaturesKind.AUTO:
            raise AssertionError("auto is resolved before")
        case _:
            assert_never(kind)


def _depth_that_is_there(config: DepthPriorConfig, own: str | None) -> tuple[DepthKind, str]:
    if config.path is not None:
        return DepthKind.FILES, "depth.path names a folder"
    if config.model is not None:
        return DepthKind.NETWORK, "depth.model names a network"
    if own is not None:
        return DepthKind.FILES, f"the scene has {FOLDER}/"
    return DepthKind.NONE, f"the scene has no {FOLDER}/, and depth.model names no network"
