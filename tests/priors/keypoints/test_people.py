"""RTMPose behind its interface: what is given to rtmlib, and what becomes of its answer."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kg4d.errors import InputError
from kg4d.priors.keypoints.people import COCO_NAMES, COCO_PARENTS, PersonKeypoints
from kg4d.priors.keypoints.settings import PersonConfig


def use_rtmlib(monkeypatch: pytest.MonkeyPatch, network: Any) -> None:
    module = ModuleType("rtmlib")
    module.RTMPose = network
    monkeypatch.setitem(sys.modules, "rtmlib", module)


def test_the_skeleton_is_a_tree():
    assert len(set(COCO_NAMES)) == len(COCO_NAMES) == 17
    assert all(parent < child for child, parent in enumerate(COCO_PARENTS))
    assert COCO_NAMES[COCO_PARENTS[COCO_NAMES.index("left_wrist")]] == "left_elbow"


def test_the_box_of_the_matte_goes_in_and_our_pixels_come_out(monkeypatch: pytest.MonkeyPatch):
    calls = []

    def build(model: str, **settings: Any) -> Any:
        assert settings["model_input_size"] == (192, 256)

        def detect(image: np.ndarray, bboxes: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
            calls.append(SimpleNamespace(image=image, bboxes=bboxes))
            points = np.tile([[10.0, 12.0]], (17, 1))
            points[3] = [-5, 3]
            return points[None], np.full((1, 17), 1.2)

        return detect

    use_rtmlib(monkeypatch, build)
    images = torch.zeros(2, 40, 60, 4)
    images[0, 5:30, 7:20] = torch.tensor([1.0, 0.0, 0.0, 1.0])
    found = PersonKeypoints(PersonConfig())(images)
    assert len(calls) == 1  # the empty matte is not asked about
    assert calls[0].bboxes == [[7, 5, 20, 30]]
    assert calls[0].image[10, 10].tolist() == [0, 0, 255]  # blue, green, red
    assert calls[0].image[0, 0].tolist() == [255, 255, 255]
    assert found.uv[0, 0].tolist() == [10.5, 12.5]
    assert found.weights[0, 0] == 1
    assert found.weights[0, 3] == 0  # outside
    assert (found.weights[1] == 0).all()
    assert found.uv.isfinite().all()


def test_the_network_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use_rtmlib(monkeypatch, lambda model, **_: SimpleNamespace(onnx_model=model))
    identities = []
    for content in (b"old", b"retrained"):
        (tmp_path / "pose.onnx").write_bytes(content)
        identities.append(PersonKeypoints(PersonConfig(model=str(tmp_path / "pose.onnx"))).identity())
    assert identities[0] != identities[1]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "rtmlib", None)
    with pytest.raises(InputError, match=r"kg4d\[people\]"):
        PersonKeypoints(PersonConfig())

    def build(model: str, **settings: Any) -> Any:
        raise OSError("no route to host\nand more")

    use_rtmlib(monkeypatch, build)
    with pytest.raises(InputError, match="^keypoints.person.model: .* cannot be had: no route to host") as caught:
        PersonKeypoints(PersonConfig())
    assert "\n" not in str(caught.value)
