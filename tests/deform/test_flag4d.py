import math

import pytest
import torch
from torch.nn import functional as F

from kg4d.data.records import VideoFeatures
from kg4d.deform.base import RestGaussians
from kg4d.deform.build import build_deformation
from kg4d.deform.flag4d import STATE, Flag4d, MotionNetwork, moved, places, state_vectors
from kg4d.deform.settings import DeformationConfig, DeformationKind, Flag4dConfig, MutualConfig
from tests import make

SMALL = Flag4dConfig(summary_width=6, feature_width=8, heads=2, anchors=5, neighbours=2, refinement_width=12)
STATES = make.random_gaussians(9, keypoints=0, spread=0.4, seed=1)
TIMES = torch.tensor([0.0, 0.3, 0.55, 1.0])


def build(config: Flag4dConfig = SMALL, frames: int = 5) -> Flag4d:
    """One whose weights have moved, with a video in mind."""
    whole = DeformationConfig(DeformationKind.FLAG4D, width=16, depth=2, anchor_first=False, flag4d=config)
    module = build_deformation(whole, RestGaussians(STATES.means, 0.8), torch.Generator().manual_seed(0))
    assert isinstance(module, Flag4d)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(2))
    if frames:
        maps = torch.randn(frames, VideoFeatures.CHANNELS, 3, 4, generator=torch.Generator().manual_seed(3))
        module.watch(VideoFeatures(maps, torch.linspace(0, 1, frames)))
    return module


def test_a_state_that_does_not_change_is_the_gaussian() -> None:
    moving = moved(STATES, torch.zeros(2, 9, STATE))
    still = moving.at(1)
    for name in ("means", "quats", "scales", "colors"):
        assert torch.equal(getattr(still, name), getattr(STATES, name))
    torch.testing.assert_close(still.opacities, STATES.opacities)
    states = state_vectors(STATES, torch.tensor(0.8))
    assert states.shape == (9, STATE)
    torch.testing.assert_close(states[:, :3] * 0.8, STATES.means)
    torch.testing.assert_close(states[:, 13].sigmoid(), STATES.opacities)


def test_attention_is_the_formula() -> None:
    network = MotionNetwork(SMALL, 4, torch.Generator().manual_seed(0))
    features, states = torch.randn(1, 12, 8), torch.randn(5, STATE)
    found = network.ask(states, None, features)
    asked = network.state(states)
    query, key, value = network.query(asked), network.key(features[0]), network.value(features[0])
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        weights = torch.softmax(query[:, part] @ key[:, part].mT / math.sqrt(4), dim=-1)
        heads.append(weights @ value[:, part])
    expected = network.norm(asked + network.out(torch.cat(heads, dim=-1)))
    torch.testing.assert_close(found[0], expected)


def test_every_moment_is_drawn_without_the_others() -> None:
    module = build()
    together = module(STATES, TIMES)
    for index in range(len(TIMES)):
        alone = module(STATES, TIMES[index : index + 1])
        torch.testing.assert_close(alone.means[0], together.means[index], atol=1e-5, rtol=1e-5)


def test_features_are_those_of_the_frames_and_in_between_their_mean() -> None:
    module = build()
    at = module._maps_at(torch.tensor([0.0, 0.125, 0.25, 1.0]))
    assert at is not None
    torch.testing.assert_close(at[[0, 2, 3]], module.maps[[0, 1, 4]].float())
    torch.testing.assert_close(at[1], module.maps[:2].float().mean(0))


def test_what_the_video_shows_changes_the_motion() -> None:
    module, blind = build(), build(frames=0)
    blind.load_state_dict({**module.state_dict(), "maps": blind.maps, "moments": blind.moments})
    assert not torch.allclose(module(STATES, TIMES).means, blind(STATES, TIMES).means)


def test_each_branch_learns_from_the_other_and_from_its_own_images() -> None:
    """Eq. 7: both differences with the other side held fixed; what is drawn teaches IDN nothing."""
    config = Flag4dConfig(**{**vars(SMALL), "mutual": MutualConfig(to_gmn=1.0, to_idn=0.0)})
    module = build(config)
    drawn, draft = module(STATES, TIMES), module.draft()
    assert draft is not None
    assert module.idn is not None
    taught = torch.autograd.grad(drawn.means.sum(), list(module.idn.parameters()), retain_graph=True)
    assert all(float(gradient.abs().sum()) == 0 for gradient in taught)
    gradients = torch.autograd.grad(draft.apart.sum(), list(module.idn.parameters()), retain_graph=True)
    assert all(float(gradient.abs().sum()) == 0 for gradient in gradients)  # to_gmn alone moves GMN alone
    (gradient,) = torch.autograd.grad(draft.moving.means.sum(), [module.idn.rest[-1].weight])
    assert float(gradient.abs().sum()) > 0
    both = (drawn.means - draft.moving.means).square().sum(-1)
    assert (draft.apart >= both - 1e-5).all()  # positions are part of the distance


def test_without_gradients_there_is_no_draft() -> None:
    module = build()
    with torch.no_grad():
        module(STATES, TIMES)
    assert module.draft() is None


def test_a_checkpoint_brings_its_anchors_and_its_video() -> None:
    module = build()
    other = build(frames=0)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    state["anchors"] = state["anchors"][:4]
    other.load_state_dict(state)
    assert other.maps.shape == module.maps.shape
    assert len(other.anchors) == 4
    assert other(STATES, TIMES).means.isfinite().all()


def test_places_differ_everywhere() -> None:
    codes = places(16, 6, 8).flatten(1).mT
    apart = torch.cdist(codes, codes) + torch.eye(48) * 9
    assert apart.min() > 0.1
    assert F.cosine_similarity(codes[0], codes[1], dim=0) > F.cosine_similarity(codes[0], codes[4], dim=0)


@pytest.mark.parametrize(
    "wrong", [{"idn": False, "gmn": False}, {"feature_width": 6}, {"heads": 3}, {"window": 0}, {"anchors": 0}]
)
def test_sizes_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="flag4d"):
        build(Flag4dConfig(**{**vars(SMALL), **wrong}))
