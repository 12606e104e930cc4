"""Finds the LoRA adapter that was trained, whatever wraps the model and whatever other adapters it has."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from peft import PeftModel
from peft.tuners.lora import LoraLayer as PeftLoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

BASE_LAYER = "base_layer."
"""What PEFT puts before a layer's own weights where it has added an adapter."""

WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")
"""What wrappers of single blocks put into the names of their layers."""


@dataclass(frozen=True)
class LoraLayer:
    """The matrices of one adapted layer in fp32: it adds `scale` * up @ down to the layer's weights.

    magnitude: of the columns, where the adapter is a DoRA (Liu et al. 2024, arXiv 2402.09353).
    """

    down: Float[Tensor, "rank ..."]
    up: Float[Tensor, "out ..."]
    scale: float
    magnitude: Float[Tensor, "..."] | None = None

    @property
    def rank(self) -> int:
        return len(self.down)

    @property
    def alpha(self) -> float:
        """What the scale is with the rank divided out, as kohya's files have it; of rsLoRA, too."""
        return self.scale * self.rank


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch.compile, DDP, DataParallel and PEFT's own wrapper."""
    while True:
        if isinstance(model, PeftModel):
            model = model.get_base_model()
        elif isinstance(model, DataParallel | DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, BaseTunerLayer]]:
    """By name the layers of an unwrapped model that have adapters."""
    return ((name, part) for name, part in model.named_modules() if isinstance(part, BaseTunerLayer))


def adapter_to_export(models: Mapping[str, nn.Module]) -> str | None:
    """The adapter that was trained; None where there is no adapter, or where the weights beneath it were trained.

    That is the one with gradients. Where nothing has any, as in a loop that judges files, it is the active one. A model
    without adapters says nothing: freshly loaded weights have gradients, too.

    Args:
        models: unwrapped, by their name in the pipeline.

    Raises:
        ValueError: it cannot be said which was trained: several have gradients, or so have the weights beneath one.
    """
    layers = [layer for model in models.values() for _, layer in adapted_layers(model)]
    owned = [pair for layer in layers for pair in _parameters(layer).items()]
    trained = list(dict.fromkeys(name for name, own in owned if any(each.requires_grad for each in own)))
    whole = [name for name, model in models.items() if _is_adapted(model) and _has_trained_weights(model)]
    if trained and whole:
        raise ValueError(
            f"the adapter {trained[0]} and the weights of {whole[0]} beneath it both have gradients; freeze one of them"
        )
    active = dict.fromkeys(name for layer in layers if not layer.disable_adapters for name in layer.active_adapters)
    candidates = [] if whole else trained or list(active)
    if len(candidates) > 1:
        state = "have gradients" if trained else "are active"
        raise ValueError(f"the adapters {', '.join(candidates)} {state}, expected one; freeze or unload the others")
    return candidates[0] if candidates else None


def other_adapters(models: Mapping[str, nn.Module], exported: str | None) -> dict[str, list[float]]:
    """The weights of each active adapter but the exported one: those of its layers, without repeats and in order.

    They are 1 unless `pipeline.set_adapters` was given others, and empty for an adapter that has none. An adapter whose
    weights are all 0 is as good as inactive.

    Args:
        models: unwrapped, by their name in the pipeline.
        exported: what `adapter_to_export` has found.
    """
    found: dict[str, set[float]] = {}
    for layer in (layer for model in models.values() for _, layer in adapted_layers(model)):
        active = [] if layer.disable_adapters else layer.active_adapters
        for name in (name for name in active if name != exported and name in _parameters(layer)):
            found.setdefault(name, set()).update(_weights_of(layer, name))
    return {name: sorted(weights) for name, weights in found.items() if weights != {0.0}}


def _weights_of(layer: Any, adapter: str) -> list[float]:
    """What a layer multiplies an adapter by besides the adapter's own scale, to three decimals; empty if unknown."""
    known = [getattr(layer, name, {}) for name in ("scaling", "lora_alpha", "r")]
    if not all(isinstance(each, Mapping) and each.get(adapter) for each in known[1:]) or adapter not in known[0]:
        return []
    scaling, alpha, rank = (float(each[adapter]) for each in known)
    is_stabilized = getattr(layer, "use_rslora", {}).get(adapter, False)
    return [round(scaling * (math.sqrt(rank) if is_stabilized else rank) / alpha, 3)]


