"""The keypoints and the flow of a scene folder found again, as if only the keypoints of its first frame were known."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from kg4d.data.readers.viewpoints import looked_at
from kg4d.data.records import Flow, Keypoints, PosedImages, Scene
from kg4d.data.videos import Clip
from kg4d.errors import InputError
from kg4d.priors.base import KeypointTransfer, Provider
from kg4d.priors.build import PriorsConfig, decide, decide_video
from kg4d.priors.cache.store import PriorCache
from kg4d.priors.diffusion.views import ViewsKind
from kg4d.priors.files import GivenFiles
from kg4d.priors.keypoints.features import build_features
from kg4d.priors.keypoints.marked import KeypointsKind
from kg4d.priors.keypoints.transfer import FOUND_WEIGHT, ChainTransfer
from kg4d.priors.plan import Plan
from kg4d.priors.progress import listening
from kg4d.utils.logs import progress_bar

_log = logging.getLogger(__name__)


def redetected(scene: Scene, config: PriorsConfig) -> Scene:
    """The scene with keypoints that were tracked and transferred from its first frame, and with estimated flow.

    A keypoint that the first frame hides is found nowhere: nobody could have marked it. What only metrics may look at
    stays as it is.

    Args:
        scene: Its images, and keypoints in its first frame.
        config: Who finds what: `tracking`, `features`, `transfer` and `flow`.

    Raises:
        InputError: The scene has no keypoints in its first frame, or a provider cannot be had.
    """
    given = scene.keypoints
    if given is None or not bool((given.weights[0] > 0).any()):
        what = "the scene has no keypoints in its first frame to start from"
        raise InputError("detections.source", what, "set detections.source=given")
    finder = _Finder(_plan(scene, config), PriorCache(config.cache), config.progress_bar)
    keypoints = finder.through_video(scene.reference, given)
    if scene.ring is not None:
        keypoints = finder.around(scene.reference[:1], scene.ring, keypoints, _transfer(config))
    flow = finder.flow(scene.reference)
    return replace(scene, keypoints=keypoints, flow=flow, cache_keys={**scene.cache_keys, **finder.cache.used})


def _plan(scene: Scene, config: PriorsConfig) -> Plan:
    """Trackers and flow as for a video; there is nothing else to make."""
    views, keypoints = replace(config.views, kind=ViewsKind.NONE), replace(config.keypoints, kind=KeypointsKind.SPREAD)
    config = replace(config, views=views, keypoints=keypoints)
    clip, device = Clip(scene.reference.images, 1.0, len(scene.reference)), torch.device("cpu")
    plan = decide(config, clip, decide_video(config.video, clip, device), device)
    _log.info("%s: keypoints tracked by %s (%s)", scene.name, plan.tracking.kind, plan.tracking.why)
    return plan


def _transfer(config: PriorsConfig) -> KeypointTransfer | None:
    try:
        return ChainTransfer(build_features(config.features), config.transfer)
    except InputError as error:
        _log.warning("the views of the ring get no keypoints, which switches the keypoint losses off: %s", error)
        return None


@dataclass(frozen=True)
class _Finder:
    plan: Plan
    cache: PriorCache
    progress_bar: bool

    def through_video(self, video: PosedImages, given: Keypoints) -> Keypoints:
        tracker, start = self.plan.tracking.provider, given.uv[0]
        assert tracker is not None  # keypoints were asked for
        inputs = {"video": video.images, "start": start}
        made = self._make(tracker, inputs, lambda: vars(tracker(video.images, start)))
        seen = made["weights"] * (given.weights[0] > 0)
        return replace(given, uv=made["uv"], weights=seen, ring_uv=None, ring_weights=None)

    def around(
        self, first: PosedImages, ring: PosedImages, known: Keypoints, transfer: KeypointTransfer | None
    ) -> Keypoints:
        if transfer is None:
            return known
        order, start = _by_azimuth(ring, first), known.uv[0]
        support, views = first.images[0], ring.images[order]
        inputs = {"support": support, "uv": start, "views": views}
        made = self._make(transfer, inputs, lambda: vars(transfer(support, start, views)))
        uv, weights = torch.empty_like(made["uv"]), torch.empty_like(made["weights"])
        uv[order], weights[order] = made["uv"], FOUND_WEIGHT * made["weights"] * (known.weights[0] > 0)
        itself = (ring.cameras.viewmats - first.cameras.viewmats).abs().amax((1, 2)) < 1e-4
        uv[itself], weights[itself] = start, known.weights[0]
        return replace(known, ring_uv=uv, ring_weights=weights)

    def flow(self, video: PosedImages) -> Flow | None:
        estimator = self.plan.flow.provider
        if estimator is None:
            return None
        if isinstance(estimator, GivenFiles):
            raise InputError("priors.flow.kind", "files belong to an input video", "choose dis, raft or none")
        made = self._make(estimator, {"video": video.images}, lambda: vars(estimator(video.images)))
        return Flow(made["flow"], made["weights"])

    def _make(
        self, provider: Provider, inputs: Mapping[str, Tensor], find: Callable[[], dict[str, Any]]
    ) -> dict[str, Tensor]:
        with progress_bar(provider.name, self.progress_bar) as report, listening(report):
            return self.cache.get_or_make(provider, inputs, find)


def _by_azimuth(ring: PosedImages, first: PosedImages) -> Int[Tensor, " R"]:
    """The views of a ring from that of the first frame around the object."""
    center = looked_at([ring.cameras, first.cameras])
    around, home = ring.cameras.centers - center, first.cameras.centers - center
    azimuths = torch.atan2(around[:, 0], around[:, 2]) - torch.atan2(home[:, 0], home[:, 2])
    return (azimuths.remainder(2 * torch.pi) + 1e-4).remainder(2 * torch.pi).argsort(stable=True)
