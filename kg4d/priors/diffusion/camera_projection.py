"""The layer of Zero-1-to-3 that combines image and camera for the UNet; imported only where it is used."""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn


class CLIPCameraProjection(ModelMixin, ConfigMixin):  # type: ignore[misc]  # so are the classes of diffusers itself
    """One linear layer that combines the image embedding with the camera; initialised to return the image embedding.

    Class, arguments and parameters are named as in the checkpoints.

    Args:
        embedding_dim: Length D of the image embedding.
        additional_embeddings: How many numbers describe the camera.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, embedding_dim: int = 768, additional_embeddings: int = 4) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.proj = nn.Linear(embedding_dim + additional_embeddings, embedding_dim)
        with torch.no_grad():
            self.proj.weight.copy_(torch.eye(*self.proj.weight.shape))
            self.proj.bias.zero_()

    def forward(self, embedding: Float[Tensor, "B 1 D_and_camera"]) -> Float[Tensor, "B 1 D"]:
        """Project image embedding and camera, side by side, to an embedding."""
        projected: Tensor = self.proj(embedding)
        return projected
