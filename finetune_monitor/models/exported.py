"""Put a step's exported weights into the live modules, for as long as they are borrowed."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from finetune_monitor.models.adapters import adapted_layers, adapter_to_export, plain_name, plain_parameters, unwrapped
from finetune_monitor.models.export import adaptable, magnitude_key, modules_of
from finetune_monitor.models.pipeline import Pipeline
from finetune_monitor.record.kept_weights import KeptWeights


def put_weights(pipeline: Pipeline, kept: KeptWeights) -> bool:
    """Give the live modules the weights that `export_weights` wrote; only within `isolated`, which restores them.

    Returns:
        False if the pipeline no longer has the adapter that was exported.

    Raises:
        KeyError: the file lacks a layer.
        OSError: the file cannot be read.
    """
    models = {name: unwrapped(part) for name, part in modules_of(pipeline).items()}
    if not kept.is_lora:
        _put_pipeline(models, kept)
        return True
    adapter = adapter_to_export(adaptable(models))
    if adapter is None:
        return False
    state = load_file(kept.place)
    for name, model in adaptable(models).items():
        for parameter, value in _lora_values(name, model, adapter, state):
            _put(parameter, value)
    return True


def _lora_values(
    model_name: str, model: nn.Module, adapter: str, state: Mapping[str, Tensor]
) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Each matrix of an adapter, and its exported values without the scale that was folded into B."""
    for name, found in adapted_layers(model):
        layer: Any = found
        if adapter not in layer.lora_A:
            continue
        place = f"{model_name}.{plain_name(name)}"
        yield layer.lora_A[adapter].weight, state[f"{place}.lora_A.weight"]
        yield layer.lora_B[adapter].weight, state[f"{place}.lora_B.weight"] / layer.scaling[adapter]
        if adapter in layer.lora_magnitude_vector:
            yield layer.lora_magnitude_vector[adapter].weight, state[f"{place}.{magnitude_key(model_name)}"]


def _put_pipeline(models: Mapping[str, nn.Module], kept: KeptWeights) -> None:
    """Read all networks from the exported pipeline; those that were trained need not have gradients any more."""
    for name, model in models.items():
        folder = kept.folder / name
        if folder.is_dir():
            stored: nn.Module = cast(Any, type(model)).from_pretrained(folder)
            state = stored.state_dict()
            for key, parameter in plain_parameters(model).items():
                _put(parameter, state[key])


def _put(parameter: nn.Parameter, value: Tensor) -> None:
    """Point a parameter to other memory with these values, in its own type, device, and layout, unless it has them."""
    value = value.to(parameter.device, parameter.dtype)
    if not torch.equal(parameter.data, value):
        parameter.data = torch.empty_like(parameter.data).copy_(value)
