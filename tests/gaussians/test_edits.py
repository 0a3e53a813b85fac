from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kg4d.gaussians import edits
from kg4d.gaussians.model import PARAMETERS, GaussianModel
from kg4d.geometry.rotations import quat_rotate
from tests import make


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(count: int) -> GaussianModel:
    """Gaussian i carries i in its first keypoint logit, so that its rows can be followed."""
    model = GaussianModel.from_state(make.random_gaussians(count))
    with torch.no_grad():
        model.keypoint_logits[:, 0] = torch.arange(count)
    return model


def origins(model: GaussianModel) -> list[int]:
    return model.keypoint_logits[:, 0].round().int().tolist()


def mask(count: int, *rows: int) -> Tensor:
    result = torch.zeros(count, dtype=torch.bool)
    result[list(rows)] = True
    return result


def copies(model: GaussianModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def moments(model: GaussianModel, optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    return {name: optimizer.state[model.get_parameter(name)]["exp_avg_sq"].clone() for name in PARAMETERS}


Edit = Callable[[GaussianModel, torch.optim.Optimizer], None]
EDITS: dict[str, tuple[Edit, list[int], int]] = {  # edit of 5, origin of each row, how many of the last rows are new
    "duplicate": (lambda m, o: edits.duplicate(m, o, mask(5, 1, 3)), [0, 1, 2, 3, 4, 1, 3], 2),
    "split": (lambda m, o: edits.split(m, o, mask(5, 1, 3), generator()), [0, 2, 4, 1, 3, 1, 3], 4),
    "remove": (lambda m, o: edits.remove(m, o, mask(5, 1, 3)), [0, 2, 4], 0),
    "nothing": (lambda m, o: edits.split(m, o, mask(5), generator()), [0, 1, 2, 3, 4], 0),
}


@pytest.mark.parametrize("name", EDITS)
def test_rows_and_moments_go_with_their_gaussian(name: str) -> None:
    edit, expected, new = EDITS[name]
    model = model_of(5)
    optimizer = make.trained_optimizer(model, steps=1)
    before, old_moments = copies(model), moments(model, optimizer)
    edit(model, optimizer)
    assert origins(model) == expected
    rows, kept = torch.tensor(expected), len(expected) - new
    assert torch.equal(model.colors, before["colors"][rows])
    assert torch.equal(model.quats, before["quats"][rows])
    assert torch.equal(model.means[:kept], before["means"][rows[:kept]])
    if name == "duplicate":
        old_moments["opacity_logits"][[1, 3]] = 0  # the opacity of an original jumps
    for parameter, moment in moments(model, optimizer).items():
        assert torch.equal(moment[:kept], old_moments[parameter][rows[:kept]])
        assert moment[kept:].abs().sum() == 0
    model.state().means.square().sum().backward()
    optimizer.step()


def test_duplicates_let_through_as_much_light_as_their_source() -> None:
    model = model_of(4)
    before = model.state().opacities.detach()
    edits.duplicate(model, None, mask(4, 2))
    after = model.state().opacities
    assert after[2] == after[4]
    torch.testing.assert_close((1 - after[2]) * (1 - after[4]), 1 - before[2])
    assert torch.equal(after[[0, 1, 3]], before[[0, 1, 3]])


def repeated(count: int) -> GaussianModel:
    """The same Gaussian `count` times."""
    row = copies(GaussianModel.from_state(make.random_gaussians(1)))
    return GaussianModel({name: value.repeat(count, *[1] * (value.ndim - 1)) for name, value in row.items()})


def local_spread(model: GaussianModel) -> Tensor:
    """Standard deviation of the centres of `repeated` after an edit, along the axes of their source."""
    source = make.random_gaussians(1)
    inverse = source.quats * torch.tensor([1.0, -1, -1, -1])
    local = quat_rotate(inverse, model.means.detach() - source.means)
    assert local.mean(0).abs().max() < 0.05 * source.scales.max()
    return local.std(0) / source.scales[0]


def test_halves_are_drawn_from_their_parent() -> None:
    model = repeated(3000)
    edits.split(model, None, torch.ones(3000, dtype=torch.bool), generator())
    torch.testing.assert_close(local_spread(model), torch.ones(3), rtol=0.05, atol=0)


def test_copies_are_moved_inside_their_source() -> None:
    model = repeated(6000)
    dead = torch.ones(6000, dtype=torch.bool)
    dead[0] = False
    edits.relocate(model, None, dead, generator())
    torch.testing.assert_close(local_spread(model), torch.full((3,), 0.7), rtol=0.05, atol=0)


def test_halves_are_smaller() -> None:
    model = model_of(3)
    before = model.state().scales.detach()
    edits.split(model, None, mask(3, 0), generator())
    torch.testing.assert_close(model.state().scales[2:], (before[:1] / 1.6).expand(2, 3))
    assert torch.equal(model.state().scales[:2], before[1:])


def test_dead_gaussians_become_copies_of_living_ones() -> None:
    model = model_of(6)
    with torch.no_grad():
        model.opacity_logits.copy_(torch.logit(torch.tensor([0.9, 0.001, 0.001, 1e-4, 0.001, 0.001])))
    optimizer = make.trained_optimizer(model, steps=1)
    before, dead = copies(model), mask(6, 1, 2, 4, 5)
    with torch.no_grad():
        model.opacity_logits[3] = -40.0  # alive by the mask, but never drawn
    edits.relocate(model, optimizer, dead, generator())
    assert origins(model) == [0, 0, 0, 3, 0, 0]
    family = torch.tensor([0, 1, 2, 4, 5])
    opacities = model.state().opacities
    torch.testing.assert_close((1 - opacities[family]).prod(), 1 - before["opacity_logits"][0].sigmoid())
    torch.testing.assert_close(model.log_scales[family], before["log_scales"][:1].expand(5, 3) - 0.15)
    assert torch.equal(model.means[[0, 3]], before["means"][[0, 3]])
    assert (model.means[[1, 2, 4, 5]] - before["means"][0]).norm(dim=-1).min() > 0
    for name, moment in moments(model, optimizer).items():
        assert moment[dead].abs().sum() == 0, name
        assert moment[3].abs().sum() > 0, name  # neither source nor copy
        jumps = name in ("opacity_logits", "log_scales")
        assert (moment[0].abs().sum() == 0) == jumps, name


def test_sources_are_drawn_by_opacity() -> None:
    model = model_of(3002)
    with torch.no_grad():
        model.opacity_logits[:2] = torch.logit(torch.tensor([0.2, 0.6]))
    dead = torch.ones(3002, dtype=torch.bool)
    dead[:2] = False
    edits.relocate(model, None, dead, generator())
    drawn = origins(model)[2:]
    assert abs(drawn.count(1) / len(drawn) - 0.75) < 0.03
    assert set(drawn) == {0, 1}


@given(st.integers(0, 1000), st.integers(2, 12))
def test_relocation_keeps_the_number_and_everything_finite(seed: int, count: int) -> None:
    model = GaussianModel.from_state(make.random_gaussians(count, seed=seed))
    dead = torch.rand(count, generator=generator(seed)) < 0.6
    dead[0] = False
    edits.relocate(model, None, dead, generator(seed))
    assert len(model) == count
    assert all(value.isfinite().all() for value in model.parameters())
    assert model.state().opacities[dead].numel() == 0 or model.state().opacities[dead].min() > 0.0099


def test_edits_repeat_under_the_same_seed() -> None:
    results = []
    for _ in range(2):
        model = model_of(8)
        edits.split(model, None, mask(8, 0, 1), generator(5))
        edits.relocate(model, None, mask(10, 3, 4), generator(6))
        results.append(model.means.detach())
    assert torch.equal(*results)


def test_nothing_dead_changes_nothing() -> None:
    model = model_of(3)
    before = copies(model)
    edits.relocate(model, None, mask(3), generator())
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())


def test_losing_every_gaussian_is_an_error() -> None:
    model = model_of(3)
    with pytest.raises(ValueError, match="no Gaussian is left"):
        edits.remove(model, None, torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="no Gaussian is left"):
        edits.relocate(model, None, torch.ones(3, dtype=torch.bool), generator())


def test_reset_caps_opacities_and_forgets_their_moments() -> None:
    model = model_of(3)
    with torch.no_grad():
        model.opacity_logits.copy_(torch.logit(torch.tensor([0.9, 0.05, 0.001])))
    optimizer = make.trained_optimizer(model, steps=1)
    low = model.state().opacities[2].item()
    edits.reset_opacity(model, optimizer, 0.04)
    torch.testing.assert_close(model.state().opacities, torch.tensor([0.04, 0.04, low]))
    assert optimizer.state[model.opacity_logits]["exp_avg"].abs().sum() == 0
    assert optimizer.state[model.means]["exp_avg"].abs().sum() > 0


def test_decay_lowers_opacities_to_its_floor_and_raises_none() -> None:
    model = model_of(4)
    with torch.no_grad():
        model.opacity_logits.copy_(torch.logit(torch.tensor([0.5, 0.0105, 0.004, 0.9999])))
    edits.decay_opacity(model, amount=0.001, floor=0.01)
    torch.testing.assert_close(model.state().opacities, torch.tensor([0.499, 0.01, 0.004, 0.9989]))
