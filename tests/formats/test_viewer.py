import base64
import http.client
import re
import sys
import urllib.request
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
import zstandard

from kg4d.formats.viewer import Controls, Film, viewer_server, write_viewer
from kg4d.gaussians.state import GaussianState
from tests import make

FRAMES, JOINTS, PARENTS = 3, 4, (-1, 0, 1, 1)


def film_states(count: int = 5) -> list[GaussianState]:
    still = make.random_gaussians(count)
    return [replace(still, means=still.means + t) for t in range(FRAMES)]


def film_keypoints() -> torch.Tensor:
    return torch.randn(FRAMES, JOINTS, 3, generator=torch.Generator().manual_seed(1))


class Recording:
    """What a page holds, decoded apart from viser: messages with their times, and the arrays they refer to."""

    def __init__(self, page: str) -> None:
        data = base64.b64decode(re.search(r'__VISER_EMBED_DATA__="([^"]+)"', page)[1])
        inner = zstandard.ZstdDecompressor().decompressobj().decompress(data[8:])
        end = 8 + int.from_bytes(inner[:8], "little")
        content = msgspec.msgpack.decode(inner[8:end])
        self.seconds, self.messages, self.buffers = content["durationSeconds"], content["messages"], []
        for length in content["binaryBufferLengths"]:
            start = -(-end // 8) * 8
            end = start + length
            self.buffers.append(inner[start:end])

    def of_type(self, kind: str) -> list[dict]:
        return [message for _, message in self.messages if message["type"] == kind]

    def visible_at(self, seconds: float) -> set[str]:
        """Frames of Gaussians and of the skeleton that show when everything up to a time has been applied."""
        state = {}
        for time, message in self.messages:
            if message["type"] == "SetSceneNodeVisibilityMessage" and time <= seconds:
                state[message["name"]] = message["visible"]
        return {name for name, shown in state.items() if shown and re.fullmatch(r"/(gaussians|keypoints)/\d+", name)}


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("viewer") / "new" / "page.html"
    write_viewer(path, film_states(), 4, film_keypoints(), PARENTS)
    return path.read_text(encoding="utf-8")


def test_the_page_shows_one_frame_after_the_other(page):
    recording = Recording(page)
    assert recording.seconds == FRAMES / 4
    for frame in range(FRAMES):
        shown = {f"/gaussians/{frame}", f"/keypoints/{frame}"}
        assert recording.visible_at(frame / 4 + 0.01) == shown


def test_the_page_holds_the_gaussians_as_they_are(page):
    recording = Recording(page)
    messages = {message["name"]: message for message in recording.of_type("GaussianSplatsMessage")}
    assert len(messages) == FRAMES
    for frame, state in enumerate(film_states()):
        raw = recording.buffers[messages[f"/gaussians/{frame}"]["props"]["buffer"]["__binary_index"]]
        words = np.frombuffer(raw, np.uint32).reshape(len(state), 8)
        np.testing.assert_array_equal(words[:, :3].copy().view(np.float32), state.means.numpy())
        rotation = rotation_matrices(state.quats.double().numpy())
        covariance = rotation @ (state.scales.double().numpy()[:, :, None] ** 2 * rotation.transpose(0, 2, 1))
        upper = covariance.reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]
        np.testing.assert_allclose(words[:, 4:7].copy().view(np.float16), upper, atol=1e-4, rtol=2e-3)
        np.testing.assert_allclose(words[:, 7:].copy().view(np.uint8)[:, :3] / 255, state.colors, atol=1 / 255)
        np.testing.assert_allclose(words[:, 7:].copy().view(np.uint8)[:, 3] / 255, state.opacities, atol=1 / 255)


def rotation_matrices(quats: np.ndarray) -> np.ndarray:
    """R = I + 2 w [v] + 2 [v]² of unit quaternions (w, v)."""
    w, x, y, z = (quats / np.linalg.norm(quats, axis=1, keepdims=True)).T
    zero = np.zeros_like(w)
    cross = np.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]]).transpose(2, 0, 1)
    return np.eye(3) + 2 * w[:, None, None] * cross + 2 * cross @ cross


def test_the_page_holds_joints_and_bones(page):
    recording = Recording(page)
    joints = {m["name"]: m["position"] for m in recording.of_type("SetPositionMessage")}
    keypoints = film_keypoints()
    for frame in range(FRAMES):
        for joint in range(JOINTS):
            np.testing.assert_allclose(joints[f"/keypoints/{frame}/{joint}"], keypoints[frame, joint], atol=1e-6)
    (bones,) = [m for m in recording.of_type("LineSegmentsMessage") if m["name"] == "/keypoints/2/bones"]
    raw = recording.buffers[bones["props"]["points"]["__binary_index"]]
    ends = np.frombuffer(raw, np.float32).reshape(-1, 2, 3)
    np.testing.assert_allclose(ends, keypoints[2][torch.tensor([[1, 0], [2, 1], [3, 1]])], atol=1e-6)


