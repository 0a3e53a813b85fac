"""Restricting the images that the fit sees, for studies of sparse videos and of objects without texture."""

import itertools
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from kg4d.data.records import Flow, Keypoints, PosedImages, Scene
from kg4d.data.studies.settings import FramesConfig
from kg4d.errors import InputError
from kg4d.geometry.flow import chain_flows


def seen_frames(scene: Scene, config: FramesConfig) -> Int[Tensor, " S"]:
    """Indices of the S frames of the reference video that the fit sees."""
    kept = torch.arange(0, len(scene.reference), config.every)
    if config.hold_out == 0:
        return kept
    place = torch.arange(len(kept))
    held_out = (place % config.hold_out == config.hold_out // 2) & (place < len(kept) - 1)
    return kept[~held_out]


def choose_frames(scene: Scene, config: FramesConfig) -> Scene:
    """The scene with only the seen frames: renumbered, with their old times, and with flow from each to the next.

    Raises:
        InputError: Fewer than two frames are left.
    """
    kept = seen_frames(scene, config)
    if len(kept) == len(scene.reference):
        return scene
    if len(kept) < 2:
        what = f"{config.every} leaves one of the {len(scene.reference)} frames"
        raise InputError("frames.every", what, "lower it: a motion takes two")
    reference = replace(scene.reference[kept], frames=torch.arange(len(kept)))
    return replace(
        scene,
        reference=reference,
        keypoints=scene.keypoints and _keypoints_of(scene.keypoints, kept),
        flow=scene.flow and _flow_between(scene.flow, kept),
        depth=scene.depth and scene.depth[kept],
        test=scene.test and _shown(scene.test, kept, len(scene.reference)),
        files=scene.files and scene.files[kept],
        videos=scene.videos and _shown(scene.videos, kept, len(scene.reference)),
    )


def with_videos(scene: Scene, config: FramesConfig) -> Scene:
    """The scene with some of its test videos among those that a fit sees; the others are its test videos.

    Raises:
        InputError: There are no such videos.
    """
    if not config.videos:
        return scene
    test = scene.test
    views = [] if test is None else sorted(set(test.views.tolist()))
    if test is None or not all(0 <= place < len(views) for place in config.videos):
        there = f"the scene has {len(views)} test videos, from 0" if views else "the scene has no test videos"
        raise InputError("frames.videos", f"{config.videos}: {there}", "choose among them")
    chosen = torch.tensor([views[place] for place in config.videos])
    seen = torch.isin(test.views, chosen)
    left = [place for place in range(len(views)) if place not in config.videos]
    keypoints, kept = scene.keypoints, torch.tensor(left, dtype=torch.int64)
    if keypoints is not None and keypoints.test_uv is not None and keypoints.test_visible is not None:
        uv, visible = keypoints.test_uv[kept], keypoints.test_visible[kept]
        keypoints = replace(keypoints, test_uv=uv if left else None, test_visible=visible if left else None)
    return replace(
        scene,
        videos=test[torch.nonzero(seen)[:, 0]],
        test=test[torch.nonzero(~seen)[:, 0]] if left else None,
        regions={name: masks[~seen] for name, masks in scene.regions.items()} if left else {},
        keypoints=keypoints,
    )


def without_ring(scene: Scene) -> Scene:
    """The scene as somebody has it who has taken one video: no view of the first frame from around."""
    keypoints = scene.keypoints and replace(scene.keypoints, ring_uv=None, ring_weights=None)
    return replace(scene, ring=None, keypoints=keypoints)


def without_texture(scene: Scene) -> Scene:
    """The scene with the object in one colour, its mean in the reference video and the ring."""
    seen = [images for images in (scene.reference, scene.ring) if images is not None]
    weight = sum(float(images.alphas.sum()) for images in seen)
    total = torch.stack([(images.images[..., :3] * images.alphas).sum((0, 1, 2)) for images in seen]).sum(0)
    color = total / max(weight, 1e-9)

    def painted(images: PosedImages) -> PosedImages:
        flat = torch.cat([color.expand_as(images.images[..., :3]), images.alphas], dim=-1)
        return replace(images, images=flat)

    return replace(
        scene,
        reference=painted(scene.reference),
        ring=scene.ring and painted(scene.ring),
        test=scene.test and painted(scene.test),
        videos=scene.videos and painted(scene.videos),
    )


def _shown(images: PosedImages, kept: Int[Tensor, " S"], total: int) -> PosedImages | None:
    """The images of the kept frames of `total`, and those of times between all frames; None where there are none."""
    chosen = images[torch.nonzero(torch.isin(images.frames, kept) | (images.frames >= total))[:, 0]]
    numbers = torch.arange(max(total, int(images.frames.max()) + 1)) + len(kept) - total
    numbers[kept] = torch.arange(len(kept))
    return replace(chosen, frames=numbers[chosen.frames]) if len(chosen) else None


def _keypoints_of(keypoints: Keypoints, kept: Int[Tensor, " S"]) -> Keypoints:
    test_uv, test_visible, truth = keypoints.test_uv, keypoints.test_visible, keypoints.truth
    return replace(
        keypoints,
        uv=keypoints.uv[kept],
        weights=keypoints.weights[kept],
        leans=None if keypoints.leans is None else keypoints.leans[kept],
        truth=None if truth is None else truth[kept],
        test_uv=None if test_uv is None else test_uv[:, kept],
        test_visible=None if test_visible is None else test_visible[:, kept],
    )


def _flow_between(flow: Flow, kept: Int[Tensor, " S"]) -> Flow:
    spans = [slice(first, last) for first, last in itertools.pairwise(kept.tolist())]
    chained = [chain_flows(flow.flow[span], flow.weights[span]) for span in spans]
    return Flow(torch.stack([chain.flow for chain in chained]), torch.stack([chain.weights for chain in chained]))
