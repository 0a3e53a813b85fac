import torch

from kg4d.lift.harmonic_translations import HarmonicTranslations

REST = torch.tensor([[0.0, 0.0, 0.0], [0.3, -0.5, 0.1]])
TIMES = torch.linspace(0, 1, 5)


def networks(seed: int = 0) -> HarmonicTranslations:
    return HarmonicTranslations(3, REST, torch.Generator().manual_seed(seed))


def test_translations_start_at_zero() -> None:
    assert torch.equal(networks()(TIMES), torch.zeros(3, 5, 2, 3))


def test_every_network_has_weights_of_its_own_which_the_generator_decides() -> None:
    first, again, other = networks().weights[0], networks().weights[0], networks(1).weights[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_a_network_learns_from_its_own_loss_alone() -> None:
    model = networks()
    model(TIMES)[1].sum().backward()
    slopes = model.biases[-1].grad
    assert slopes is not None
    assert (slopes != 0).flatten(1).any(1).tolist() == [False, True, False]
