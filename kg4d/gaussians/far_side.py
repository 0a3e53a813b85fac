"""The side of an object that its only view does not show: the near side mirrored, along the lines of sight."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from kg4d.gaussians.middle import between_pixels
from kg4d.gaussians.model import PARAMETERS, GaussianModel
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.rotations import matrix_to_quat, quat_conjugate, quat_multiply

_KNEE = 0.05  # differences of colours below this count by their squares


@dataclass(frozen=True)
class MirroredFarSide:
    """Ties the far side to the near one: at the same pixels, as far behind a middle surface as that is before it.

    The view says nothing about depths, and as good as nothing about what it does not show; an optimiser whose steps do
    not depend on the size of gradients scatters both. So depths stay, and the far side has no parameters of its own.

    Attributes:
        camera: The only view.
        middle: Depth of the middle surface in each pixel of the view, world units.
        image: The view, RGB in [0, 1] without what is behind the object.
    """

    camera: Cameras
    middle: Float[Tensor, "H W"]
    image: Float[Tensor, "H W 3"]

    def unexpected(self, near: GaussianState) -> Float[Tensor, ""]:
        """How much near Gaussians differ from what is expected where the view hardly shows them.

        That is the colour of the image at their pixel, and to be opaque. The little light that comes from behind others
        gives tiny gradients, and an optimiser whose steps do not depend on their size follows them to colours that no
        image has: the rim, seen from the side, is full of specks.

        Returns:
            Sum of the differences over the Gaussians, divided by the number of pixels. With weight w it draws as much
            as an error of the same size in w pixels does in the mean over the image.
        """
        viewmat = self.camera.viewmats[0].to(near.means)
        seen = near.means.detach() @ viewmat[:3, :3].mT + viewmat[:3, 3]
        pixels = (seen @ self.camera.Ks[0].to(seen).mT)[:, :2] / seen[:, 2:]
        colors = torch.stack([between_pixels(channel.to(seen), pixels) for channel in self.image.unbind(-1)], -1)
        off = smooth_l1_loss(near.colors, colors, reduction="none", beta=_KNEE).mean(-1)
        return (off + 1 - near.opacities).sum() / self.middle.numel()

    def completed(self, near: GaussianState) -> GaussianState:
        """Both sides, the near one first; differentiable, but for depths of the near side and rotations of the far one.

        Args:
            near: N Gaussians before the middle surface.

        Returns:
            2 N Gaussians. A mirrored Gaussian is as large in the image as the one that it mirrors, and has its colour
            and harmonics: the view sees both in one direction.
        """
        viewmat = self.camera.viewmats[0].to(near.means)
        axis = viewmat[2, :3]
        held = near.means + ((near.means.detach() - near.means) @ axis)[:, None] * axis  # no gradient along the axis
        seen = held @ viewmat[:3, :3].mT + viewmat[:3, 3]
        depths = seen[:, 2:].detach()
        pixels = (seen.detach() @ self.camera.Ks[0].to(seen).mT)[:, :2] / depths
        middle = between_pixels(self.middle.to(depths), pixels)[:, None]
        farther = (2 * middle - depths) / depths
        quats, scales = near.ellipsoids
        turn = matrix_to_quat(viewmat[:3, :3]).expand_as(quats)
        in_view = quat_multiply(turn, quats.detach())
        flipped = in_view * in_view.new_tensor([1.0, -1.0, -1.0, 1.0])  # the rotation seen in a mirror across the axis
        far = replace(
            near,
            means=(seen * farther - viewmat[:3, 3]) @ viewmat[:3, :3],
            quats=quat_multiply(quat_conjugate(turn), flipped),
            scales=scales * farther,
        )
        kept = replace(near, means=held)
        both: dict[str, Any] = {}
        for field in fields(near):
            values = getattr(kept, field.name), getattr(far, field.name)
            both[field.name] = None if values[0] is None else torch.cat(values)
        return GaussianState(**both)

    @torch.no_grad()
    def complete(self, model: GaussianModel) -> None:
        """Give a model of the near side its far side, as parameters of their own."""
        isotropic = model.log_scales.shape[1] == 1
        whole = GaussianModel.from_state(self.completed(model.state()), isotropic)
        model.replace_parameters({name: whole.get_parameter(name) for name in PARAMETERS})
