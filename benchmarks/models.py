"""The models and photos of the benchmarks: the demo's, and the size of Stable Diffusion v1.5 with random weights."""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import ROOT, gpu

DEMO = ROOT / "assets/demo"
CACHE = Path(tempfile.gettempdir()) / "finetune_monitor-benchmarks"
"""The folder of files that are built once and reused; it may be deleted at any time."""

BLOCKS = (320, 640, 1280, 1280)
UNET = {
    "sample_size": 64,
    "block_out_channels": BLOCKS,
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,  # diffusers' name for the number of heads
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
TEXT: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 49407,
}
NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""Values from the config files published with Stable Diffusion v1.5."""


@dataclass(frozen=True)
class Scale:
    """A model size on this machine.

    config: the config whose LoRA rank and layers are used.
    pixels, precision: full size with a GPU, otherwise what a CPU can do in minutes.
    """

    folder: Path
    config: Path
    pixels: int
    precision: str
    reduced: bool


def scale(size: str) -> Scale:
    """The size with a name; builds the model if necessary."""
    if size == "demo":
        return Scale(DEMO / "stable-diffusion", ROOT / "configs/demo.yaml", 64, "no", False)
    full = gpu() is not None
    folder = _cached("stable-diffusion-v1-5-random", _build_sd15)
    return Scale(folder, ROOT / "configs/sd15_lora.yaml", 512 if full else 128, "bf16" if full else "no", not full)


def _cached(name: str, build: Callable[[Path], None]) -> Path:
    """A folder in the cache, which appears only once it is complete."""
    folder, staged = CACHE / name, CACHE / f"{name}.partial"
    if not folder.exists():
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        build(staged)
        staged.rename(folder)
    return folder


def _build_sd15(folder: Path) -> None:
    """Build 4.3 GB in fp32, like the model on the hub."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    StableDiffusionPipeline(
        vae=AutoencoderKL(**VAE),
        text_encoder=CLIPTextModel(CLIPTextConfig(**TEXT)),
        tokenizer=CLIPTokenizer.from_pretrained(DEMO / "stable-diffusion/tokenizer"),
        unet=UNet2DConditionModel(**UNET),
        scheduler=PNDMScheduler(**NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def live_pipeline(chosen: Scale, device: str) -> Any:
    """A pipeline during LoRA training: UNet in train mode, LoRA layers with nonzero weights, in fp32 or as requested.

    Frozen weights of UNet and text encoder are in the training precision, as in training scripts.
    """
    import torch
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig

    from finetune_monitor.training.config import load_config
    from finetune_monitor.training.trainable import UNET_LAYERS

    train = load_config(chosen.config).train
    dtype = torch.bfloat16 if chosen.precision == "bf16" else torch.float32
    pipeline = StableDiffusionPipeline.from_pretrained(chosen.folder, safety_checker=None).to(device)
    for part in (pipeline.unet, pipeline.text_encoder):
        part.requires_grad_(False).to(dtype)
    layers = [layer for kind in train.lora_layers for layer in UNET_LAYERS[kind]]
    torch.manual_seed(0)
    pipeline.unet.add_adapter(LoraConfig(r=train.rank, lora_alpha=train.rank, target_modules=layers))
    for name, parameter in pipeline.unet.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter, dtype=torch.float32) * 0.01
    pipeline.unet.train()
    return pipeline


def clip_folder(size: str) -> Path:
    """A CLIP in open_clip's layout: the demo's, or ViT-L/14 with random weights."""
    return DEMO / "clip" if size == "demo" else _cached("clip-vit-l-14-random", _build_clip)


def _build_clip(folder: Path) -> None:
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    name = "ViT-L-14-quickgelu"
    model = open_clip.create_model(name, pretrained=None)
    preprocessing = open_clip.get_pretrained_cfg(name, "openai")
    wanted = {key: preprocessing[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": wanted}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )


def aesthetic_head(size: str) -> Path:
    """The demo's head, or one with random weights for ViT-L/14 embeddings."""
    if size == "demo":
        return DEMO / "aesthetic_head.safetensors"
    return _cached("aesthetic-head-random", _build_head) / "head.safetensors"


def _build_head(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    metadata = {"format": "finetune_monitor.aesthetic_head", "version": "1", "activation": "none"}
    head = {"weight": torch.randn(1, 768), "bias": torch.full((1,), 5.0)}
    save_file(head, folder / "head.safetensors", metadata=metadata)


def recognizer_cache() -> Path:
    """A cache folder for `FINETUNE_MONITOR_CACHE` with a random InceptionResnetV1.

    Named casia-webface: its publisher states no hash, so the package accepts any weights of this network.
    """
    return _cached("recognizer-random", _build_recognizer)


RECOGNIZER = "casia-webface"
RECOGNIZER_FILE = "20180408-102900-casia-webface.pt"


def _build_recognizer(folder: Path) -> None:
    import torch
    from facenet_pytorch import InceptionResnetV1

    torch.manual_seed(0)
    torch.save(InceptionResnetV1(pretrained=None).state_dict(), folder / RECOGNIZER_FILE)


def astronaut_photos(pixels: tuple[int, int], count: int) -> list[Any]:
    """Different crops of scikit-image's astronaut (NASA, public domain), each with the face in it."""
    import numpy as np
    from PIL import Image
    from skimage.data import astronaut

    random = np.random.default_rng(0)
    photo, ratio = Image.fromarray(astronaut()), pixels[0] / pixels[1]
    photos = []
    for _ in range(count):
        height = random.uniform(250, 512 / max(ratio, 1))
        left, top = random.uniform(0, min(150, 512 - height * ratio)), random.uniform(0, min(40, 512 - height))
        box = (left, top, left + height * ratio, top + height)
        photos.append(photo.resize(pixels, Image.Resampling.BICUBIC, box))
    return photos


PHOTOS = 12
"""Divisible by both batch sizes, so that no batch of an epoch is smaller than the others."""


def photo_folder(kind: str) -> Path:
    """Twelve photos: the demo's six small ones twice, or JPEGs as from a phone."""
    return _cached(f"photos-{kind}", _phone_photos if kind == "phone" else _small_photos)


def _small_photos(folder: Path) -> None:
    for photo in sorted((DEMO / "photos/astronaut").iterdir()):
        for copy in range(2):
            shutil.copy(photo, folder / f"{photo.stem}-{copy}{photo.suffix}")


def _phone_photos(folder: Path) -> None:
    for index, photo in enumerate(astronaut_photos((4000, 3000), PHOTOS)):
        photo.save(folder / f"{index:02d}.jpg", quality=92)
