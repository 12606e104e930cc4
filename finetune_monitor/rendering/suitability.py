"""What a pipeline needs so that the grid can be rendered, and what to do if rendering fails."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from finetune_monitor.base.batching import OutOfMemoryError
from finetune_monitor.models.pipeline import Pipeline

ALSO_OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder", "text_encoder_3", "tokenizer_3")
"""Components that diffusers' pipelines do without, in addition to those that their class lists as optional."""

ARGUMENTS = ("prompt_embeds", "height", "width", "generator", "callback_on_step_end")
"""What the renderer passes to every pipeline."""


def check_suits(pipeline: Pipeline, parts: Mapping[str, Any]) -> None:
    """Check what can be known before rendering.

    Args:
        parts: the pipeline's components without their wrappers.

    Raises:
        ValueError: lists every problem and its remedy.
    """
    if problems := [*_missing(pipeline, parts), *_wrapped(parts), *_tokenizers(parts), *_arguments(pipeline)]:
        raise ValueError("\n".join(f"pipeline{problem}" for problem in problems))


def remedy(parts: Mapping[str, Any], error: BaseException, is_cast: bool = False) -> str:
    """What to do about an error of the first rendering; empty if that is unknown.

    Args:
        is_cast: rendering uses autocast, so the components may differ in precision.
    """
    modules = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
    devices = {
        name: str(first.device)
        for name, part in modules.items()
        if (first := next(part.parameters(), None)) is not None
    }
    dtypes = {name: str(dtype) for name, part in modules.items() if name != "vae" and (dtype := _dtype(part))}
    if isinstance(error, OutOfMemoryError):
        return "one image does not fit into memory: reduce grid.size, or free memory before training starts"
    if len(set(devices.values())) > 1:
        return f"the components are on different devices ({_listed(devices)}): move all of them to one device"
    if len(set(dtypes.values())) > 1 and not is_cast:
        return (
            f"the components differ in precision ({_listed(dtypes)}): pass autocast, the precision of the training "
            "loop, or convert them to one precision"
        )
    return ""


def _missing(pipeline: Pipeline, parts: Mapping[str, Any]) -> Iterator[str]:
    optional = {*ALSO_OPTIONAL, *getattr(type(pipeline), "_optional_components", ())}
    encoders = [name for name in parts if name.startswith("text_encoder")]
    for name, part in {"vae": None, **parts}.items():
        is_last = name in encoders and all(parts[each] is None for each in encoders)
        if part is None and (is_last or name not in optional):
            yield f".{name}: found None, expected the model's {name}; load the pipeline with it"


def _wrapped(parts: Mapping[str, Any]) -> Iterator[str]:
    for name, part in parts.items():
        kind = type(part).__name__
        is_model = isinstance(part, nn.Module) and name not in ALSO_OPTIONAL
        if is_model and (not hasattr(part, "config") or kind == "FullyShardedDataParallel"):
            yield f".{name}: found {kind}, expected the model of diffusers or transformers inside it; unwrap it"


def _tokenizers(parts: Mapping[str, Any]) -> Iterator[str]:
    """Tokenizers that produce more tokens than their text encoder has positions for."""
    for name, tokenizer in parts.items():
        encoder = parts.get(name.replace("tokenizer", "text_encoder"))
        positions = getattr(getattr(encoder, "config", None), "max_position_embeddings", None)
        length = getattr(tokenizer, "model_max_length", None)
        if name.startswith("tokenizer") and positions and length is not None and length > positions:
            yield (
                f".{name}.model_max_length: found {length:g}, expected at most {positions}, the positions of its text "
                f"encoder; set pipeline.{name}.model_max_length = {positions}"
            )


def _arguments(pipeline: Pipeline) -> Iterator[str]:
    taken = inspect.signature(type(pipeline).__call__).parameters
    if lacking := [name for name in ARGUMENTS if name not in taken]:
        yield (
            f": calling {type(pipeline).__name__} takes no {', '.join(lacking)}; use a text-to-image pipeline of the "
            "installed diffusers"
        )


def _dtype(part: nn.Module) -> torch.dtype | None:
    """The precision of a module's frozen weights, or of all if none are frozen."""
    found = [each for each in part.parameters() if each.is_floating_point()]
    frozen = [each for each in found if not each.requires_grad]
    return next((each.dtype for each in frozen or found), None)


def _listed(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {each.removeprefix('torch.')}" for name, each in found.items())
