"""The differences between diffusers' text-to-image pipelines: encoding prompts and decoding latents."""

import inspect
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finetune_monitor.models.adapters import unwrapped
from finetune_monitor.models.pipeline import Pipeline, settings_of
from finetune_monitor.rendering.isolation import modules_kept
from finetune_monitor.rendering.schedulers import own_scheduler
from finetune_monitor.rendering.suitability import check_suits

Encoded = Mapping[str, Tensor]
"""A prompt's embeddings, one row each, under the argument names of the pipeline's call."""

EMBEDDINGS = {
    ("prompt_embeds", "negative_prompt_embeds"): "Stable Diffusion 1.x and 2.x",
    (
        "prompt_embeds",
        "negative_prompt_embeds",
        "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    ): "SDXL, Stable Diffusion 3.x",
    ("prompt_embeds", "pooled_prompt_embeds"): "Flux",
}
"""The results of `encode_prompt`, in order; its parameters have the same names."""


@runtime_checkable
class TextToImage(Pipeline, Protocol):
    """A pipeline that `EMBEDDINGS` covers, with a VAE."""

    vae: Any
    vae_scale_factor: int
    image_processor: Any
    encode_prompt: Callable[..., Any]

    def set_progress_bar_config(self, **settings: Any) -> None: ...

    def __call__(self, **arguments: Any) -> Any: ...


def own_pipeline(pipeline: Pipeline, sampler: str, karras: bool = False) -> TextToImage:
    """A second pipeline object over the same modules, with its own scheduler and without a safety checker.

    Modules that Accelerate, DDP, torch.compile, or PEFT have wrapped are used without the wrapper.

    Raises:
        ValueError: the pipeline lacks a component, or its way of encoding prompts is not supported.
    """
    embedding_names(pipeline)
    parts = {
        name: unwrapped(part) if isinstance(part, nn.Module) else part for name, part in pipeline.components.items()
    }
    check_suits(pipeline, parts)
    arguments = {**settings_of(pipeline), **parts}
    arguments["scheduler"] = own_scheduler(pipeline.scheduler, sampler, karras)
    if "safety_checker" in arguments:
        arguments |= {"safety_checker": None, "requires_safety_checker": False}
    kind: Any = type(pipeline)
    own: TextToImage = kind(**arguments)
    own.set_progress_bar_config(disable=True)
    return own


def embedding_names(pipeline: Pipeline) -> tuple[str, ...]:
    """The names of the embeddings that `encode_prompt` returns.

    Raises:
        ValueError: `EMBEDDINGS` does not cover the pipeline, or it starts from an image.
    """
    parameters = inspect.signature(pipeline.encode_prompt).parameters if hasattr(pipeline, "encode_prompt") else {}
    names = tuple(name for name in parameters if name.endswith(("prompt_embeds", "_mask")))
    taken = inspect.signature(type(pipeline).__call__).parameters
    if names not in EMBEDDINGS or "height" not in taken or "image" in taken:
        known = "; ".join(EMBEDDINGS.values())
        raise ValueError(f"pipeline: found {type(pipeline).__name__}, expected a text-to-image pipeline of {known}")
    return names


def takes_negative_prompts(pipeline: Pipeline) -> bool:
    """Whether guidance uses a negative prompt; Flux was distilled to work without one."""
    return "negative_prompt_embeds" in embedding_names(pipeline)


def device_of(pipeline: Any) -> torch.device:
    """The device that a pipeline runs on; diffusers looks through all modules for it."""
    found: torch.device = pipeline._execution_device
    return found


def encode(pipeline: TextToImage, prompt: str, negative_prompt: str, guided: bool, device: torch.device) -> Encoded:
    """The embeddings of one prompt, and of the negative prompt if guidance uses it."""
    wanted = {
        "prompt": prompt,
        "prompt_2": None,  # every text encoder gets the first prompt
        "prompt_3": None,
        "device": device,
        "num_images_per_prompt": 1,
        "do_classifier_free_guidance": guided,
        "negative_prompt": negative_prompt or None,
    }
    taken = inspect.signature(pipeline.encode_prompt).parameters
    with _without_truncation_warnings(pipeline):
        found = pipeline.encode_prompt(**{name: value for name, value in wanted.items() if name in taken})
    named = dict(zip(embedding_names(pipeline), found, strict=False))  # Flux also returns positions, which are no input
    return {name: value for name, value in named.items() if value is not None}


@contextmanager
def _without_truncation_warnings(pipeline: TextToImage) -> Iterator[None]:
    """Without diffusers' warning in every evaluation that a prompt is too long; the monitor says it once."""
    logger = logging.getLogger(type(pipeline).__module__)

    def keeps(record: logging.LogRecord) -> bool:
        return "truncated" not in record.getMessage()

    logger.addFilter(keeps)
    try:
        yield
    finally:
        logger.removeFilter(keeps)


def image_size(pipeline: TextToImage) -> tuple[int, int]:
    """The height and width in pixels that the model generates by default."""
    side = getattr(pipeline, "default_sample_size", None) or pipeline.components["unet"].config.sample_size
    height, width = (side, side) if isinstance(side, int) else side
    return height * pipeline.vae_scale_factor, width * pipeline.vae_scale_factor


def size_multiple(pipeline: TextToImage) -> int:
    """What height and width in pixels must be multiples of: one latent pixel, or one patch of them; at least 8."""
    denoiser = pipeline.components.get("transformer")
    patch = 1 if denoiser is None else denoiser.config.patch_size
    packed = 2 if hasattr(pipeline, "_unpack_latents") else 1
    return math.lcm(8, pipeline.vae_scale_factor * patch * packed)  # diffusers expects 8, whatever the VAE


def unpacked(pipeline: TextToImage, latents: Tensor, size: tuple[int, int]) -> Float[Tensor, "n c h w"]:
    """Latents in the shape that the VAE expects; Flux's come as a sequence of patches."""
    if latents.ndim != 3:
        return latents
    flux: Any = pipeline
    patches: Tensor = flux._unpack_latents(latents, *size, pipeline.vae_scale_factor)
    return patches


def decode(pipeline: TextToImage, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 h8 w8"]:
    """RGB images in [0, 1]; non-finite values are kept."""
    vae = pipeline.vae
    with _without_overflow(pipeline):
        decoded = vae.decode(_unscaled(latents, vae.config).to(vae.dtype), return_dict=False)[0]
    images: Tensor = pipeline.image_processor.postprocess(decoded, output_type="pt")
    return images


@contextmanager
def _without_overflow(pipeline: TextToImage) -> Iterator[None]:
    """Run SDXL's VAE, which overflows in float16, in float32; restored on exit."""
    vae = pipeline.vae
    is_sdxl = hasattr(pipeline, "unet") and "pooled_prompt_embeds" in embedding_names(pipeline)
    if not (is_sdxl and vae.config.get("force_upcast")):
        yield
        return
    with modules_kept([vae]), torch.autocast(vae.device.type, enabled=False):
        if vae.dtype == torch.float16:
            vae.to(torch.float32)
        yield


def _unscaled(latents: Float[Tensor, "n c h w"], config: Any) -> Float[Tensor, "n c h w"]:
    """Latents without the denoiser's scaling, which is one factor, or a mean and a deviation per channel."""
    factor: float = config.scaling_factor
    shift: float = config.get("shift_factor") or 0.0
    means, stds = config.get("latents_mean"), config.get("latents_std")
    if means is None or stds is None:
        return latents / factor + shift
    mean, std = (torch.tensor(values).view(1, -1, 1, 1).to(latents) for values in (means, stds))
    return latents * std / factor + mean
