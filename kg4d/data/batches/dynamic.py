"""Batches of the dynamic stage: frames of the reference video, all as often, in pairs for the flow loss."""

import itertools
from collections.abc import Iterator

import lightning
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from kg4d.data.batches.batch import WHOLE, DynamicBatch, Part, own_places, step_generator
from kg4d.data.batches.settings import DynamicDataConfig
from kg4d.data.records import PosedImages, Scene
from kg4d.errors import InputError
from kg4d.geometry.cameras import joined
from kg4d.geometry.flow import chain_flows
from kg4d.utils.devices import sent
from kg4d.utils.ranks import ALONE, Ranks


class DynamicDataset(IterableDataset[DynamicBatch]):
    """The batches of the steps from `first_step` on, endless.

    Args:
        scene: The scene at the image size of the fit.
        config: What a step sees.
        background: Colour to composite on, RGB in [0, 1].
        seed: Seed of the run.
        first_step: Where to begin; a resumed run gets the same batches as an uninterrupted one.
        paired: Draw frames in pairs, for the flow loss.
        rests_first: Nothing moves at time 0, so images of it teach nothing: they come only as the earlier of a pair.
        steps: Of each window; the last window goes on after them.

    Raises:
        InputError: The settings ask for no frames, for a stride longer than the video, or for test videos that the
            scene does not have.
    """

    def __init__(
        self,
        scene: Scene,
        config: DynamicDataConfig,
        background: Float[Tensor, " 3"],
        seed: int,
        first_step: int = 0,
        *,
        paired: bool = True,
        rests_first: bool = False,
        steps: int = 1,
    ) -> None:
        super().__init__()
        video, keypoints, count = scene.reference, scene.keypoints, len(scene.reference)
        if config.test_views:
            if scene.test is None:
                raise InputError("test_views", "the scene has no test videos", "set it to false")
            video = _joined(video, scene.test)
        if scene.videos is not None:
            video = _joined(video, scene.videos)
        if config.frames_per_step < 1:
            what = f"must be positive, not {config.frames_per_step}"
            raise InputError("frames_per_step", what, "draw at least one frame")
        if not config.strides or not all(1 <= stride < count for stride in config.strides):
            what = f"must be numbers from 1 to {count - 1}, not {config.strides}"
            raise InputError("strides", what, "a pair lies inside the video")
        self.config = config
        self.seed = seed
        self.first_step = first_step
        self._paired = paired
        self._teaches = torch.ones(len(video), dtype=torch.bool) if not rests_first else video.times > 0
        self._video = video
        self._colors = video.composited(background)
        self._alphas = video.alphas.contiguous()
        joints = 0 if keypoints is None else len(keypoints.names)
        self._keypoints, self._weights = torch.zeros(len(video), joints, 2), torch.zeros(len(video), joints)
        if keypoints is not None:
            self._keypoints[:count], self._weights[:count] = keypoints.uv, keypoints.weights
        flow = None if len(video) > count else scene.flow
        self._flow: Tensor | None = None if flow is None else flow.flow
        self._flow_weights: Tensor | None = None if flow is None else flow.weights
        self._depth = None if config.test_views else scene.depth
        self.ranks = ALONE  # the processes that share a step's frames and pairs out
        self.device = torch.device("cpu")
        self._cameras, self._times, self._frames = video.cameras, video.times, video.frames
        self._steps = max(1, steps)
        self._windows = [
            torch.nonzero((video.frames >= window.start) & (video.frames < window.stop))[:, 0]
            for window in config.windows.of(count)
        ]

    def share_out(self, ranks: Ranks) -> None:
        """Let each of several processes take a part of a step."""
        self.ranks = ranks

    def move(self, device: torch.device) -> None:
        """Keep the images and the flow on `device`, and make the batches there."""
        self.device = device
        self._cameras = self._cameras.to(device)
        for name in ("_times", "_frames", "_colors", "_alphas", "_keypoints", "_weights", "_flow", "_flow_weights"):
            tensor = getattr(self, name)
            setattr(self, name, None if tensor is None else tensor.to(device))
        self._depth = self._depth and self._depth.to(device)

    def batch(self, step: int) -> DynamicBatch:
        """The batch of one step, a pure function of the seed and the step."""
        everything, pairs, strides = self._draw(step)
        rows, pairs, place, part = _taken(len(everything), pairs, self._in_pairs, self.ranks)
        drawn = everything if rows is None else everything[rows]
        if part.pairs is not None:
            strides = strides[list(part.pairs)]
        earlier = drawn[pairs[:, 0]]
        flow, flow_weights = self._flow_of(earlier, strides)
        frames = sent(drawn, self.device)
        return DynamicBatch(
            step=step,
            frames=self._frames[frames],
            times=self._times[frames],
            cameras=self._cameras[frames],
            images=self._colors.index_select(0, frames),  # twice as fast as indexing
            alphas=self._alphas.index_select(0, frames),
            keypoints=self._keypoints[frames],
            keypoint_weights=self._weights[frames],
            pairs=sent(pairs, self.device),
            strides=sent(strides, self.device),
            flow=flow,
            flow_weights=flow_weights,
            pair_names=tuple(zip(earlier.tolist(), strides.tolist(), strict=True)),
            depth=self._depth and self._depth[frames],
            step_alphas=None if rows is None else self._alphas.index_select(0, sent(everything, self.device)),
            place=place,
            part=part,
        )

    @property
    def _in_pairs(self) -> bool:
        """Whether the frames of a step come as pairs, the earlier one before the later one."""
        return self._paired and self.config.frames_per_step < len(self._windows[0])

    def __iter__(self) -> Iterator[DynamicBatch]:
        return map(self.batch, itertools.count(self.first_step))

    def _draw(self, step: int) -> tuple[Int[Tensor, " B"], Int[Tensor, "P 2"], Int[Tensor, " P"]]:
        """Frames of the batch, pairs of positions among them, and the strides of the pairs."""
        window = self._windows[min(step // self._steps, len(self._windows) - 1)]
        drawn, pairs, strides = self._draw_among(self._teaches[window], step)
        return window[drawn], pairs, strides

    def _draw_among(
        self, teaches: Bool[Tensor, " n"], step: int
    ) -> tuple[Int[Tensor, " B"], Int[Tensor, "P 2"], Int[Tensor, " P"]]:
        """The same among the frames of a window, by their places in it."""
        count, wanted, teaching = len(teaches), self.config.frames_per_step, torch.nonzero(teaches)[:, 0]
        generator, nothing = step_generator(self.seed, "dynamic frames", step), torch.zeros(0, dtype=torch.int64)
        if not self._paired:
            # one from each of equal parts of the video, so that a batch is spread over time
            places = _one_of_each(wanted, len(teaching), generator) if wanted < count else torch.arange(len(teaching))
            return teaching[places], nothing.reshape(0, 2), nothing
        if wanted >= count:
            starts = [torch.arange(count - stride) for stride in self.config.strides]
            strides = torch.cat([torch.full_like(s, d) for s, d in zip(starts, self.config.strides, strict=True)])
            earlier = torch.cat(starts)
            return torch.arange(count), torch.stack([earlier, earlier + strides], dim=-1), strides
        number = wanted // 2
        choice = torch.randint(len(self.config.strides), (number,), generator=generator)
        strides = torch.tensor(self.config.strides)[choice]
        earlier = _one_of_each(number, count, generator)
        # A pair that leaves the video at its end comes in at the beginning, and is none: so all frames come as often.
        paired = earlier + strides < count
        drawn = torch.stack([earlier, (earlier + strides) % count], dim=-1)
        idle = ~teaches[drawn]
        idle[:, 0] &= ~paired
        others = teaching[torch.randint(len(teaching), (2 * number + wanted % 2,), generator=generator)]
        drawn = torch.where(idle, others[: 2 * number].reshape(number, 2), drawn)
        paired &= ~idle.any(1)
        positions = torch.arange(2 * number).reshape(number, 2)
        return torch.cat([drawn.flatten(), others[2 * number :]]), positions[paired], strides[paired]

    def _flow_of(
        self, earlier: Int[Tensor, " P"], strides: Int[Tensor, " P"]
    ) -> tuple[Float[Tensor, "P H W 2"] | None, Float[Tensor, "P H W"] | None]:
        if self._flow is None or self._flow_weights is None:
            return None, None
        chosen = sent(earlier, self.device)
        flow, weights = self._flow.index_select(0, chosen), self._flow_weights.index_select(0, chosen)
        for pair in torch.nonzero(strides > 1)[:, 0].tolist():
            along = slice(int(earlier[pair]), int(earlier[pair] + strides[pair]))
            flow[pair], weights[pair] = chain_flows(self._flow[along], self._flow_weights[along])
        return flow, weights


def _one_of_each(number: int, count: int, generator: torch.Generator) -> Int[Tensor, " n"]:
    """One of `count` places from each of `number` equal parts of them; all come as often."""
    parts = (torch.arange(number) + torch.rand(number, generator=generator)) / max(number, 1)
    return (parts * count).long().clamp_max(count - 1)  # parts may round up to 1


def _taken(
    count: int, pairs: Int[Tensor, "P 2"], in_pairs: bool, ranks: Ranks
) -> tuple[list[int] | None, Int[Tensor, "Q 2"], int, Part]:
    """What one of several processes takes of a step: a run of frames, and the pairs that begin there.

    Args:
        count: Frames of the step.
        pairs: Among them.
        in_pairs: Frames 2 i and 2 i + 1 stay together.
        ranks: The processes.

    Returns:
        The frames, those that count first and then those that only serve pairs, or None for all; the pairs among
        these; where the frames that count begin in the step; the part.
    """
    if ranks.count == 1:
        return None, pairs, 0, WHOLE
    width = 2 if in_pairs else 1
    units, share = own_places(-(-count // width), ranks)
    run = range(width * units.start, min(width * units.stop, count))
    own = list(run) if share > 0 else []
    mine = [index for index, (earlier, _) in enumerate(pairs.tolist()) if earlier in own]
    held = mine or ([0] if len(pairs) else [])  # one at least, for the means over the pairs of all processes
    others = sorted({frame for frame in pairs[held].flatten().tolist() if frame not in own})
    rows = own + others or [run.start]
    among = torch.tensor([rows.index(frame) for frame in pairs[held].flatten().tolist()], dtype=torch.int64)
    part = Part(
        share=len(own) * ranks.count / count,
        own=len(own) if own and others else None,
        step_images=count,
        pairs=tuple(held),
        step_pairs=len(pairs),
        pairs_count=bool(mine),
    )
    return rows, among.reshape(-1, 2), min(run.start, count - len(rows)), part


def _joined(*parts: PosedImages) -> PosedImages:
    """All images, one part after the other."""
    return PosedImages(
        joined([part.cameras for part in parts]),
        *(torch.cat([getattr(part, name) for part in parts]) for name in ("images", "times", "frames", "views")),
    )


class DynamicDataModule(lightning.LightningDataModule):
    """`DynamicDataset` as a LightningDataModule.

    Args:
        scene: The scene at the image size of the fit.
        config: What a step sees.
        background: Colour to composite on, RGB in [0, 1].
        seed: Seed of the run.
        first_step: Where to begin.
        paired: Draw frames in pairs.
        rests_first: Nothing moves at time 0.
        steps: Of each window of a long clip.
    """

    def __init__(
        self,
        scene: Scene,
        config: DynamicDataConfig,
        background: Float[Tensor, " 3"],
        seed: int,
        first_step: int = 0,
        *,
        paired: bool = True,
        rests_first: bool = False,
        steps: int = 1,
    ) -> None:
        super().__init__()
        self.dataset = DynamicDataset(
            scene, config, background, seed, first_step, paired=paired, rests_first=rests_first, steps=steps
        )

    def train_dataloader(self) -> DataLoader[DynamicBatch]:
        """One batch per step, made in this process, since it only takes indexing."""
        return DataLoader(self.dataset, batch_size=None, num_workers=0)
