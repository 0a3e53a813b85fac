import pytest
import torch

from kg4d.deform.hexplane import HexPlane
from kg4d.deform.settings import HexPlaneConfig
from kg4d.optim.objective import Objective


def planes(**weights: float) -> HexPlane:
    config = HexPlaneConfig(resolution=6, time_resolution=5, channels=2, levels=[1], **weights)
    return HexPlane(config, 1.0, torch.Generator().manual_seed(0))


def terms(module: HexPlane) -> dict[str, float]:
    objective = Objective(progress=0.5)
    module.regularisers(objective)
    return {name: float(value) for name, value in objective.terms.items()}


def test_planes_that_are_even_and_do_not_change_cost_nothing():
    module = planes(space_variation=1.0, time_curvature=1.0, time_change=1.0)
    with torch.no_grad():
        for plane in module.parameters():
            plane.fill_(1.0)
    assert terms(module) == {"space_variation": 0, "time_curvature": 0, "time_change": 0}
    assert terms(planes()) == {}


def test_each_looks_at_its_own_axis():
    module = planes(space_variation=1.0, time_curvature=1.0, time_change=1.0)
    along = torch.arange(5.0)
    with torch.no_grad():
        for plane in module.parameters():
            plane.fill_(1.0)
            if plane.shape[2] == 5:
                plane += 0.1 * along[:, None]  # even in space, straight in time
    found = terms(module)
    assert found["space_variation"] == 0
    assert found["time_curvature"] == pytest.approx(0, abs=1e-12)
    assert found["time_change"] == pytest.approx(3 * 0.2, rel=1e-5)  # three planes, 0 to 0.4 off 1
    with torch.no_grad():
        for plane in module.parameters():
            if plane.shape[2] == 5:
                plane += 0.1 * along.square()[:, None]
    assert terms(module)["time_curvature"] == pytest.approx(3 * 0.2**2, rel=1e-4)  # second differences of 0.1 t²