def test_the_page_needs_no_network(page):
    assert re.findall(r'(?:src|href)="https?://[^"]+"', page) == []


def test_workers_start_when_the_page_is_opened_as_a_file(page):
    """Without its worker the page shows the splats unsorted; the script must come before any of viser's."""
    assert page.index('location.protocol === "file:"') < page.index("<script", page.index("<script") + 1)


def test_the_first_camera_has_the_object_in_view(page):
    recording = Recording(page)
    (position,) = (np.array(message["position"]) for message in recording.of_type("SetCameraPositionMessage"))
    (target,) = (np.array(message["look_at"]) for message in recording.of_type("SetCameraLookAtMessage"))
    (fov,) = (message["fov"] for message in recording.of_type("SetCameraFovMessage"))
    forward = (target - position) / np.linalg.norm(target - position)
    rays = film_states()[0].means.numpy() - position
    angles = np.arccos(rays @ forward / np.linalg.norm(rays, axis=1))
    assert forward[2] < -0.9  # it stands on +Z
    assert angles.max() < fov / 2
    assert angles.max() > fov / 4


def test_a_page_without_keypoints(tmp_path):
    write_viewer(tmp_path / "page.html", film_states(), 2.5)
    recording = Recording((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert recording.visible_at(1.3) == {"/gaussians/2"}
    assert recording.seconds == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("states", "fps", "keypoints", "message"),
    [
        (film_states(), 0, None, "fps must be positive"),
        ([], 4, None, "at least one frame"),
        (film_states(), 4, torch.zeros(FRAMES + 1, JOINTS, 3), "keypoints of 4 frames but 3 frames"),
    ],
)
def test_a_wrong_film_is_refused(tmp_path, states, fps, keypoints, message):
    with pytest.raises(ValueError, match=message):
        write_viewer(tmp_path / "page.html", states, fps, keypoints, PARENTS)
    assert not list(tmp_path.iterdir())


def test_without_viser_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(ImportError, match=r'pip install "kg4d\[viewer\]"'):
        write_viewer(tmp_path / "page.html", film_states(), 4)


def test_a_live_page_is_served_and_its_controls_drive_the_film(capfd):
    with viewer_server() as server:
        film = Film(server, film_states(), film_keypoints(), PARENTS)
        controls = Controls(server, film, 8)
        with urllib.request.urlopen(f"http://127.0.0.1:{server.get_port()}", timeout=10) as answer:
            assert b"<html" in answer.read()
        nodes = {name: server.scene.get_handle_by_name(name) for name in scene_names()}
        assert shown(nodes) == {"/gaussians", "/gaussians/0", "/keypoints", "/keypoints/0"}
        controls.frame.value = 2
        assert shown(nodes) == {"/gaussians", "/gaussians/2", "/keypoints", "/keypoints/2"}
        controls.advance()
        assert controls.frame.value == 0
        controls.playing.value = False
        controls.advance()
        assert controls.frame.value == 0
        controls.layers["keypoints"].value = False
        assert shown(nodes) == {"/gaussians", "/gaussians/0", "/keypoints/0"}
        assert controls.seconds_per_frame == 1 / 8
    assert capfd.readouterr() == ("", "")


def scene_names() -> list[str]:
    return [
        name for layer in ("/gaussians", "/keypoints") for name in (layer, *(f"{layer}/{t}" for t in range(FRAMES)))
    ]


def shown(nodes: dict) -> set[str]:
    return {name for name, node in nodes.items() if node.visible}


def test_controls_without_keypoints_offer_no_layer_of_them():
    with viewer_server() as server:
        controls = Controls(server, Film(server, film_states()[:1]), 100)
        assert list(controls.layers) == ["gaussians"]
        assert controls.fps.value == 60
        controls.advance()
        assert controls.frame.value == 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://{host}"}, 200),
        ({"Host": "example.com"}, 403),
        ({"Origin": "http://example.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://{host}", "Upgrade": "websocket"}, 101),
        ({"Origin": "http://example.com", "Upgrade": "websocket"}, 403),
    ],
)
def test_a_live_page_answers_itself_alone(headers, status):
    socket = {"Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "a" * 22 + "=="}
    with viewer_server() as server:
        host = f"127.0.0.1:{server.get_port()}"
        asked = {name: value.format(host=host) for name, value in headers.items()}
        asked |= socket | {"Sec-WebSocket-Protocol": "viser-v0"} if "Upgrade" in asked else {}
        connection = http.client.HTTPConnection(host, timeout=20)
        connection.request("GET", "/", headers=asked)
        assert connection.getresponse().status == status
        connection.close()
