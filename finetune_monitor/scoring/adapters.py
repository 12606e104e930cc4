"""Load a LoRA file of any format into a pipeline for a while, at a strength."""

import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor, nn

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.paths import user_path
from finetune_monitor.base.text import first_line
from finetune_monitor.models.adapters import adapted_layers
from finetune_monitor.models.base_model import BaseModel
from finetune_monitor.models.diffusers_hub import PIPELINE, resolve_hub_model, variant_of
from finetune_monitor.models.export import ADAPTABLE
from finetune_monitor.models.single_file import SD2_WIDTH, is_single_file, read_shapes, refuse_others, text_width
from finetune_monitor.scoring.lora_files import (
    FLUX,
    PEFT_CONFIG,
    PEFT_PREFIX,
    SD1,
    SD2,
    SD3,
    SDXL,
    WIDTHS,
    Base,
    LoraFile,
)

NAME = "scored"

KINDS = {
    "StableDiffusionPipeline": SD1,
    "StableDiffusionXLPipeline": SDXL,
    "StableDiffusion3Pipeline": SD3,
    "FluxPipeline": FLUX,
}
"""Kinds of base models by the class of their pipeline."""

TEXT_LAYERS = ("text_model.", "encoder.layers.")
"""Beginnings of the names of a text encoder's layers."""


def load_base(base: BaseModel, dtype: torch.dtype | None, device: torch.device) -> Any:
    """The pipeline of a base model, with nothing to train.

    Raises:
        UserError: the model is not available or not complete.
    """
    pipeline = base.open(base.find()) if _has_parts(base) else _load_pipeline(base.name, dtype)
    pipeline.register_to_config(_name_or_path=base.name)
    pipeline.to(device)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False)
    if dtype is None:
        for name, part in pipeline.components.items():
            if name.startswith("text_encoder") and part is not None:
                part.to(torch.float32)  # transformers keeps the file's precision; diffusers does not
    elif _has_parts(base):
        pipeline.to(dtype)
    return pipeline


def _has_parts(base: BaseModel) -> bool:
    """Whether it is a file, or more is said of it than its name, as only for models that can be trained."""
    return is_single_file(base.name) or base != BaseModel(base.name)


def _load_pipeline(model: str, dtype: torch.dtype | None) -> Any:
    found = resolve_hub_model(model)
    options: dict[str, Any] = {} if dtype is None else {"torch_dtype": dtype}
    if isinstance(found, Path):
        index = _config(found / PIPELINE.marker)
        options |= {"variant": variant_of(found)}
        options |= {name: None for name, entry in index.items() if entry == [None, None]}  # SD3 without T5
    try:
        return DiffusionPipeline.from_pretrained(found, use_safetensors=True, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{model}: cannot load the base model ({first_line(str(error))}); restore its folder"
        ) from error


def base_of(model: str) -> Base:
    """What kind of base model a file, a folder, or the cache holds, without loading it; unknown for a download."""
    if is_single_file(model):
        file = user_path(model)
        shapes = read_shapes(file)
        refuse_others(file, shapes)
        width_in_file = text_width(shapes)
        return Base(WIDTHS.get(width_in_file), width_in_file)
    found = resolve_hub_model(model)
    if not isinstance(found, Path):
        return Base(None)
    kind = KINDS.get(str(_config(found / PIPELINE.marker).get("_class_name")))
    width = _config(found / "unet" / "config.json").get("cross_attention_dim")
    width = width if isinstance(width, int) else None
    return Base(SD2 if kind == SD1 and width == SD2_WIDTH else kind, width)


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def check_base(file: LoraFile, model: str, base: Base) -> None:
    """Check that a LoRA is for this kind of base model.

    Raises:
        UserError: says which kind it is for.
    """
    own = file.base
    kinds_differ = None not in (own.name, base.name) and own.name != base.name
    widths_differ = None not in (own.width, base.width) and own.width != base.width
    if kinds_differ or widths_differ:
        found, wanted = (own, base) if kinds_differ else (Base(None, own.width), Base(None, base.width))
        raise UserError(
            f"{file.path}: found a LoRA for {found}, but --base {model} is {wanted}; name the base model of this LoRA"
        )


@contextmanager
def loaded(pipeline: Any, file: LoraFile, strength: float) -> Iterator[int]:
    """The pipeline with the LoRA at this strength; yields how many layers it has changed.

    Raises:
        UserError: the file does not fit the pipeline.
    """
    try:
        _load(pipeline, file)
        changed = _changed_layers(pipeline)
        if not changed:
            raise UserError(
                f"{file.path}: none of its {file.layers} layers are in the base model; name its own with --base"
            )
        pipeline.set_adapters([NAME], [strength])
        yield changed
    finally:
        pipeline.unload_lora_weights()


def _load(pipeline: Any, file: LoraFile) -> None:
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # what it would log is in the error
    try:
        if file.is_peft:
            pipeline.load_lora_weights(_from_peft(pipeline, file), adapter_name=NAME)
        else:
            pipeline.load_lora_weights(
                str(file.path.parent),
                weight_name=file.path.name,
                adapter_name=NAME,
                use_safetensors=True,
                local_files_only=True,
            )
    except (ValueError, RuntimeError, KeyError, AttributeError, TypeError, OSError) as error:
        raise UserError(
            f"{file.path}: does not fit the base model ({_reason(error)}); name its own with --base"
        ) from error
    finally:
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    """The first sentence with a fact: torch's first line only names the class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return first_line(next((line for line in lines if "mismatch" in line), lines[0] if lines else repr(error)))


def _changed_layers(pipeline: Any) -> int:
    parts = (getattr(pipeline, name, None) for name in ADAPTABLE)
    return sum(1 for part in parts if isinstance(part, nn.Module) for _ in adapted_layers(part))


def _from_peft(pipeline: Any, file: LoraFile) -> dict[str, Tensor]:
    """The tensors of a file of `PeftModel.save_pretrained` under diffusers' names, with its scale folded in."""
    denoiser = "unet" if getattr(pipeline, "unet", None) is not None else "transformer"
    scale, found = _scale(file), {}
    for key, tensor in load_file(file.path).items():
        layer = key.removeprefix(PEFT_PREFIX)
        part = "text_encoder" if layer.startswith(TEXT_LAYERS) else denoiser
        found[f"{part}.{layer}"] = tensor * scale if "lora_B" in layer else tensor
    return found


def _scale(file: LoraFile) -> float:
    """Alpha over the rank, or over its root for rsLoRA."""
    where = file.path.with_name(PEFT_CONFIG)
    config = _config(where)
    try:
        alpha, rank = float(config["lora_alpha"]), int(config["r"])
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{where}: found no lora_alpha and r; PEFT writes this file next to the weights; copy it there"
        ) from None
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        raise UserError(
            f"{where}: found different ranks or alphas per layer, expected one for all; save it with diffusers"
        )
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
