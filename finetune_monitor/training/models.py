"""Load Stable Diffusion, choose what is trained (LoRA layers or everything), and keep an average of it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import EMAModel
from peft import LoraConfig
from torch import nn

from finetune_monitor.training.config import TrainConfig

UNET_LAYERS = {
    "attention": ["to_q", "to_k", "to_v", "to_out.0"],
    "feed_forward": ["ff.net.0.proj", "ff.net.2"],
    "convolution": ["conv1", "conv2", "conv_shortcut"],
}
TEXT_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj"]
PRECISIONS = {"no": None, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_pipeline(model: str | Path) -> StableDiffusionPipeline:
    """Stable Diffusion in fp32 from safetensors; without the safety checker, which blackens class images."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        model, use_safetensors=True, safety_checker=None, requires_safety_checker=False
    )
    pipeline.text_encoder.to(torch.float32)  # transformers keeps the file's precision, diffusers does not
    return pipeline


@dataclass
class Trainable:
    """The models being trained and their parameters.

    `models` are those with gradients, by their name in the pipeline: the UNet, and the text encoder where asked for.
    """

    models: dict[str, nn.Module]
    ema: EMAModel | None = None

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Name (`unet.…`) to parameter, of everything that gets a gradient."""
        named = ((f"{m}.{n}", p) for m, model in self.models.items() for n, p in model.named_parameters())
        return {name: parameter for name, parameter in named if parameter.requires_grad}

    @property
    def live_weights(self) -> Callable[[], AbstractContextManager]:
        """Puts the averaged weights in place while the monitor looks, where an average is kept."""
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
    """Freeze the pipeline and open what `config.method` trains; LoRA's A matrices are drawn from `seed`."""
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
        encoder = pipeline.text_encoder  # transformers 5 renamed the method
        getattr(encoder, "activation_checkpointing_enable", encoder.gradient_checkpointing_enable)()


def lower_precision(pipeline: StableDiffusionPipeline, dtype: torch.dtype | None) -> None:
    """Keep frozen weights in half precision; whatever is trained stays fp32, as its optimiser needs."""
    if dtype is None:
        return
    for part in (pipeline.unet, pipeline.text_encoder):
        for parameter in part.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)


def average(trainable: Trainable, decay: float | None) -> EMAModel | None:
    """An exponential moving average of the trained parameters, with warm-up; none without a decay."""
    if decay is None:
        return None
    return EMAModel(list(trainable.parameters.values()), decay=decay, use_ema_warmup=True)
