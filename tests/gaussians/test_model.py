from dataclasses import fields
from pathlib import Path

import pytest
import torch

from kg4d.gaussians.model import PARAMETERS, GaussianModel
from kg4d.gaussians.settings import LearningRates
from tests import make


@pytest.mark.parametrize("keypoints", [0, 3])
def test_state_survives_the_round_trip(keypoints: int) -> None:
    state = make.random_gaussians(7, keypoints=keypoints)
    back = GaussianModel.from_state(state).state()
    for field in fields(state):
        torch.testing.assert_close(getattr(back, field.name), getattr(state, field.name), rtol=1e-5, atol=1e-6)
    assert len(back) == 7


def test_quaternions_keep_their_norm_and_every_parameter_gets_a_gradient() -> None:
    model = GaussianModel.from_state(make.random_gaussians(5))
    state = model.state()
    assert torch.equal(state.quats, model.quats)
    values = [getattr(state, field.name) for field in fields(state)]
    sum(value.square().sum() for value in values if value is not None).backward()
    assert all(model.get_parameter(name).grad.abs().sum() > 0 for name in PARAMETERS)


def test_isotropic_scales_are_tied_at_the_geometric_mean() -> None:
    state = make.random_gaussians(6)
    model = GaussianModel.from_state(state, isotropic=True)
    scales = model.state().scales
    assert model.log_scales.shape == (6, 1)
    torch.testing.assert_close(scales, state.scales.prod(-1, keepdim=True).pow(1 / 3).expand(-1, 3))
    scales[:, 0].sum().backward()
    torch.testing.assert_close(model.log_scales.grad[:, 0], scales[:, 0].detach())


def test_opaque_gaussians_have_finite_logits() -> None:
    state = make.random_gaussians(2)
    state.opacities[:] = torch.tensor([0.0, 1.0])
    assert GaussianModel.from_state(state).opacity_logits.isfinite().all()


def test_a_checkpoint_may_have_another_number_of_gaussians(tmp_path: Path) -> None:
    saved, model = (GaussianModel.from_state(make.random_gaussians(n, seed=n)) for n in (9, 4))
    outer = torch.nn.ModuleDict({"model": model})
    before = dict(model.named_parameters())
    torch.save(torch.nn.ModuleDict({"model": saved}).state_dict(), tmp_path / "weights.pt")
    outer.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert len(model) == 9
    for name in PARAMETERS:
        assert torch.equal(model.get_parameter(name), saved.get_parameter(name))
        assert model.get_parameter(name) is before[name]


def test_weights_of_a_version_without_harmonics_are_read_where_there_are_none() -> None:
    saved = GaussianModel.from_state(make.random_gaussians(9, sh_degree=0))
    old = {name: value for name, value in saved.state_dict().items() if name != "harmonics"}
    model = GaussianModel.from_state(make.random_gaussians(4, sh_degree=0))
    model.load_state_dict(old)
    for found in (model, GaussianModel.from_weights({f"own.{name}": value for name, value in old.items()}, "own.")):
        assert found.harmonics.shape == (9, 0, 3)
        assert torch.equal(found.means, saved.means)
        assert found.state().harmonics is None
    glossy = GaussianModel.from_state(make.random_gaussians(4, sh_degree=1))
    for weights in (old, saved.state_dict()):
        with pytest.raises(RuntimeError, match="harmonics"):
            glossy.load_state_dict(weights)


def test_harmonics_of_higher_degrees_can_be_left_out() -> None:
    model = GaussianModel.from_state(make.random_gaussians(4, sh_degree=3))
    assert model.state(0).harmonics is None
    for degree, count in ((1, 3), (2, 8), (3, 15)):
        assert torch.equal(model.state(degree).harmonics, model.harmonics[:, :count])


def test_harmonics_learn_at_a_twentieth_of_the_colours_rate() -> None:
    rates = LearningRates(colors=0.4)
    groups = GaussianModel.from_state(make.random_gaussians(4)).parameter_groups(rates)
    assert {group.name: group.learning_rate for group in groups}["harmonics"] == pytest.approx(0.02)
    without = GaussianModel.from_state(make.random_gaussians(4, sh_degree=0)).parameter_groups(rates)
    assert [group.name for group in without] == ["means", "quats", "log_scales", "opacity_logits", "colors"]


def test_a_checkpoint_with_other_keypoints_is_refused() -> None:
    model = GaussianModel.from_state(make.random_gaussians(4))
    with pytest.raises(RuntimeError, match="keypoint_logits"):
        model.load_state_dict(GaussianModel.from_state(make.random_gaussians(4, keypoints=2)).state_dict())


def test_replaced_parameters_take_their_place_in_the_optimiser() -> None:
    model = GaussianModel.from_state(make.random_gaussians(4))
    optimizer = make.trained_optimizer(model)
    moments = optimizer.state[model.means]["exp_avg"].clone()
    rows = torch.tensor([3, 1, 1])
    values = {name: model.get_parameter(name).detach()[rows] for name in PARAMETERS}
    model.replace_parameters(values, optimizer, inherit=torch.tensor([3, 1, -1]))
    assert len(model) == 3
    for group in optimizer.param_groups:
        assert group["params"][0] is model.get_parameter(group["name"])
    assert set(optimizer.state) == set(model.parameters())
    state = optimizer.state[model.means]
    assert torch.equal(state["exp_avg"], torch.stack([moments[3], moments[1], torch.zeros(3)]))
    assert int(state["step"]) == 2
    trained_on = model.means.detach().clone()
    model.state().means.sum().backward()
    optimizer.step()
    assert not torch.equal(model.means, trained_on)


def test_replacing_without_inheritance_forgets_the_moments() -> None:
    model = GaussianModel.from_state(make.random_gaussians(4))
    optimizer = make.trained_optimizer(model)
    model.replace_parameters({"colors": torch.ones(4, 3)}, optimizer)
    assert optimizer.state[model.colors]["exp_avg_sq"].abs().sum() == 0
    assert optimizer.state[model.means]["exp_avg_sq"].abs().sum() > 0


def test_frozen_parameters_stay_frozen() -> None:
    model = GaussianModel.from_state(make.random_gaussians(4))
    model.colors.requires_grad_(False)
    model.replace_parameters({"colors": torch.ones(4, 3)})
    assert not model.colors.requires_grad


def test_wrong_names_and_rows_are_refused() -> None:
    model = GaussianModel.from_state(make.random_gaussians(4))
    with pytest.raises(ValueError, match="unknown parameters colours"):
        model.replace_parameters({"colours": torch.ones(4, 3)})
    with pytest.raises(ValueError, match="same number of rows"):
        model.replace_parameters({"colors": torch.ones(5, 3)})
    with pytest.raises(ValueError, match="exactly the parameters"):
        GaussianModel({"means": torch.zeros(1, 3)})
