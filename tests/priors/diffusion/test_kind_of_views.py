"""Of what kind a named model is, where the settings leave it open."""

from pathlib import Path

import pytest
import torch

from kg4d.errors import InputError
from kg4d.priors import build
from kg4d.priors.diffusion.settings import ViewsConfig, ViewsKind
from kg4d.priors.settings import PriorsConfig

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("ashawkey/zero123-xl-diffusers", ViewsKind.ZERO123),
        ("ashawkey/stable-zero123-diffusers", ViewsKind.STABLE_ZERO123),
        ("sudo-ai/zero123plus-v1.2", ViewsKind.ZERO123PLUS),
    ],
)
def test_the_kind_of_a_known_model_is_known(model: str, kind: ViewsKind, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[ViewsConfig] = []
    monkeypatch.setattr(build, "build_views", lambda config, *_: built.append(config))
    assert build._views(PriorsConfig(views=ViewsConfig(model=model)), CPU).kind == kind.value
    assert [config.kind for config in built] == [kind]


def test_the_kind_of_another_model_must_be_said(zero123_folder: Path) -> None:
    with pytest.raises(InputError, match=r"views.kind: the name of .* does not tell"):
        build._views(PriorsConfig(views=ViewsConfig(model=str(zero123_folder))), CPU)
