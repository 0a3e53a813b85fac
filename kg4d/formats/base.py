"""The protocol of exporters: what they are given, and what they return."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from kg4d.data.records import Scene
from kg4d.formats.settings import Orbit
from kg4d.gaussians.pieces import Pieces
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.render.base import Renderer


@runtime_checkable  # for the tests, which check arguments at run time
class MovingModel(Protocol):
    """Moving Gaussians, as exporters see them; all times are in [0, 1]."""

    @property
    def renderer(self) -> Renderer:
        """The renderer of the model."""
        ...

    @property
    def background(self) -> Float[Tensor, " 3"]:
        """The background colour, RGB in [0, 1]."""
        ...

    def states(self, times: Float[Tensor, " B"]) -> list[GaussianState]:
        """The Gaussians at `times`."""
        ...

    def pieces(self) -> Pieces | None:
        """The Gaussians in space and time; None where they are no such."""
        ...

    def keypoints(self, times: Float[Tensor, " B"]) -> Float[Tensor, "B J 3"]:
        """World positions of the keypoints at `times`."""
        ...

    def render(self, cameras: Cameras, times: Float[Tensor, " M"]) -> Float[Tensor, "M H W 3"]:
        """Render M images: image m from camera m at time m."""
        ...

    def depth(self, cameras: Cameras, times: Float[Tensor, " M"]) -> Float[Tensor, "M H W"]:
        """Depth in M images, as in `render`, world units; 0 where nothing is drawn."""
        ...

    def flow(self, cameras: Cameras, times: Float[Tensor, " 2"]) -> Float[Tensor, "H W 2"]:
        """Where what the first of two cameras shows at the first time goes until the second shows it later, px."""
        ...


@dataclass(frozen=True)
class ExportSource:
    """What is exported.

    Attributes:
        model: The moving Gaussians.
        scene: The scene that they were fitted to, for its cameras, times, images, and bones between keypoints.
        fps: Frames per second at which the reference video is played, > 0.
        orbit: How far the orbit goes around.
        name: What the run is called; nothing where only the scene has a name.
        metrics: What was measured of it, by the keys of `metrics.json`.
    """

    model: MovingModel
    scene: Scene
    fps: int
    orbit: Orbit = Orbit.AUTO
    name: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Exported:
    """The files that an exporter has written.

    Attributes:
        paths: Files, or folders of many files, to show to the person.
        videos: Those of them that are videos.
    """

    paths: list[Path]
    videos: list[Path] = field(default_factory=list)


@runtime_checkable
class Exporter(Protocol):
    """Writes one format."""

    def __call__(self, source: ExportSource, folder: Path) -> Exported:
        """Write files below `folder`.

        Raises:
            ImportError: A library is not installed; the message names the extra that installs it.
        """
        ...
