"""What an exporter gets, and what it says it has made."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from kg4d.data.records import Scene
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.render.base import Renderer


@runtime_checkable  # for the tests, which check arguments at run time
class MovingModel(Protocol):
    """Gaussians that move, as exporters see them; all times lie in [0, 1]."""

    @property
    def renderer(self) -> Renderer:
        """Draws them."""
        ...

    @property
    def background(self) -> Float[Tensor, " 3"]:
        """Colour behind them, RGB."""
        ...

    def states(self, times: Float[Tensor, " B"]) -> list[GaussianState]:
        """The Gaussians at `times`."""
        ...

    def keypoints(self, times: Float[Tensor, " B"]) -> Float[Tensor, "B J 3"]:
        """World positions of the keypoints at `times`."""
        ...

    def render(self, cameras: Cameras, times: Float[Tensor, " M"]) -> Float[Tensor, "M H W 3"]:
        """Image m is camera m at time m."""
        ...


@dataclass(frozen=True)
class ExportSource:
    """What is exported.

    Attributes:
        model: The Gaussians and their motion.
        scene: What they were fitted to: its cameras, times and images, and the bones between its keypoints.
        fps: Frames per second at which the times of the reference video are played, > 0.
    """

    model: MovingModel
    scene: Scene
    fps: int


@dataclass(frozen=True)
class Exported:
    """What an exporter has made.

    Attributes:
        paths: Files, or folders of many files, for a person to look at.
        videos: Those of them that a player or a tracker of experiments can show.
    """

    paths: list[Path]
    videos: list[Path] = field(default_factory=list)


@runtime_checkable
class Exporter(Protocol):
    """Writes one format."""

    def __call__(self, source: ExportSource, folder: Path) -> Exported:
        """Write below `folder`.

        Raises:
            ImportError: A library is not installed; the message names the extra that brings it.
        """
        ...
