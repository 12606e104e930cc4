"""Load Stable Diffusion, choose what to train (LoRA layers or everything), and keep a moving average of it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import EMAModel
from diffusers.utils import logging as diffusers_logging
from peft import LoraConfig
from torch import nn
from transformers.utils import logging as transformers_logging

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.progress import is_live
from finetune_monitor.training.config import TrainConfig

UNET_LAYERS = {
    "attention": ["to_q", "to_k", "to_v", "to_out.0"],
    "feed_forward": ["ff.net.0.proj", "ff.net.2"],
    "convolution": ["conv1", "conv2", "conv_shortcut"],
}
TEXT_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj"]
PRECISIONS = {"no": None, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_pipeline(found: str | Path, model: str) -> StableDiffusionPipeline:
    """Stable Diffusion in fp32 from safetensors, without the safety checker, which turns class images black.

    UNet and VAE are in channels_last, which spares convolutions on tensor cores a conversion; LoRA layers are added
    afterwards and stay contiguous, as in files.

    Args:
        found: the path of the model, or its hub id.
        model: its name in the config, which is recorded regardless of the cache's path.

    Raises:
        UserError: the model is not a Stable Diffusion 1.x or 2.x that predicts noise or velocity.
    """
    if not is_live():
        _hide_loading()
    pipeline = StableDiffusionPipeline.from_pretrained(
        found, use_safetensors=True, safety_checker=None, requires_safety_checker=False
    )
    channels, kind = pipeline.unet.config.in_channels, pipeline.scheduler.config.prediction_type
    if channels != 4 or kind not in ("epsilon", "v_prediction"):
        raise UserError(
            f"{model}: found a UNet with {channels} input channels that predicts {kind}, expected a text-to-image "
            "model with 4 that predicts epsilon or v_prediction; inpainting models cannot be trained here"
        )
    pipeline.register_to_config(_name_or_path=model)
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.channels_last)
    pipeline.text_encoder.to(torch.float32)  # transformers keeps the file's precision; diffusers does not
    return pipeline


def _hide_loading() -> None:
    """Turn off the bars with which diffusers and transformers load a model, which would fill a log."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


@dataclass
class Trainable:
    """The models being trained and their parameters.

    `models` are those with gradients, by name in the pipeline: the UNet, and the text encoder if configured.
    """

    models: dict[str, nn.Module]
    ema: EMAModel | None = None

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter with a gradient, by name (`unet.…`)."""
        named = ((f"{m}.{n}", p) for m, model in self.models.items() for n, p in model.named_parameters())
        return {name: parameter for name, parameter in named if parameter.requires_grad}

    @property
    def live_weights(self) -> Callable[[], AbstractContextManager[object]]:
        """A context manager that swaps in the averaged weights for an evaluation, if an average is kept."""
        return nullcontext if self.ema is None else self._averaged

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        assert self.ema is not None
        parameters = list(self.parameters.values())
        self.ema.store(parameters)
        try:
            self.ema.copy_to(parameters)
            yield
        finally:
            self.ema.restore(parameters)


def make_trainable(pipeline: StableDiffusionPipeline, config: TrainConfig, seed: int) -> Trainable:
    """Freeze the pipeline except for what `config.method` trains; LoRA's A matrices are initialized from `seed`."""
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False)
    models: dict[str, nn.Module] = {"unet": pipeline.unet}
    if config.text_encoder:
        models["text_encoder"] = pipeline.text_encoder
    if config.method == "lora":
        torch.manual_seed(seed)
        _add_lora(models, config)
    else:
        for model in models.values():
            model.requires_grad_(True)
    if config.gradient_checkpointing:
        _checkpoint_gradients(pipeline, config)
    return Trainable(models)


def _add_lora(models: dict[str, nn.Module], config: TrainConfig) -> None:
    layers = [layer for kind in config.lora_layers for layer in UNET_LAYERS[kind]]
    for name, model in models.items():
        model.add_adapter(  # type: ignore[operator]
            LoraConfig(
                r=config.rank,
                lora_alpha=config.rank if config.lora_alpha is None else config.lora_alpha,  # type: ignore[arg-type]
                lora_dropout=config.lora_dropout,
                init_lora_weights="gaussian",
                target_modules=layers if name == "unet" else TEXT_LAYERS,
            )
        )


def _checkpoint_gradients(pipeline: StableDiffusionPipeline, config: TrainConfig) -> None:
    pipeline.unet.enable_gradient_checkpointing()
    if config.text_encoder:
        encoder = pipeline.text_encoder  # transformers 5 renamed this method
        getattr(encoder, "activation_checkpointing_enable", encoder.gradient_checkpointing_enable)()


def lower_precision(pipeline: StableDiffusionPipeline, config: TrainConfig) -> None:
    """Keep the weights below the LoRA layers in half precision; everything trained or exported stays in fp32."""
    dtype = PRECISIONS[config.mixed_precision]
    if dtype is None or config.method != "lora":
        return
    for part in (pipeline.unet, pipeline.text_encoder):
        for parameter in part.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)


def average(trainable: Trainable, decay: float | None) -> EMAModel | None:
    """An exponential moving average of the trained parameters, with warmup; None without a decay."""
    if decay is None:
        return None
    return EMAModel(list(trainable.parameters.values()), decay=decay, use_ema_warmup=True, foreach=True)
