from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kg4d.formats.base import ExportSource
from kg4d.formats.page.film import film_of
from kg4d.formats.page.image_errors import image_errors
from kg4d.gaussians.state import GaussianState
from kg4d.render.build import build_renderer
from tests import make
from tests.formats.test_build import Rising

SCENE = make.tiny_scene()
TIMES = SCENE.reference.times


class Still(Rising):
    """The same Gaussians at all times, or fewer and fewer."""

    def __init__(self, state: GaussianState, renderer: str = "reference", fewer: bool = False) -> None:
        self.state, self.fewer = state, fewer
        self.renderer = build_renderer(renderer)

    def states(self, times: Tensor) -> list[GaussianState]:
        ends = [len(self.state) - (round(3 * t) if self.fewer else 0) for t in times.tolist()]
        return [self.state.map(lambda rows, end=end: rows[:end]) for end in ends]


def shown(model: Still):
    """The reference pictures as the model draws them."""
    drawn = model.render(SCENE.reference.cameras, TIMES)
    return replace(SCENE.reference, images=torch.cat([drawn, torch.ones_like(drawn[..., :1])], dim=-1).clamp(0, 1))


MODEL = Still(make.random_gaussians(12, keypoints=2, spread=0.3))


def test_where_pictures_are_those_of_the_model_there_is_no_error() -> None:
    errors = image_errors(MODEL, shown(MODEL), MODEL.states(TIMES), TIMES)
    assert len(errors) == len(TIMES)
    for rows in errors:
        assert rows[rows.isfinite()].abs().max() < 1e-5


@pytest.mark.parametrize("renderer", ["reference", "cpu"])
def test_an_error_that_is_the_same_everywhere_is_that_of_every_gaussian(renderer: str) -> None:
    model = Still(MODEL.state, renderer)
    images = shown(model)
    off = replace(images, images=torch.cat([0.5 * images.images[..., :3] + 0.5, images.images[..., 3:]], dim=-1))
    gap = (off.images[..., :3] - images.images[..., :3]).abs()
    white = replace(images, images=torch.ones_like(images.images))
    errors = image_errors(model, off, model.states(TIMES), TIMES)[0]
    doubled = image_errors(model, white, model.states(TIMES), TIMES)[0]
    torch.testing.assert_close(doubled, 2 * errors, equal_nan=True, atol=1e-5, rtol=1e-4)
    assert errors[errors.isfinite()].max() <= gap.max()


def test_it_is_the_mean_by_weight_over_the_pixels() -> None:
    """One opaque Gaussian alone, against its own weights at each pixel."""
    model = Still(make.gaussians(torch.zeros(1, 3), scales=0.3, opacities=0.9, colors=[0.2, 0.4, 0.6]))
    images = SCENE.reference[:1]
    (error,) = image_errors(model, images, model.states(TIMES[:1]), TIMES[:1])
    output = model.renderer(model.state, images.cameras, background=model.background)
    gap = (output.image.clamp(0, 1) - images.composited(model.background)).abs().mean(-1, keepdim=True)
    torch.testing.assert_close(error[0], (gap * output.alpha).sum() / output.alpha.sum())


def test_what_no_picture_shows_has_none() -> None:
    hidden = replace(MODEL.state, means=MODEL.state.means.clone())
    hidden.means[4] = torch.tensor([0.0, 1e4, 0.0])
    errors = image_errors(Still(hidden), SCENE.reference, Still(hidden).states(TIMES), TIMES)[0]
    assert errors[4].isnan()
    assert errors.isfinite().sum() > 6


def test_gaussians_that_come_and_go_have_those_of_their_frame() -> None:
    model = Still(MODEL.state, fewer=True)
    errors = image_errors(model, SCENE.reference, model.states(TIMES), TIMES)
    assert [len(rows) for rows in errors] == [12, 11, 10, 9]
    for frame in range(len(TIMES)):
        alone = Still(model.states(TIMES[frame : frame + 1])[0])
        (expected,) = image_errors(alone, SCENE.reference[frame : frame + 1], [alone.state], TIMES[frame : frame + 1])
        torch.testing.assert_close(errors[frame], expected, equal_nan=True)


def test_a_page_has_those_of_the_held_out_pictures_if_there_are_any() -> None:
    source = ExportSource(Rising(), SCENE, fps=4)
    assert film_of(source).errors == ()
    assert film_of(source, errors=True).errors_of == "the held-out pictures"
    without = film_of(replace(source, scene=replace(SCENE, test=None)), errors=True)
    assert without.errors_of == "the reference video"
    assert [len(rows) for rows in without.errors] == [1] * len(without.states)
