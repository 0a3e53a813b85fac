"""Detecting keypoints and flow of a scene folder again, as if only the keypoints of its first frame were known."""

import logging
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from kg4d.data.readers.viewpoints import looked_at
from kg4d.data.records import Flow, Keypoints, PosedImages, Scene
from kg4d.data.videos import Clip
from kg4d.errors import InputError
from kg4d.geometry.cameras import joined
from kg4d.priors.base import FlowEstimator, KeypointTracker, KeypointTransfer
from kg4d.priors.build import decide, decide_video, detector_of
from kg4d.priors.cache.store import PriorCache
from kg4d.priors.diffusion.settings import ViewsKind
from kg4d.priors.files import SuppliedFiles
from kg4d.priors.keypoints.detected import detect_keypoints
from kg4d.priors.keypoints.features import build_features
from kg4d.priors.keypoints.settings import KeypointsKind
from kg4d.priors.keypoints.transfer import FOUND_WEIGHT, ChainTransfer
from kg4d.priors.plan import Plan
from kg4d.priors.settings import PriorsConfig
from kg4d.priors.workbench import Workbench

_log = logging.getLogger(__name__)


def redetected(scene: Scene, config: PriorsConfig) -> Scene:
    """The scene with keypoints that were tracked and transferred from its first frame, and with estimated flow.

    Where `keypoints.kind` names a detector of people, its keypoints are detected in every image instead, and those of
    the scene are not used, not even by metrics: they have other names.

    A keypoint that is hidden in the first frame has weight 0 everywhere: nobody could have marked it. What only metrics
    may use (truth, test videos) stays as it is.

    Args:
        scene: Its images and the keypoints of its first frame are used.
        config: The providers: `tracking`, `features`, `transfer` and `flow`.

    Raises:
        InputError: The scene has no keypoints in its first frame, or a provider is not available.
    """
    if config.keypoints.kind in (KeypointsKind.PERSON, KeypointsKind.BLAZEPOSE):
        return _detected(scene, config)
    given = scene.keypoints
    if given is None or not bool((given.weights[0] > 0).any()):
        what = "the scene has no keypoints in its first frame to start from"
        raise InputError("detections.source", what, "set detections.source=given")
    plan, bench = _plan(scene, config), Workbench(PriorCache(config.cache), config.progress_bar)
    assert plan.tracking.provider is not None  # keypoints were asked for
    _log.info("%s: keypoints tracked by %s (%s)", scene.name, plan.tracking.kind, plan.tracking.why)
    keypoints = _tracked(bench, plan.tracking.provider, scene.reference, given)
    transfer = None if scene.ring is None else _build_transfer(config)
    if scene.ring is not None and transfer is not None:
        keypoints = _transferred(bench, transfer, scene.reference[:1], scene.ring, keypoints)
    flow = _estimated_flow(bench, plan.flow.provider, scene.reference)
    return replace(scene, keypoints=keypoints, flow=flow, cache_keys={**scene.cache_keys, **bench.cache.used})


def _detected(scene: Scene, config: PriorsConfig) -> Scene:
    """The scene with the keypoints of a detector, and with estimated flow."""
    plan, bench = _plan(scene, config), Workbench(PriorCache(config.cache), config.progress_bar)
    detector = detector_of(config.keypoints)
    _log.info("%s: keypoints detected by %s in every image", scene.name, detector.name)
    video, ring = scene.reference, scene.ring
    if ring is None:
        keypoints = detect_keypoints(bench, detector, video.images)
    else:
        keypoints = detect_keypoints(
            bench, detector, video.images, ring.images, joined([video[:1].cameras, ring.cameras])
        )
    flow = _estimated_flow(bench, plan.flow.provider, scene.reference)
    return replace(scene, keypoints=keypoints, flow=flow, cache_keys={**scene.cache_keys, **bench.cache.used})


def _plan(scene: Scene, config: PriorsConfig) -> Plan:
    """The choice of tracker and flow estimator, as for an input video; nothing else has to be made."""
    views, keypoints = replace(config.views, kind=ViewsKind.NONE), replace(config.keypoints, kind=KeypointsKind.SPREAD)
    config = replace(config, views=views, keypoints=keypoints)
    count = len(scene.reference)
    clip, device = Clip(scene.reference.images, 1.0, count, tuple(range(count))), torch.device("cpu")
    return decide(config, clip, decide_video(config.video, clip, device), device)


def _build_transfer(config: PriorsConfig) -> KeypointTransfer | None:
    try:
        return ChainTransfer(build_features(config.features), config.transfer)
    except InputError as error:
        _log.warning("the views of the ring get no keypoints, which switches the keypoint losses off: %s", error)
        return None


def _tracked(bench: Workbench, tracker: KeypointTracker, video: PosedImages, given: Keypoints) -> Keypoints:
    """The keypoints of frame 0 followed through the video; those of the ring are dropped."""
    start = given.uv[0]
    tracks = bench.tracks(tracker, {"video": video.images, "start": start}, lambda: tracker(video.images, start))
    weights = tracks.weights * (given.weights[0] > 0)
    return replace(given, uv=tracks.uv, weights=weights, ring_uv=None, ring_weights=None)


def _transferred(
    bench: Workbench, transfer: KeypointTransfer, first: PosedImages, ring: PosedImages, known: Keypoints
) -> Keypoints:
    """The keypoints of frame 0, transferred to the ring; a view from the camera of frame 0 takes them as they are."""
    order, start = _order_by_azimuth(ring, first), known.uv[0]
    support, views = first.images[0], ring.images[order]
    inputs = {"support": support, "uv": start, "views": views}
    found = bench.tracks(transfer, inputs, lambda: transfer(support, start, views))
    uv, weights = torch.empty_like(found.uv), torch.empty_like(found.weights)
    uv[order], weights[order] = found.uv, FOUND_WEIGHT * found.weights * (known.weights[0] > 0)
    same_camera = (ring.cameras.viewmats - first.cameras.viewmats).abs().amax((1, 2)) < 1e-4
    uv[same_camera], weights[same_camera] = start, known.weights[0]
    return replace(known, ring_uv=uv, ring_weights=weights)


def _estimated_flow(
    bench: Workbench, estimator: FlowEstimator | SuppliedFiles | None, video: PosedImages
) -> Flow | None:
    if estimator is None:
        return None
    if isinstance(estimator, SuppliedFiles):
        raise InputError("priors.flow.kind", "files belong to an input video", "choose dis, raft or none")
    return bench.flow(estimator, video.images)


def _order_by_azimuth(ring: PosedImages, first: PosedImages) -> Int[Tensor, " R"]:
    """The order of the views around the object, beginning at the camera of the first frame."""
    center = looked_at([ring.cameras, first.cameras])
    right, _, forward = first.cameras.viewmats[0, :3, :3]  # whatever is up in the world
    around = ring.cameras.centers - center
    azimuths = torch.atan2(around @ right, -(around @ forward))
    return (azimuths.remainder(2 * torch.pi) + 1e-4).remainder(2 * torch.pi).argsort(stable=True)
