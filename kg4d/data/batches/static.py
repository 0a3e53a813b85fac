"""Batches of the static stage: views of the first frame."""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import lightning
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from kg4d.data.batches.batch import Part, StaticBatch, own_places, step_generator
from kg4d.data.batches.settings import StaticDataConfig
from kg4d.data.records import Depth, PosedImages, Scene
from kg4d.errors import InputError
from kg4d.utils.devices import sent
from kg4d.utils.ranks import ALONE, Ranks

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class References:
    """The M images that the static stage is fitted to, their keypoints in px (J may be 0), and their depth."""

    images: PosedImages
    keypoints: Float[Tensor, "M J 2"]
    keypoint_weights: Float[Tensor, "M J"]
    depth: Depth | None


def static_references(scene: Scene) -> References:
    """The ring; without a ring, frame 0 of the video if its camera is fixed, or all frames if the camera moves."""
    keypoints, depth = scene.keypoints, None
    if scene.ring is not None:
        chosen, uv, weights = scene.ring, None, None
        if keypoints is not None:
            uv, weights = keypoints.ring_uv, keypoints.ring_weights
    else:
        cameras = scene.reference.cameras
        fixed = torch.allclose(cameras.viewmats, cameras.viewmats[:1], atol=1e-4)
        count = 1 if fixed else len(cameras)
        chosen, depth = scene.reference[:count], scene.depth and scene.depth[:count]
        uv, weights = (None, None) if keypoints is None else (keypoints.uv[:count], keypoints.weights[:count])
    if uv is None or weights is None:
        uv, weights = torch.zeros(len(chosen), 0, 2), torch.zeros(len(chosen), 0)
    return References(chosen, uv, weights, depth)


class StaticDataset(IterableDataset[StaticBatch]):
    """The batches of the steps from `first_step` on, endless.

    Args:
        scene: The scene at the image size of the fit.
        config: What a step sees.
        background: Colour to composite on, RGB in [0, 1].
        seed: Seed of the run.
        first_step: Where to begin; a resumed run gets the same batches as an uninterrupted one.

    Raises:
        InputError: The settings ask for no views.
    """

    def __init__(
        self, scene: Scene, config: StaticDataConfig, background: Float[Tensor, " 3"], seed: int, first_step: int = 0
    ) -> None:
        super().__init__()
        if config.views_per_step < 1:
            raise InputError(
                "views_per_step", f"must be positive, not {config.views_per_step}", "draw at least one view"
            )
        self.config = config
        self.seed = seed
        self.first_step = first_step
        self.ranks = ALONE  # the processes that share a step's views out
        self._references = static_references(scene)
        if scene.ring is None:
            count = len(self._references.images)
            which = "frame 0 of the video" if count == 1 else f"all {count} frames of the video, whose camera moves"
            _log.info("%s: no ring of views: the static stage is fitted to %s", scene.name, which)
        self._colors = self._references.images.composited(background)
        self._alphas = self._references.images.alphas.contiguous()
        self._weights = self._references.keypoint_weights  # on the CPU, where batches are drawn
        self.device = torch.device("cpu")
        self.move(self.device)

    def share_out(self, ranks: Ranks) -> None:
        """Let each of several processes take a part of a step."""
        self.ranks = ranks

    def move(self, device: torch.device) -> None:
        """Keep the images on `device`, and make the batches there."""
        self.device = device
        self._cameras = self._references.images.cameras.to(device)
        self._colors, self._alphas = self._colors.to(device), self._alphas.to(device)
        self._keypoints = self._references.keypoints.to(device)
        self._keypoint_weights = self._weights.to(device)
        self._depth = self._references.depth and self._references.depth.to(device)

    def batch(self, step: int) -> StaticBatch:
        """The batch of one step, a pure function of the seed and the step."""
        count = len(self._weights)
        order = torch.randperm(count, generator=step_generator(self.seed, "static views", step))
        drawn = order[: self.config.views_per_step]
        places, share = own_places(len(drawn), self.ranks)
        chosen = sent(drawn[places.start : places.stop], self.device)
        return StaticBatch(
            step=step,
            cameras=self._cameras[chosen],
            images=self._colors.index_select(0, chosen),  # twice as fast as indexing
            alphas=self._alphas.index_select(0, chosen),
            keypoints=self._keypoints[chosen],
            keypoint_weights=self._keypoint_weights[chosen],
            has_keypoints=bool((self._weights[drawn] > 0).any()),
            depth=self._depth and self._depth[chosen],
            part=Part(share, step_images=len(drawn)),
        )

    def __iter__(self) -> Iterator[StaticBatch]:
        return map(self.batch, itertools.count(self.first_step))


class StaticDataModule(lightning.LightningDataModule):
    """`StaticDataset` as a LightningDataModule.

    Args:
        scene: The scene at the image size of the fit.
        config: What a step sees.
        background: Colour to composite on, RGB in [0, 1].
        seed: Seed of the run.
        first_step: Where to begin.
    """

    def __init__(
        self, scene: Scene, config: StaticDataConfig, background: Float[Tensor, " 3"], seed: int, first_step: int = 0
    ) -> None:
        super().__init__()
        self.dataset = StaticDataset(scene, config, background, seed, first_step)

    def train_dataloader(self) -> DataLoader[StaticBatch]:
        """One batch per step, made in this process, since it only takes indexing."""
        return DataLoader(self.dataset, batch_size=None, num_workers=0)
