"""Whether what a stage leaves is a model at all: numbers, something to see, and better than nothing."""

import torch

from kg4d.data.records import PosedImages
from kg4d.runs.fitted_model import FittedModel

_VISIBLE = 1 / 255  # opacity below which no picture of 8 bits shows a Gaussian


class AbsurdStateError(RuntimeError):
    """A stage ended with a state that is no model: the fit has failed, however calmly."""


@torch.no_grad()
def check_fitted(stage: str, fitted: FittedModel, shown: PosedImages) -> None:
    """See that a stage has ended well.

    Args:
        stage: Its name.
        fitted: What it left, in the world of `shown`, whose cameras look at the origin.
        shown: Images that it was fitted to.

    Raises:
        AbsurdStateError: A parameter is not finite, nothing is opaque, most Gaussians lie farther away than the
            cameras, or the images are farther off than blank ones are.
    """
    for name, values in fitted.representation.state_dict().items():
        if not bool(values.isfinite().all()):
            raise AbsurdStateError(f"{stage} ended with NaN or infinity in {name}: lower its learning rates")
    state = fitted.states(shown.times[:1])[0]
    if len(state) == 0 or float(state.opacities.max()) < _VISIBLE:
        raise AbsurdStateError(f"{stage} ended with all opacities 0: nothing can be seen; lower its learning rates")
    centers = shown.cameras.centers.to(state.means.device)
    if float(state.means.norm(dim=-1).median()) > float(centers.norm(dim=-1).max()):
        raise AbsurdStateError(f"{stage} ended with most means beyond the cameras: lower its learning rates")
    some = torch.linspace(0, len(shown) - 1, min(4, len(shown))).round().long()
    drawn = fitted.render(shown.cameras[some], shown.times[some]).clamp(0, 1)
    truth, background = shown.composited(fitted.background)[some].to(drawn.device), fitted.background.to(drawn.device)
    loss, blank = float((drawn - truth).square().mean()), float((background - truth).square().mean())
    if loss > blank:
        what = f"an image loss of {loss:.3g}, above that of a blank image ({blank:.3g})"
        raise AbsurdStateError(f"{stage} ended with {what}: lower its learning rates, or take more steps")
