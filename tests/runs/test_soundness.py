"""A stage that ends with no model says so."""

from collections.abc import Callable

import pytest
import torch

from kg4d.deform.identity import Identity
from kg4d.gaussians.model import GaussianModel
from kg4d.render.build import build_renderer
from kg4d.representation.canonical import CanonicalGaussians
from kg4d.runs.fitted_model import FittedModel
from kg4d.runs.soundness import AbsurdStateError, check_fitted
from tests import make

Spoil = Callable[[GaussianModel], object]


def fitted(spoil: Spoil) -> FittedModel:
    """White Gaussians where the tiny scene's dark ball is, then spoilt."""
    state = make.gaussians(0.2 * torch.randn(50, 3, generator=torch.manual_seed(0)), colors=0.4, opacities=0.8)
    model = GaussianModel.from_state(state)
    with torch.no_grad():
        spoil(model)
    return FittedModel(CanonicalGaussians(model, Identity(), 0.1), build_renderer("cpu"), torch.ones(3))


def test_a_model_is_one() -> None:
    check_fitted("static", fitted(lambda model: None), make.tiny_scene().reference)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda model: model.means[0].fill_(torch.nan), "NaN or infinity in"),
        (lambda model: model.get_parameter("opacity_logits").fill_(-30), "all opacities 0"),
        (lambda model: model.means.add_(100), "beyond the cameras"),
        (lambda model: model.means.add_(torch.tensor([0.7, 0.0, 0.0])), "above that of a blank image"),
    ],
)
def test_what_is_no_model_is_named(spoil: Spoil, what: str) -> None:
    with pytest.raises(AbsurdStateError, match=what):
        check_fitted("static", fitted(spoil), make.tiny_scene().reference)
