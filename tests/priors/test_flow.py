import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kg4d.data.images import resize_rgba
from kg4d.errors import InputError
from kg4d.geometry.sampling import pixel_centers
from kg4d.priors.flow import DisFlow, RaftFlow, confident
from kg4d.priors.settings import FlowConfig
from tests.priors.textures import SIZE, picture, rotation

WARPS = {
    "still": (torch.eye(2), torch.zeros(2)),
    "translation": (torch.eye(2), torch.tensor([3.0, -2.0])),
    "half a pixel": (torch.eye(2), torch.tensor([0.5, 0.0])),
    "rotation": (rotation(6), torch.zeros(2)),
    "grow": (1.06 * torch.eye(2), torch.tensor([1.0, 1.0])),
}


@pytest.mark.parametrize("name", WARPS)
def test_a_known_warp_is_found(name: str) -> None:
    matrix, translation = WARPS[name]
    video = torch.stack([picture(), picture(matrix, translation)])
    found = DisFlow(FlowConfig())(video)
    centered = pixel_centers(SIZE, SIZE) - SIZE / 2
    truth = centered @ matrix.T + translation - centered
    core = video[0, ..., 3] > 0.9
    error = (found.flow[0] - truth).norm(dim=-1)
    assert error[core].mean() < 0.35
    sure = core & (found.weights[0] > 0.5)
    assert sure.sum() > 0.6 * core.sum()
    assert error[sure].mean() < 0.25


def test_confidence_is_in_range_and_zero_off_the_object() -> None:
    video = torch.stack(
        [picture(), picture(translation=torch.tensor([4.0, 0.0])), picture(translation=torch.tensor([8.0, 1.0]))]
    )
    found = DisFlow(FlowConfig())(video)
    assert found.flow.shape == (2, SIZE, SIZE, 2)
    assert found.flow.isfinite().all()
    assert ((found.weights >= 0) & (found.weights <= 1)).all()
    assert (found.weights[video[:-1, ..., 3] == 0] == 0).all()


def test_flow_depends_on_the_two_frames_alone() -> None:
    frames = [picture(translation=torch.tensor([2.0 * step, 0.0])) for step in range(3)]
    estimator = DisFlow(FlowConfig())
    together = estimator(torch.stack(frames))
    for pair in range(2):
        alone = estimator(torch.stack(frames[pair : pair + 2]))
        assert torch.equal(alone.flow[0], together.flow[pair])
        assert torch.equal(alone.weights[0], together.weights[pair])


@given(error=st.floats(0, 3), length=st.sampled_from([0.0, 10.0, 100.0]))
def test_confidence_is_the_agreement_on_the_way_back(error: float, length: float) -> None:
    size = 512
    forward = torch.zeros(1, 1, size, 2)
    forward[..., 0] = length
    backward = torch.zeros(1, 1, size, 2)
    backward[..., 0] = error - length
    weights = confident(forward, backward, torch.ones(2, 1, size), FlowConfig()).weights[0, 0]
    tolerance = max(1.0, 0.05 * length)
    inside = torch.arange(size) + 0.5 + length <= size
    expected = max(0.0, 1 - (error / tolerance) ** 2)
    torch.testing.assert_close(weights[inside], torch.full_like(weights[inside], expected), atol=1e-4, rtol=0)
    assert (weights[~inside] == 0).all()


def test_what_moves_off_the_object_is_not_believed() -> None:
    alphas = torch.ones(2, 4, 4)
    alphas[1, :, 2:] = 0
    weights = confident(torch.zeros(1, 4, 4, 2), torch.zeros(1, 4, 4, 2), alphas, FlowConfig()).weights
    assert weights[0, 0].tolist() == [1, 1, 0, 0]


def test_tiny_frames_are_no_trouble() -> None:
    small = resize_rgba(torch.stack([picture(), picture(translation=torch.tensor([6.0, 0.0]))]), 20, 16)
    found = DisFlow(FlowConfig())(small)
    assert found.flow.isfinite().all()


def test_the_identity_names_the_tolerances() -> None:
    assert DisFlow(FlowConfig()).identity() != DisFlow(FlowConfig(tolerance_px=2.0)).identity()


class Raft(torch.nn.Module):
    """In place of torchvision's: finds that each frame is the one before it, moved by (3, -2)."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        self.seen.append(first)
        ahead = second.mean((1, 2, 3)) > first.mean((1, 2, 3))  # the frames get brighter
        flow = torch.tensor([3.0, -2.0]) * (2.0 * ahead[:, None] - 1)
        return [torch.zeros(2, 2, *first.shape[2:]), flow[..., None, None].expand(2, 2, *first.shape[2:])]


@pytest.fixture
def raft(monkeypatch: pytest.MonkeyPatch) -> Raft:
    """torchvision with that network."""
    network, module = Raft(), ModuleType("torchvision.models.optical_flow")

    def raft_large(weights: str) -> Raft:
        if weights == "gone":
            raise OSError("no route to host")
        return network

    module.raft_large = raft_large
    module.Raft_Large_Weights = SimpleNamespace(C_T_SKHT_V2="as published")
    for name in ("torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return network


def brightening(frames: int, height: int, width: int) -> Tensor:
    shades = torch.linspace(0.2, 0.8, frames)[:, None, None, None].expand(frames, height, width, 3)
    return torch.cat([shades, torch.ones(frames, height, width, 1)], dim=-1)


def test_raft_sees_padded_images_and_its_last_flow_is_taken_in_both_directions(raft: Raft) -> None:
    found = RaftFlow(FlowConfig())(brightening(3, 130, 133))
    assert found.flow.shape == (2, 130, 133, 2)
    assert torch.equal(found.flow, torch.tensor([3.0, -2.0]).expand(2, 130, 133, 2))
    assert (found.weights[:, 2:, :-3] == 1).all(), "forward and backward flow agree exactly"
    assert (found.weights[:, :2] == 0).all(), "it leaves the image"
    assert [tuple(images.shape) for images in raft.seen] == [(2, 3, 136, 136)] * 2
    assert torch.allclose(raft.seen[0][:, 0, 0, 0], torch.tensor([51.0, 128.0]) / 127.5 - 1, atol=1 / 127)
    assert not raft.training


def test_raft_says_what_it_cannot_do(raft: Raft) -> None:
    flow = RaftFlow(FlowConfig())
    with pytest.raises(InputError, match="RAFT needs images of 128 px, these have 96"):
        flow(brightening(2, 96, 200))
    sys.modules["torchvision.models.optical_flow"].Raft_Large_Weights.C_T_SKHT_V2 = "gone"
    with pytest.raises(InputError, match="weights cannot be fetched: no route to host .*flow.kind=dis"):
        flow(brightening(2, 128, 128))


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_raft_says_what_it_needs() -> None:
    with pytest.raises(InputError, match=r"flow.kind.*torchvision.*kg4d\[raft\]"):
        RaftFlow(FlowConfig())
