"""Load a base model, choose what to train (LoRA layers or everything), and keep a moving average of it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.training_utils import EMAModel
from diffusers.utils import logging as diffusers_logging
from peft import LoraConfig
from torch import nn
from transformers.utils import logging as transformers_logging

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.progress import is_live
from finetune_monitor.models.base_model import BaseModel
from finetune_monitor.models.families import Family, family_of
from finetune_monitor.training.config import TrainConfig

UNET_LAYERS = {
    "attention": ["to_q", "to_k", "to_v", "to_out.0"],
    "feed_forward": ["ff.net.0.proj", "ff.net.2"],
    "convolution": ["conv1", "conv2", "conv_shortcut"],
}
TEXT_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj"]
PRECISIONS = {"no": None, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_pipeline(found: str | Path, base: BaseModel) -> DiffusionPipeline:
    """The pipeline in fp32, without a safety checker, which turns class images black.

    UNet and VAE are in channels_last, which spares convolutions on tensor cores a conversion; LoRA layers are added
    afterwards and stay contiguous, as in files.

    Args:
        found: the path of the model, or its hub id.
        base: what the config says of it; its name is recorded regardless of the cache's path.

    Raises:
        UserError: the model belongs to no family, or does not predict noise or velocity, or its parts do not fit each
            other.
    """
    if not is_live():
        _hide_loading()
    pipeline: DiffusionPipeline = base.open(found)
    channels, kind = pipeline.unet.config.in_channels, pipeline.scheduler.config.prediction_type
    if channels != 4 or kind not in ("epsilon", "v_prediction"):
        raise UserError(
            f"{base.name}: found a UNet with {channels} input channels that predicts {kind}, expected a text-to-image "
            "model with 4 that predicts epsilon or v_prediction; inpainting models cannot be trained here"
        )
    if pipeline.vae.config.get("latents_mean") is not None:
        raise UserError(
            f"{base.name}: found latents that are normalized per channel, as in Playground v2.5, expected one scaling "
            "factor; use another base model"
        )
    pipeline.register_to_config(_name_or_path=base.name)
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.channels_last)
    for name in trained_family(pipeline).text_encoders:
        getattr(pipeline, name).to(torch.float32)  # transformers keeps the file's precision; diffusers does not
    return pipeline


def trained_family(pipeline: DiffusionPipeline) -> Family:
    """The family of a pipeline that `load_pipeline` has loaded."""
    family = family_of(pipeline)
    assert family is not None
    return family


def _hide_loading() -> None:
    """Turn off the bars with which diffusers and transformers load a model, which would fill a log."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


@dataclass
class Trainable:
    """The models being trained and their parameters.

    `models` are those with gradients, by name in the pipeline: the UNet, and the text encoders if configured.
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


def make_trainable(pipeline: DiffusionPipeline, config: TrainConfig, seed: int) -> Trainable:
    """Freeze the pipeline except for what `config.method` trains; LoRA's A matrices are initialized from `seed`."""
    family = trained_family(pipeline)
    networks = family.networks(pipeline)
    for part in networks.values():
        part.requires_grad_(False)
    names = ("unet", *(family.text_encoders if config.text_encoder else ()))
    models = {name: networks[name] for name in names}
    if config.method == "lora":
        torch.manual_seed(seed)
        _add_lora(models, config, family)
    else:
        for model in models.values():
            model.requires_grad_(True)
    if config.gradient_checkpointing:
        _checkpoint_gradients(models)
    return Trainable(models)


def _add_lora(models: dict[str, nn.Module], config: TrainConfig, family: Family) -> None:
    layers = [layer for kind in config.lora_layers for layer in UNET_LAYERS[kind]]
    for name, model in models.items():
        model.add_adapter(  # type: ignore[operator]
            LoraConfig(
                r=config.rank,
                lora_alpha=config.rank if config.lora_alpha is None else config.lora_alpha,  # type: ignore[arg-type]
                lora_dropout=config.lora_dropout,
                init_lora_weights="gaussian",
                target_modules=layers if name == "unet" else TEXT_LAYERS,
                layers_to_transform=_read_layers(model, family.unread.get(name)),
            )
        )


def _read_layers(encoder: Any, unread: int | None) -> list[int] | None:
    """The layers of a text encoder that the UNet sees; None for all of them."""
    return list(range(encoder.config.num_hidden_layers - unread)) if unread else None


def _checkpoint_gradients(models: dict[str, Any]) -> None:
    for name, model in models.items():
        if name == "unet":
            model.enable_gradient_checkpointing()
        else:  # transformers 5 renamed this method
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()


def lower_precision(pipeline: DiffusionPipeline, config: TrainConfig) -> None:
    """Keep the weights below the LoRA layers in half precision; everything trained or exported stays in fp32."""
    dtype = PRECISIONS[config.mixed_precision]
    if dtype is None or config.method != "lora":
        return
    for name, part in trained_family(pipeline).networks(pipeline).items():
        for parameter in part.parameters() if name != "vae" else ():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)


def average(trainable: Trainable, decay: float | None) -> EMAModel | None:
    """An exponential moving average of the trained parameters, with warmup; None without a decay."""
    if decay is None:
        return None
    return EMAModel(list(trainable.parameters.values()), decay=decay, use_ema_warmup=True, foreach=True)
