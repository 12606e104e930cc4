"""Small random pipelines of every kind that the monitor takes: right in every shape, milliseconds a step."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

from support.places import ROOT

TOKENIZER = ROOT / "assets/demo/stable-diffusion/tokenizer"
VOCABULARY = 2048
"""Tokens of its 49408 that the tiny pipelines know: all of them take longer to read than a tiny training."""

UNET = {
    "sample_size": 16,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}
ONE_BLOCK = {
    "block_out_channels": (8,),
    "down_block_types": ("DownBlock2D",),
    "mid_block_type": None,
    "up_block_types": ("UpBlock2D",),
}
"""A UNet with little to compile: without attention."""

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def stable_diffusion(seed: int = 0, prediction_type: str = "epsilon", **unet: Any) -> diffusers.StableDiffusionPipeline:
    """Stable Diffusion 1.x, at 32 px; with velocities it is 2.x."""
    torch.manual_seed(seed)
    unet = diffusers.UNet2DConditionModel(cross_attention_dim=16, **{**UNET, **unet})
    vae = autoencoder()
    scheduler = diffusers.PNDMScheduler(
        prediction_type=prediction_type, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1, **BETAS
    )
    return diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(clip_config()),
        tokenizer=tokenizer(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(**settings: Any) -> diffusers.StableDiffusionXLPipeline:
    """SDXL: two text encoders, pooled embeddings, sizes as a condition."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        cross_attention_dim=16 + 24,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
        **UNET,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(clip_config()),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(hidden_size=24, projection_dim=24)),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(pad_token="!"),
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, **BETAS),
        **settings,
    )


def sd3() -> diffusers.StableDiffusion3Pipeline:
    """Stable Diffusion 3 without T5, which it can do without."""
    torch.manual_seed(0)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=16,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=32,
        out_channels=4,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(scaling_factor=1.5, shift_factor=0.06),
        text_encoder=CLIPTextModelWithProjection(clip_config()),
        tokenizer=tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(clip_config()),
        tokenizer_2=tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    )


def flux() -> diffusers.FluxPipeline:
    """Flux: latents in patches, guidance without a negative prompt."""
    torch.manual_seed(0)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        axes_dims_rope=[4, 4, 8],
        guidance_embeds=True,
    )
    t5 = T5Config(vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return diffusers.FluxPipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=autoencoder(scaling_factor=1.5, shift_factor=0.06),
        text_encoder=CLIPTextModel(clip_config()),
        tokenizer=tokenizer(),
        text_encoder_2=T5EncoderModel(t5).eval(),
        tokenizer_2=tokenizer(),
    )


def autoencoder(**settings: Any) -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        **settings,
    )


def clip_config(hidden_size: int = 16, projection_dim: int = 16) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=VOCABULARY,
        bos_token_id=VOCABULARY - 2,
        eos_token_id=VOCABULARY - 1,
        hidden_size=hidden_size,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=projection_dim,
    )


def tokenizer(**settings: Any) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(_tokenizer_folder(), **settings)


@cache
def _tokenizer_folder() -> Path:
    """CLIP's tokenizer with its most frequent tokens: every byte, the first merges, and the two that mark the ends."""
    known = sorted(json.loads((TOKENIZER / "vocab.json").read_text()).items(), key=lambda item: item[1])
    tokens = [token for token, _ in (*known[: VOCABULARY - 2], *known[-2:])]
    version, *merges = (TOKENIZER / "merges.txt").read_text().splitlines()
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, text in {
        "vocab.json": json.dumps({token: number for number, token in enumerate(tokens)}),
        "merges.txt": "\n".join([version, *merges[: VOCABULARY - 2 - 512]]),
        "tokenizer_config.json": (TOKENIZER / "tokenizer_config.json").read_text(),
    }.items():
        (folder / name).write_text(text)
    return folder


def tiny_config(folder: Path, model: Path, photos: Path) -> str:
    """A few steps on the tiny pipeline, in `folder`/run."""
    return (
        f"model: {model}\noutput_dir: {folder / 'run'}\n"
        f"data: {{instance_images: {photos}, instance_prompt: a photo of sks person, resolution: 64}}\n"
        "train: {max_steps: 6, prior_loss_weight: 0, rank: 2, checkpoint_every: 2}\n"
        "monitor:\n  every: 3\n  grid: {prompts: [a photo of sks person], seeds: [0, 1], steps: 2}\n"
        "  metrics: {face_similarity: {recognizer: dlib}, aesthetic: null}\n"
    )
