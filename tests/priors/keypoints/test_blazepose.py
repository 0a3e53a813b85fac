"""BlazePose behind its interface, with an interpreter that draws what it sees; and what is made of its answers."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kg4d.data.scene import load_scene
from kg4d.errors import InputError
from kg4d.keypoints.sides import other_sides
from kg4d.networks.weights import weight_path
from kg4d.priors.base import KeypointTracks
from kg4d.priors.cache.store import PriorCache
from kg4d.priors.keypoints.blazepose import (
    BLAZEPOSE_NAMES,
    BLAZEPOSE_PARENTS,
    SIDE,
    WEIGHTS_NAME,
    BlazePoseKeypoints,
    load_blazepose,
)
from kg4d.priors.keypoints.detected import detect_keypoints
from kg4d.priors.workbench import Workbench


class RedDot:
    """Puts the landmarks at the middle of what is red; the feet, and the point above the hips, at what is green.

    Attributes:
        crops: What it was shown.
    """

    def __init__(self, person: float = 0.9) -> None:
        self.person, self.crops = person, []

    def get_input_details(self) -> list[dict]:
        return [{"index": 0}]

    def get_output_details(self) -> list[dict]:
        return [{"index": 1}, {"index": 2}]

    def set_tensor(self, index: int, value: np.ndarray) -> None:
        assert value.shape == (1, SIDE, SIDE, 3)
        assert value.dtype == np.float32
        assert 0 <= value.min() <= value.max() <= 1
        self.crops.append(value[0])

    def invoke(self) -> None:
        crop = self.crops[-1]
        redness = (crop[..., 0] - crop[..., 1]).clip(0)
        rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
        middle = np.array([(redness * columns).sum(), (redness * rows).sum()]) / redness.sum()
        green = (crop[..., 1] - crop[..., 0]).clip(0)
        above = np.array([(green * columns).sum(), (green * rows).sum()]) / green.sum()
        self.landmarks = np.zeros((39, 5), np.float32)
        self.landmarks[:, :2], self.landmarks[27:35, :2] = middle, above
        self.landmarks[33, :2] = middle
        self.landmarks[:, 2] = np.arange(39)
        self.landmarks[:, 3] = np.log(0.8 / 0.2)

    def get_tensor(self, index: int) -> np.ndarray:
        return self.landmarks.reshape(1, -1) if index == 1 else np.array([[self.person]], np.float32)


def picture(red: tuple[int, int], green: tuple[int, int]) -> torch.Tensor:
    """A body between a red and a green dot of 4 px, the upper left corners of which are given."""
    image = torch.zeros(120, 160, 4)
    image[20:110, 30:100] = torch.tensor([0.5, 0.5, 0.5, 1.0])
    for (x, y), colour in ((red, [1.0, 0, 0, 1]), (green, [0, 1.0, 0, 1])):
        image[y : y + 4, x : x + 4] = torch.tensor(colour)
    return image


def test_the_skeleton_is_a_tree_with_sides() -> None:
    assert len(set(BLAZEPOSE_NAMES)) == 17
    assert all(parent < child for child, parent in enumerate(BLAZEPOSE_PARENTS))
    sides = other_sides(BLAZEPOSE_NAMES)
    assert sum(side < 0 for side in sides) == 3
    assert sides[BLAZEPOSE_NAMES.index("left_foot")] == BLAZEPOSE_NAMES.index("right_foot")


@pytest.mark.parametrize("green", [(60, 40), (85, 70), (40, 95)])
def test_positions_come_back_to_the_pixels_of_the_image(green: tuple[int, int]) -> None:
    """Also when the square is turned, as the second and the third are."""
    network = RedDot()
    found = BlazePoseKeypoints(network)(picture((60, 70), green)[None])
    assert len(network.crops) == 4 * 3  # two sizes, each also in a mirror
    feet = torch.tensor(["ankle" in name or "foot" in name for name in BLAZEPOSE_NAMES])
    assert (found.uv[0, ~feet] - torch.tensor([62.0, 72.0])).abs().max() < 0.3
    assert (found.uv[0, feet] - torch.tensor(green) - 2).abs().max() < 0.3
    assert found.weights[0] == pytest.approx(torch.full((17,), 0.8 * 0.9), rel=0.03)  # the looks part by some .1 px
    upright = network.landmarks[34, :2] - network.landmarks[33, :2]
    assert abs(upright[0]) < 3  # the last square stood on the body
    assert upright[1] < 0
    assert found.depths is not None
    scale = (1.25 + 1.1) * float(np.hypot(green[0] - 60, green[1] - 70)) / SIDE  # px of the image per px of the square
    ankle, hip = BLAZEPOSE_NAMES.index("left_ankle"), BLAZEPOSE_NAMES.index("left_hip")
    assert float(found.depths[0, ankle] - found.depths[0, hip]) == pytest.approx(4 * scale, rel=0.02)


def test_nobody_has_no_weight() -> None:
    empty = torch.zeros(1, 40, 40, 4)
    assert (BlazePoseKeypoints(RedDot())(empty).weights == 0).all()
    doubtful = RedDot(person=0.2)
    assert (BlazePoseKeypoints(doubtful)(picture((60, 70), (60, 40))[None]).weights == 0).all()
    assert len(doubtful.crops) == 4


class Wavering(RedDot):
    """Takes the left for the right in a mirror as it should, then forgets to in every other look; or sees a limb twice.

    Attributes:
        confused: Whether left and right are exchanged in the second of two looks.
        apart: How far apart the looks put the left wrist, px of the image.
    """

    def __init__(self, confused: bool, apart: float) -> None:
        super().__init__()
        self.confused, self.apart = confused, apart

    def invoke(self) -> None:
        super().invoke()
        look = (len(self.crops) - 1) // 3
        facing, odd = (1 if look < 2 else -1), look % 2 == 1
        across = facing * (-1 if odd and self.confused else 1)
        scale = np.linalg.norm(self.landmarks[34, :2] - self.landmarks[33, :2]) / 30  # px of the square per px
        self.landmarks[11:27:2, 0] -= across * 10 * scale
        self.landmarks[12:27:2, 0] += across * 10 * scale
        self.landmarks[15, 1] += self.apart * scale * odd


def test_looks_that_part_in_left_and_right_are_brought_together() -> None:
    image = picture((60, 70), (60, 40))[None]
    calm, confused = (BlazePoseKeypoints(Wavering(confused, 0.0))(image) for confused in (False, True))
    left, right = BLAZEPOSE_NAMES.index("left_wrist"), BLAZEPOSE_NAMES.index("right_wrist")
    assert float(calm.uv[0, right, 0] - calm.uv[0, left, 0]) == pytest.approx(20, abs=1)
    assert (confused.uv - calm.uv).abs().max() < 0.5
    assert (confused.weights - calm.weights).abs().max() < 0.02


def test_where_the_looks_disagree_the_mean_counts_less() -> None:
    image = picture((60, 70), (60, 40))[None]
    calm, wavering = (BlazePoseKeypoints(Wavering(False, apart))(image) for apart in (0.0, 6.0))
    left, right = BLAZEPOSE_NAMES.index("left_wrist"), BLAZEPOSE_NAMES.index("right_wrist")
    assert float(wavering.uv[0, left, 1] - calm.uv[0, left, 1]) == pytest.approx(3, abs=0.5)
    assert float(wavering.weights[0, left]) < 0.5 * float(calm.weights[0, left])
    assert float(wavering.weights[0, right]) == pytest.approx(float(calm.weights[0, right]), rel=0.05)


class Walker:
    """A detector whose answers are given."""

    name, names, parents = "walker", ("hip", "left_foot", "right_foot"), (-1, 0, 0)

    def __init__(self, seen: list[float]) -> None:
        self.seen = seen

    def identity(self) -> dict[str, Any]:
        return {"seen": str(self.seen)}

    def __call__(self, images: torch.Tensor) -> KeypointTracks:
        uv = torch.tensor([[10.0, 10.0], [16.0, 18.0], [4.0, 18.0]]).expand(len(images), -1, -1)
        depths = torch.tensor([0.0, 10.0, -10.0]).expand(len(images), -1)
        return KeypointTracks(uv, torch.tensor(self.seen)[:, None].expand(-1, 3), depths)


def test_bones_lean_as_the_detector_says(tmp_path: Path) -> None:
    bench = Workbench(PriorCache(str(tmp_path)), progress_bar=False)
    found = detect_keypoints(bench, Walker([1.0, 0.0, 1.0]), torch.ones(3, 24, 24, 4))
    assert found.leans is not None
    sine = 10 / (36 + 64 + 100) ** 0.5
    assert torch.allclose(found.leans[0], torch.tensor([0.0, sine, -sine]))
    assert (found.leans[1] == 0).all()  # nobody was seen
    assert bench.notes == []


def test_nobody_in_the_first_frame_is_an_error_and_few_frames_are_noted(tmp_path: Path) -> None:
    bench = Workbench(PriorCache(str(tmp_path)), progress_bar=False)
    with pytest.raises(InputError, match="sees nobody in the first frame") as caught:
        detect_keypoints(bench, Walker([0.0, 1.0, 1.0]), torch.ones(3, 24, 24, 4))
    assert "keypoints.kind=click" in str(caught.value)
    detect_keypoints(bench, Walker([1.0, 0.0, 0.0]), torch.ones(3, 24, 24, 4))
    assert "1 of 3 frames" in bench.notes[0]


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KG4D_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(InputError, match=r"kg4d\[blazepose\]"):
        load_blazepose()


def test_a_missing_network_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_litert", exc_type=ImportError)
    monkeypatch.setenv("KG4D_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="pull blazepose-full"):
        load_blazepose()


@pytest.mark.realdata
def test_the_real_network_finds_a_rendered_person(data_root: Path) -> None:
    """At a tenth of the body's size in at least nine of ten of the joints that are seen."""
    pytest.importorskip("ai_edge_litert", exc_type=ImportError)
    if not weight_path(WEIGHTS_NAME).exists():
        pytest.skip("needs `python -m kg4d.metrics.weights pull blazepose-full`")
    scene = load_scene(data_root / "gltf4d/cesium_man")
    given = scene.keypoints
    assert given is not None
    found = load_blazepose()(scene.reference.images[::5])
    own = [BLAZEPOSE_NAMES.index(name) if name in BLAZEPOSE_NAMES else -1 for name in given.names]
    shared = [joint for joint, index in enumerate(own) if index >= 0]
    misses = (found.uv[:, [own[joint] for joint in shared]] - given.uv[::5, shared]).norm(dim=-1)
    seen = given.weights[::5, shared] > 0
    assert float((misses[seen] < 20).float().mean()) > 0.9
