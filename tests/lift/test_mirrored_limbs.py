import torch
from torch import Tensor

from kg4d.geometry.cameras import project_each
from kg4d.lift.mirrored_limbs import mirror_translations
from kg4d.losses.motion_priors import bone_lengths
from tests.lift.bodies import FRAMES, cameras

FAR = cameras(radius=200.0)  # depth does not show in the image
PARENTS = torch.tensor([-1, 0, 1, 1])  # a body, an arm, two fingers


def swinging_arm(degrees: list[float]) -> Tensor:
    """The arm hangs down and leans towards the camera (+Z) by some angles; the fingers keep their direction."""
    angle = torch.deg2rad(torch.tensor(degrees))
    arm = 0.4 * torch.stack([torch.zeros_like(angle), -angle.cos(), angle.sin()], dim=-1)
    body = torch.tensor([0.1, 0.2, 0.0]).expand(FRAMES, 3)
    hand = body + arm
    fingers = torch.tensor([[0.1, 0.0, 0.1], [-0.1, 0.0, 0.1]])  # half towards the camera: never flat
    return torch.stack([body, hand, hand + fingers[0], hand + fingers[1]], dim=1)


TWICE = swinging_arm([40, 20, 0, -20, -40, -20, 0, 20, 40])


def test_a_bone_that_is_flat_twice_may_lean_the_other_way_in_between_or_afterwards() -> None:
    translations = mirror_translations(TWICE, PARENTS, FAR)
    moved = (translations.norm(dim=-1) > 0.01).any(-1)  # candidates by frames
    between, after = (3, 4, 5), (7, 8)
    assert moved.tolist() == [
        [t in between for t in range(FRAMES)],
        [t in between + after for t in range(FRAMES)],
        [t in after for t in range(FRAMES)],
    ]


def test_a_mirrored_limb_looks_the_same_and_keeps_its_bone_lengths() -> None:
    translations = mirror_translations(TWICE, PARENTS, FAR)
    other = TWICE + translations[0]
    torch.testing.assert_close(project_each(other, FAR), project_each(TWICE, FAR), atol=0.2, rtol=0)
    torch.testing.assert_close(bone_lengths(other, PARENTS), bone_lengths(TWICE, PARENTS), atol=1e-5, rtol=0)
    lean, was = (other[:, 1] - other[:, 0])[:, 2], (TWICE[:, 1] - TWICE[:, 0])[:, 2]
    torch.testing.assert_close(lean[3:6], -was[3:6], atol=1e-3, rtol=0)
    torch.testing.assert_close(
        other[:, 2:] - other[:, 1:2], TWICE[:, 2:] - TWICE[:, 1:2]
    )  # the fingers are carried along
    assert torch.equal(other[:, 0], TWICE[:, 0])


def test_nothing_moves_in_the_first_frame() -> None:
    from_flat = swinging_arm([0, 10, 20, 30, 40, 40, 40, 40, 40])
    translations = mirror_translations(from_flat, PARENTS, FAR)
    assert len(translations) == 1
    assert torch.equal(translations[0, 0], torch.zeros(4, 3))
    assert float(translations[0, 1:, 1:].norm(dim=-1).min()) > 0.1


def test_bones_that_are_never_flat_are_not_mirrored() -> None:
    leaning = swinging_arm([40] * FRAMES)
    assert mirror_translations(leaning, PARENTS, FAR).shape == (0, FRAMES, 4, 3)
    nothing = torch.full((4,), -1)
    assert len(mirror_translations(TWICE, nothing, FAR)) == 0
