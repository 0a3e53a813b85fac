"""Moving Gaussians and their skeleton in a browser, through viser: one self-contained page, or a live server.

Colours do not depend on the view: viser draws no harmonics, and what is left without them is the mean over all
directions of sight. +Y is up; the first view is from +Z, where the reference camera is.
"""

import contextlib
import functools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from rich import get_console
from torch import Tensor

from kg4d.formats.base import Exported, ExportSource
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.covariances import covariances_of, unpacked
from kg4d.utils.files import replacing
from kg4d.utils.local_pages import is_own_page

if TYPE_CHECKING:
    import viser

_FOV_DEGREES = 50.0
_QUANTILE = 0.98  # fraction of the centres that the first camera sees; the others may be strays
_MARK_SCALE = 0.6  # of viser's font size
_BONE_COLOR = (255, 64, 160)


@contextlib.contextmanager
def viewer_server(port: int = 0) -> Iterator["viser.ViserServer"]:
    """Run a quiet viser server on 127.0.0.1 until the end of the block; port 0 picks a free one.

    It answers its own page alone: pages of other sites that the browser has open cannot read the model.

    Raises:
        ImportError: The package viser is not installed.
    """
    try:
        import viser
    except ImportError as error:
        raise ImportError('the viewer needs viser: pip install "kg4d[viewer]"') from error
    with _silent(), _own_page_alone():
        server = viser.ViserServer(host="127.0.0.1", port=port, verbose=False)
    try:
        yield server
    finally:
        with _silent():
            server.stop()


@contextlib.contextmanager
def _own_page_alone() -> Iterator[None]:
    """Have servers that viser starts meanwhile check where requests come from; it has no setting for that."""
    from viser.infra import _infra

    module = _infra.websockets.asyncio.server  # type: ignore[attr-defined]
    serve = module.serve

    def guarded(*arguments: Any, process_request: Callable[[Any, Any], Any], **options: Any) -> Any:
        def process(connection: Any, request: Any) -> Any:
            if not is_own_page(request.headers.get("Host", ""), request.headers.get("Origin")):
                return connection.respond(HTTPStatus.FORBIDDEN, "open this page as http://127.0.0.1\n")
            return process_request(connection, request)

        return serve(*arguments, process_request=process, **options)

    module.serve = guarded
    try:
        yield
    finally:
        module.serve = serve


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep viser's banner off the console; it ignores `verbose`."""
    console = get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


class Film:
    """The frames of moving Gaussians in a viser scene, one of them visible; the skeleton is a separate layer."""

    def __init__(
        self,
        server: "viser.ViserServer",
        states: Sequence[GaussianState],
        keypoints: Float[Tensor, "T J 3"] | None = None,
        parents: Sequence[int] = (),
    ) -> None:
        """Add all frames to the scene of `server`, show the first one, and place the first camera.

        Args:
            server: The server whose scene it is.
            states: The Gaussians of T frames, at least one.
            keypoints: World positions of the keypoints in each frame, or None.
            parents: Index of the parent of each keypoint, -1 for a root; empty draws no bones.

        Raises:
            ValueError: There is no frame, or keypoints and frames differ in number.
        """
        if not states:
            raise ValueError("need at least one frame")
        if keypoints is not None and len(keypoints) != len(states):
            raise ValueError(f"got keypoints of {len(keypoints)} frames but {len(states)} frames of Gaussians")
        self._server = server
        self._shown = 0
        self._lock = threading.Lock()  # a live page shows frames from several threads
        self._layers = {"gaussians": server.scene.add_frame("/gaussians", show_axes=False)}
        self._frames = [[_add_splats(server, f"/gaussians/{t}", state, t == 0)] for t, state in enumerate(states)]
        if keypoints is not None:
            self._layers["keypoints"] = server.scene.add_frame("/keypoints", show_axes=False)
            for t, joints in enumerate(keypoints.detach().float().cpu().numpy()):
                self._frames[t].append(_add_skeleton(server, f"/keypoints/{t}", joints, parents, t == 0))
        _place_camera(server, states[0])

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def layers(self) -> list[str]:
        """Names of the layers: `gaussians`, and `keypoints` if there are any."""
        return list(self._layers)

    def show(self, frame: int) -> None:
        """Show this frame in place of the current one."""
        with self._lock, self._server.atomic():
            for handle in self._frames[self._shown]:
                handle.visible = False
            for handle in self._frames[frame]:
                handle.visible = True
            self._shown = frame

    def show_layer(self, layer: str, visible: bool) -> None:
        """Show or hide one of `layers`, in all frames."""
        self._layers[layer].visible = visible


class Controls:
    """Sliders and checkboxes of a live page that control a film.

    Args:
        server: The server of the page.
        film: The film that they control.
        fps: Initial frames per second, from 1 to 60.
    """

    def __init__(self, server: "viser.ViserServer", film: Film, fps: int | float) -> None:
        server.gui.configure_theme(show_logo=False, show_share_button=False)  # sharing would open a public tunnel
        self._film = film
        last = len(film) - 1
        self.frame: Any = server.gui.add_slider("frame", 0, last, 1, 0, disabled=last == 0)
        self.playing: Any = server.gui.add_checkbox("play", last > 0)
        self.fps: Any = server.gui.add_slider("frames per second", 1, 60, 1, min(max(round(fps), 1), 60))
        self.frame.on_update(lambda _: film.show(self.frame.value))
        self.layers: dict[str, Any] = {layer: server.gui.add_checkbox(layer, True) for layer in film.layers}
        for layer, box in self.layers.items():
            box.on_update(functools.partial(self._toggle, layer))

    @property
    def seconds_per_frame(self) -> float:
        """How long a frame is shown."""
        return 1.0 / float(self.fps.value)

    def _toggle(self, layer: str, _: object) -> None:
        self._film.show_layer(layer, self.layers[layer].value)

    def advance(self) -> None:
        """Go to the next frame if the film is playing; after the last comes the first."""
        if self.playing.value:
            self.frame.value = (self.frame.value + 1) % len(self._film)


