"""Batches of the refine stage: frames of the reference video, and views of the first frame."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import lightning
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from kg4d.data.batches.batch import DynamicBatch, StaticBatch
from kg4d.data.batches.dynamic import DynamicDataset
from kg4d.data.batches.settings import RefineDataConfig
from kg4d.data.batches.static import StaticDataset
from kg4d.data.records import Scene
from kg4d.utils.ranks import ALONE, Ranks


@dataclass(frozen=True)
class RefineBatch:
    """The frames of one step, and its views if the scene has a ring.

    Where several processes share a step out, `share` is what a mean over the images that count here weighs in the mean
    over the processes: 0 where none does.
    """

    frames: DynamicBatch
    views: StaticBatch | None
    share: float = 1.0

    @property
    def step(self) -> int:
        """Index of the step, from 0."""
        return self.frames.step

    def to(self, device: torch.device | str) -> "RefineBatch":
        """The same batch on `device`."""
        return replace(self, frames=self.frames.to(device), views=None if self.views is None else self.views.to(device))


class RefineDataset(IterableDataset[RefineBatch]):
    """The batches of the steps from `first_step` on, endless.

    Args:
        scene: The scene at the image size of the fit.
        config: What a step sees.
        background: Colour to composite on, RGB in [0, 1].
        seed: Seed of the run.
        first_step: Where to begin; a resumed run gets the same batches as an uninterrupted one.

    Raises:
        InputError: As `DynamicDataset` and `StaticDataset`.
    """

    def __init__(
        self, scene: Scene, config: RefineDataConfig, background: Float[Tensor, " 3"], seed: int, first_step: int = 0
    ) -> None:
        super().__init__()
        self.first_step = first_step
        self._ranks = ALONE
        self._frames = DynamicDataset(scene, config.frames, background, seed, paired=False)
        self._views = None if scene.ring is None else StaticDataset(scene, config.views, background, seed)

    def share_out(self, ranks: Ranks) -> None:
        """Let each of several processes take a part of a step."""
        self._ranks = self._frames.ranks = ranks
        if self._views is not None:
            self._views.ranks = ranks

    def move(self, device: torch.device) -> None:
        """Keep the images on `device`, and make the batches there."""
        self._frames.move(device)
        if self._views is not None:
            self._views.move(device)

    def batch(self, step: int) -> RefineBatch:
        """The batch of one step, a pure function of the seed and the step."""
        frames, views = self._frames.batch(step), None if self._views is None else self._views.batch(step)
        if self._ranks.count == 1:
            return RefineBatch(frames, views)
        parts = [batch for batch in (frames, views) if batch is not None]
        here = sum(len(batch.cameras) for batch in parts if batch.share > 0)
        return RefineBatch(frames, views, here * self._ranks.count / sum(batch.part.step_images for batch in parts))

    def __iter__(self) -> Iterator[RefineBatch]:
        return map(self.batch, itertools.count(self.first_step))


class RefineDataModule(lightning.LightningDataModule):
    """`RefineDataset` as a LightningDataModule.

    Args:
        scene: The scene at the image size of the fit.
        config: What a step sees.
        background: Colour to composite on, RGB in [0, 1].
        seed: Seed of the run.
        first_step: Where to begin.
    """

    def __init__(
        self, scene: Scene, config: RefineDataConfig, background: Float[Tensor, " 3"], seed: int, first_step: int = 0
    ) -> None:
        super().__init__()
        self.dataset = RefineDataset(scene, config, background, seed, first_step)

    def train_dataloader(self) -> DataLoader[RefineBatch]:
        """One batch per step, made in this process, since it only takes indexing."""
        return DataLoader(self.dataset, batch_size=None, num_workers=0)
