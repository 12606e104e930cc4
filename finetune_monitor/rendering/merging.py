"""Merge LoRA layers into the weights below them while images are rendered, which costs a third less on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import cast

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from finetune_monitor.models.adapters import adapted_layers
from finetune_monitor.rendering.isolation import modules_kept


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Compute with copies of the weights that include the active LoRA layers; on exit, all is restored, bit for bit.

    Only layers in fp32 are merged: half precision would round away most of what a short training changes. A compiled
    model would be compiled again, so it stays as it is.
    """
    layers = [] if is_compiled(model) else list(_mergeable(model))
    with modules_kept(cast(nn.Module, layer) for layer in layers):
        for layer in layers:
            with suppress(ValueError):  # weights that are not finite: the images show it, merged or not
                layer.merge(safe_merge=True)
        yield


def is_compiled(model: nn.Module) -> bool:
    """Whether a model was compiled in place, so that other shapes or weights would be compiled again."""
    return getattr(model, "_compiled_call_impl", None) is not None


def _mergeable(model: nn.Module) -> Iterator[LoraLayer]:
    """The layers of a plain LoRA that are in use and not merged yet."""
    for _, layer in adapted_layers(model):
        if isinstance(layer, LoraLayer) and not (layer.merged or layer.disable_adapters or layer.lora_magnitude_vector):
            base = layer.get_base_layer()
            is_known = type(base) is nn.Linear or (type(base) is nn.Conv2d and base.groups == 1)
            if is_known and base.weight.dtype == torch.float32:
                yield layer