def _add_splats(server: "viser.ViserServer", name: str, state: GaussianState, visible: bool) -> Any:
    state = state.detach().to("cpu")
    covariances = state.covariances
    if covariances is None:
        covariances = covariances_of(*state.ellipsoids)
    return server.scene.add_gaussian_splats(
        name,
        centers=state.means.numpy(),
        covariances=unpacked(covariances).numpy(),
        rgbs=state.colors.clamp(0, 1).numpy(),
        opacities=state.opacities[:, None].numpy(),
        visible=visible,
    )


def _add_skeleton(
    server: "viser.ViserServer", name: str, joints: Float[np.ndarray, "J 3"], parents: Sequence[int], visible: bool
) -> Any:
    """A node with a mark per joint and a line per bone. Marks are labels, which viser draws in front of the splats."""
    node = server.scene.add_frame(name, show_axes=False, visible=visible)
    for index, position in enumerate(joints):
        server.scene.add_label(
            f"{name}/{index}", "●", position=position, font_screen_scale=_MARK_SCALE, anchor="center-center"
        )
    bones = [(child, parent) for child, parent in enumerate(parents) if parent >= 0]
    if bones:
        width = 0.01 * float(np.ptp(joints, axis=0).max())
        server.scene.add_line_segments(f"{name}/bones", joints[np.array(bones)], _BONE_COLOR, thickness=width)
    return node


def _place_camera(server: "viser.ViserServer", state: GaussianState) -> None:
    """Look at the middle of the Gaussians from +Z and slightly above, so that nearly all of them are in view."""
    means = state.means.detach().float().cpu()
    low, high = torch.quantile(means, torch.tensor([1 - _QUANTILE, _QUANTILE]), dim=0)
    center = (low + high) / 2
    radius = float(torch.quantile((means - center).norm(dim=-1), _QUANTILE))
    distance = 1.1 * max(radius, 1e-3) / math.sin(math.radians(_FOV_DEGREES) / 2)
    server.scene.set_up_direction("+y")
    server.initial_camera.fov = math.radians(_FOV_DEGREES)
    server.initial_camera.look_at = tuple(center.tolist())
    server.initial_camera.position = tuple((center + distance * torch.tensor([0.0, 0.15, 1.0])).tolist())


# viser sorts the splats by depth in a module worker, which browsers do not allow on pages opened from disk, and the far
# side would show through. As a classic script the worker is allowed; it reads `import.meta` only for a base address.
_CLASSIC_WORKERS = """<script>
if (location.protocol === "file:") {
  window.Blob = class extends Blob {
    constructor(parts, options) {
      const classic = (part) => String(part).replaceAll("import.meta", '({url:"file:///"})');
      super(/javascript/.test(options?.type ?? "") ? parts.map(classic) : parts, options);
    }
  };
  window.Worker = class extends Worker {
    constructor(url, options) { super(url, { ...options, type: "classic" }); }
  };
}
</script>"""


def _openable_from_disk(page: str) -> str:
    """The page with an additional first script, so that its workers start when it is opened as a file."""
    return page.replace("<head>", f"<head>{_CLASSIC_WORKERS}", 1)


def write_viewer(
    path: str | Path,
    states: Sequence[GaussianState],
    fps: int | float,
    keypoints: Float[Tensor, "T J 3"] | None = None,
    parents: Sequence[int] = (),
) -> None:
    """Write one HTML file that plays the frames in a loop, from disk and without any network access.

    Args:
        path: The `.html` file; parent folders are created.
        states: The Gaussians of T frames, at least one.
        fps: Frames per second, > 0.
        keypoints: World positions of the keypoints in each frame, or None.
        parents: Index of the parent of each keypoint, -1 for a root; empty draws no bones.

    Raises:
        ImportError: The package viser is not installed.
        ValueError: `fps` is not positive, there is no frame, or keypoints and frames differ in number.
    """
    if fps <= 0:
        raise ValueError(f"fps must be positive, got {fps}")
    with viewer_server() as server:
        film = Film(server, states, keypoints, parents)
        recording = server.get_scene_serializer()
        for frame in range(len(film)):
            film.show(frame)
            recording.insert_sleep(1 / fps)
        page = _openable_from_disk(recording.as_html())
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8")


def export_viewer(source: ExportSource, folder: Path) -> Exported:
    """Write `viewer.html`, with the skeleton where the scene has keypoints."""
    path, times, known = folder / "viewer.html", source.scene.reference.times, source.scene.keypoints
    keypoints, parents = (None, ()) if known is None else (source.model.keypoints(times), known.parents)
    write_viewer(path, source.model.states(times), source.fps, keypoints, parents)
    return Exported([path])
