"""Diffusion models of real parts with random weights: a folder each, as `save_pretrained` of a real one leaves it."""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNet2DConditionModel,
    UNetSpatioTemporalConditionModel,
)
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from kg4d.priors.diffusion.camera_projection import CLIPCameraProjection

SIZE = 64  # of the images that both are made for, px
WIDTH = 32  # of the embeddings


def _image_encoder() -> CLIPVisionModelWithProjection:
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=224,  # the pipeline for video knows no other
        patch_size=56,
        projection_dim=WIDTH,
    )
    return CLIPVisionModelWithProjection(config)


def save_tiny_zero123(folder: Path, *, variant: str | None = None, seed: int = 0, in_channels: int = 8) -> Path:
    """A Zero-1-to-3 model; its camera projection also is random."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=SIZE // 8,
            in_channels=in_channels,
            out_channels=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(16, 32),
            layers_per_block=1,
            norm_num_groups=8,
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
        )
        vae = AutoencoderKL(
            block_out_channels=(4, 4, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=SIZE,
            layers_per_block=1,
        )
        projection = CLIPCameraProjection(WIDTH, 4)
        torch.nn.init.normal_(projection.proj.weight, std=0.1)
        networks = {"unet": unet, "vae": vae, "clip_camera_projection": projection, "image_encoder": _image_encoder()}
    for name, network in networks.items():
        network.save_pretrained(folder / name, variant=variant)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.save_pretrained(folder / "scheduler")
    index = {"_class_name": "Zero123Pipeline", "clip_camera_projection": ["zero123", "CLIPCameraProjection"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def save_tiny_svd(folder: Path, *, seed: int = 0) -> Path:
    """A Stable Video Diffusion model."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNetSpatioTemporalConditionModel(
            sample_size=SIZE // 8,
            in_channels=8,
            out_channels=4,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            block_out_channels=(32, 32),
            layers_per_block=1,
            num_attention_heads=2,
            cross_attention_dim=WIDTH,
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24,
        )
        vae = AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 32, 32, 32),  # it has groups of 32 channels, whatever one asks for
            down_block_types=("DownEncoderBlock2D",) * 4,
            latent_channels=4,
            sample_size=SIZE,
            layers_per_block=1,
        )
        pipeline = StableVideoDiffusionPipeline(
            vae=vae,
            image_encoder=_image_encoder(),
            unet=unet,
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                prediction_type="v_prediction",
                use_karras_sigmas=True,
                timestep_type="continuous",
                timestep_spacing="leading",
                interpolation_type="linear",
                sigma_max=700.0,
                sigma_min=0.002,
                steps_offset=1,
            ),
            feature_extractor=CLIPImageProcessor(),
        )
    pipeline.save_pretrained(folder)
    return folder
