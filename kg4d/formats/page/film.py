"""What a page shows of a run: Gaussians, keypoints, cameras with their pictures, and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kg4d.data.images import quantize
from kg4d.data.records import PosedImages
from kg4d.formats.base import ExportSource
from kg4d.formats.page.image_errors import image_errors
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras

_LONGEST = 320  # px of a picture's longer side
_MOST_PICTURES = 160  # of held-out views: more would fill the page
_QUALITY = 80  # of WebP, of 100


@dataclass(frozen=True)
class CameraPath:
    """A camera that stands or moves, and what it saw.

    Attributes:
        name: Shown in the list of cameras.
        cameras: M cameras.
        times: Of each, in [0, 1].
        pictures: What each saw, as WebP files; empty where there are none.
        held_out: It was never trained on.
    """

    name: str
    cameras: Cameras
    times: Float[Tensor, " M"]
    pictures: Sequence[bytes] = ()
    held_out: bool = False


@dataclass(frozen=True)
class Film:
    """What a page shows.

    Attributes:
        title: Name of the run.
        states: The Gaussians of T frames, at least one.
        times: Of the frames, in [0, 1].
        fps: Frames per second, > 0.
        paths: Cameras to look through, at least one; the page begins with the first one.
        note: How far a fit is, or nothing.
        background: RGB in [0, 1].
        keypoints: World positions of J keypoints in each frame, or None.
        names: Of the keypoints.
        parents: Index of the parent of each keypoint, -1 for a root.
        metrics: By their keys in `metrics.json`.
        errors: Of each Gaussian in each frame, in [0, 1]; NaN where it is nowhere seen. Empty where it is not known.
        errors_of: What they are the errors of.

    Raises:
        ValueError: There is no frame or camera, `fps` is not positive, or something else is not of T frames.
    """

    title: str
    states: Sequence[GaussianState]
    times: Float[Tensor, " T"]
    fps: int | float
    paths: Sequence[CameraPath]
    note: str = ""
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    keypoints: Float[Tensor, "T2 J 3"] | None = None
    names: Sequence[str] = ()
    parents: Sequence[int] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    errors: Sequence[Float[Tensor, " N"]] = ()
    errors_of: str = ""

    def __post_init__(self) -> None:
        frames = len(self.states)
        if self.fps <= 0:
            raise ValueError(f"fps must be positive, got {self.fps}")
        if not frames or not self.paths:
            raise ValueError("need at least one frame and one camera")
        if len(self.times) != frames:
            raise ValueError(f"got {len(self.times)} times but {frames} frames of Gaussians")
        if self.keypoints is not None and len(self.keypoints) != frames:
            raise ValueError(f"got keypoints of {len(self.keypoints)} frames but {frames} frames of Gaussians")
        if self.errors and [len(rows) for rows in self.errors] != [len(state) for state in self.states]:
            raise ValueError("errors are not of the Gaussians of each frame")


def film_of(
    source: ExportSource, times: Float[Tensor, " T"] | None = None, note: str = "", *, errors: bool = False
) -> Film:
    """What a page shows of a model.

    Args:
        source: The model and its scene.
        times: Those of the frames; those of the reference video when None.
        note: How far a fit is, or nothing.
        errors: Also find where it errs, which renders all pictures: those held out, else the reference video.
    """
    scene, model = source.scene, source.model
    times = scene.reference.times if times is None else times
    known = scene.keypoints
    red, green, blue = model.background.tolist()
    states, truth = model.states(times), _small(_some(scene.test or scene.reference))
    return Film(
        title=source.name or scene.name,
        states=states,
        times=times,
        fps=source.fps,
        paths=camera_paths(scene.reference, scene.test),
        note=note,
        background=(red, green, blue),
        keypoints=None if known is None else model.keypoints(times),
        names=() if known is None else known.names,
        parents=() if known is None else known.parents,
        metrics=source.metrics,
        errors=image_errors(model, truth, states, times) if errors else (),
        errors_of="the held-out pictures" if scene.test else "the reference video",
    )


def camera_paths(reference: PosedImages, test: PosedImages | None) -> list[CameraPath]:
    """The camera of the reference video, and those of the held-out views, with their pictures."""
    paths = [_path("reference", reference, held_out=False)]
    if test is None:
        return paths
    test = _some(test)
    views = sorted(set(test.views.tolist()))
    return [
        *paths,
        *(_path(f"view {view}", test[torch.nonzero(test.views == view)[:, 0]], held_out=True) for view in views),
    ]


def _path(name: str, images: PosedImages, *, held_out: bool) -> CameraPath:
    pictures = [_webp(image) for image in _small(images).images]
    return CameraPath(name, images.cameras, images.times, pictures, held_out)


def _some(images: PosedImages) -> PosedImages:
    chosen = torch.linspace(0, len(images) - 1, min(len(images), _MOST_PICTURES)).round().long()
    return images[chosen]


def _small(images: PosedImages) -> PosedImages:
    return images.resized(_LONGEST) if max(images.images.shape[1:3]) > _LONGEST else images


def _webp(image: Float[Tensor, "H W 4"]) -> bytes:
    content = BytesIO()
    Image.fromarray(quantize(image).numpy()).save(content, format="WEBP", quality=_QUALITY)
    return content.getvalue()
