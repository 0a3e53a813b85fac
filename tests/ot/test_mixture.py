import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.ot.mixture import mixture_weights
from kg4d.ot.settings import ContributorWeights

IDS = torch.tensor([[2, 0, -1], [1, -1, -1], [-1, -1, -1]])
BLENDING = torch.tensor([[0.6, 0.2, 0.0], [0.04, 0.0, 0.0], [0.0, 0.0, 0.0]])
OPACITIES = torch.tensor([0.1, 0.5, 0.9])


def test_contribution_weights_are_the_normalised_blending_weights() -> None:
    found = mixture_weights(BLENDING, IDS, OPACITIES)
    expected = torch.tensor([[0.75, 0.25, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(found.weights, expected)


def test_opacity_weights_are_a_softmax_over_those_present() -> None:
    found = mixture_weights(BLENDING, IDS, OPACITIES, ContributorWeights.SOFTMAX_OPACITY)
    pair = torch.tensor([0.9, 0.1]).softmax(0)
    torch.testing.assert_close(found.weights[0], torch.cat([pair, torch.zeros(1)]))
    assert found.weights[1].tolist() == [1.0, 0.0, 0.0]
    assert found.weights[2].tolist() == [0.0, 0.0, 0.0]


def test_shares_of_the_opacity() -> None:
    found = mixture_weights(BLENDING, IDS, OPACITIES, ContributorWeights.OPACITY)
    torch.testing.assert_close(found.weights[0], torch.tensor([0.9, 0.1, 0.0]))
    assert found.weights[1:].sum() == 1.0


def test_coverage_is_the_blending_sum_whatever_the_kind() -> None:
    for kind in ContributorWeights:
        assert mixture_weights(BLENDING, IDS, OPACITIES, kind).covered.tolist() == [True, False, False]
        assert mixture_weights(BLENDING, IDS, OPACITIES, kind, min_coverage=0.04).covered.tolist() == [
            True,
            True,
            False,
        ]


def test_softmax_of_opacities_can_hardly_choose() -> None:
    """KG4D's weights: the largest ratio between any two is e, while blending weights may differ without bound."""
    opacities = torch.rand(20, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(20)[None]
    found = mixture_weights(torch.full((1, 20), 0.05), ids, opacities, ContributorWeights.SOFTMAX_OPACITY).weights
    assert found.max() / found.min() < torch.e
    assert 1 / found.square().sum() > 18  # effective number of components, of 20


@given(st.integers(0, 2**31), st.sampled_from(ContributorWeights))
def test_weights_sum_to_one_where_anything_contributes(seed: int, kind: ContributorWeights) -> None:
    g = torch.Generator().manual_seed(seed)
    present = torch.rand(12, 5, generator=g) > 0.4
    ids = torch.where(present, torch.randint(30, (12, 5), generator=g), -1)
    blending = torch.rand(12, 5, generator=g) * present * 10.0 ** torch.randint(-30, 0, (12, 1), generator=g)
    found = mixture_weights(blending, ids, torch.rand(30, generator=g), kind).weights
    assert (found[~present] == 0).all()
    torch.testing.assert_close(found.sum(-1), present.any(-1).float())


def test_padding_is_told_by_the_id_alone() -> None:
    garbage = torch.where(IDS < 0, 7.0, BLENDING)
    found, expected = mixture_weights(garbage, IDS, OPACITIES), mixture_weights(BLENDING, IDS, OPACITIES)
    torch.testing.assert_close(found.weights, expected.weights)
    assert found.covered.tolist() == expected.covered.tolist()


def test_no_gradient_flows() -> None:
    blending, opacities = BLENDING.clone().requires_grad_(), OPACITIES.clone().requires_grad_()
    for kind in ContributorWeights:
        assert not mixture_weights(blending, IDS, opacities, kind).weights.requires_grad