def lora_layers(model: nn.Module, adapter: str) -> dict[str, LoraLayer]:
    """The adapter's layers by their name in the plain model, which is unwrapped.

    Raises:
        ValueError: an adapter of another kind than LoRA or DoRA, or a layer that the plain model does not have,
            neither of which diffusers could load.
    """
    found = {}
    for name, layer in adapted_layers(model):
        if adapter in _parameters(layer):
            found[plain_name(name)] = _lora_layer(name, layer, adapter)
    if found:
        _check_names(model, found)
    return found


def _check_names(model: nn.Module, names: Iterable[str]) -> None:
    kind: tuple[type, str] = type(model), repr(model.config)
    if kind not in _PLAIN_NAMES:
        with torch.device("meta"):
            _PLAIN_NAMES[kind] = frozenset(name for name, _ in new_model(model).named_modules())
    if strange := [name for name in names if name not in _PLAIN_NAMES[kind]]:
        raise ValueError(f"{strange[0]}: a plain {type(model).__name__} has no such layer; unwrap the model's blocks")


_PLAIN_NAMES: dict[tuple[type, str], frozenset[str]] = {}
"""The layers of plain models by class and config: building one to look takes half of an export's time."""


def new_model(model: nn.Module) -> nn.Module:
    """A model as the config of this one describes it, with other weights."""
    kind: Any = type(model)
    config: Any = model.config
    found: nn.Module = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
    return found


def plain_name(name: str) -> str:
    """A layer's name in the plain model."""
    for wrapper in (*WRAPPERS, BASE_LAYER):
        name = name.replace(wrapper, "")
    return name


def _is_adapted(model: nn.Module) -> bool:
    return next(adapted_layers(model), None) is not None


def _has_trained_weights(model: nn.Module) -> bool:
    """Whether the model's own weights have gradients, and not only an adapter's."""
    inside = {id(each) for _, layer in adapted_layers(model) for own in _parameters(layer).values() for each in own}
    return any(each.requires_grad and id(each) not in inside for each in model.parameters())


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """An unwrapped model's own weights under their own names, without those of adapters."""
    inside = {
        f"{name}.{key}"
        for name, layer in adapted_layers(model)
        for key in cast(nn.Module, layer).state_dict()
        if BASE_LAYER not in key
    }
    return {plain_name(key): value for key, value in model.state_dict().items() if key not in inside}


def plain_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """An unwrapped model's own parameters under their own names, without those of adapters."""
    inside = {id(each) for _, layer in adapted_layers(model) for own in _parameters(layer).values() for each in own}
    return {plain_name(name): each for name, each in model.named_parameters() if id(each) not in inside}


def _lora_layer(name: str, layer: BaseTunerLayer, adapter: str) -> LoraLayer:
    if not isinstance(layer, PeftLoraLayer) or adapter not in layer.lora_A:
        kind = type(layer).__module__.removeprefix("peft.tuners.").partition(".")[0]
        raise ValueError(
            f"{name}: found an adapter of the kind {kind}, expected LoRA or DoRA, which diffusers can load"
        )
    if layer.lora_B[adapter].bias is not None:
        raise ValueError(f"{name}: found a LoRA with a bias, expected one without; set lora_bias=False")
    vectors: Any = layer.lora_magnitude_vector
    magnitude = vectors[adapter].weight.detach().float() if adapter in vectors else None
    matrices: tuple[Any, Any] = (layer.lora_A, layer.lora_B)
    down, up = (each[adapter].weight.detach().float() for each in matrices)
    return LoraLayer(down, up, float(layer.scaling[adapter]), magnitude)


def _parameters(layer: BaseTunerLayer) -> dict[str, list[nn.Parameter]]:
    """The parameters of each of a layer's adapters, by the adapters' names."""
    found: dict[str, list[nn.Parameter]] = {}
    for container in (getattr(layer, kind) for kind in layer.adapter_layer_names if hasattr(layer, kind)):
        for name, held in container.items():
            found.setdefault(name, []).extend(held.parameters() if isinstance(held, nn.Module) else [held])
    return found
