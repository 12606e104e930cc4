"""LoRA files as kohya's scripts write them, which ComfyUI, AUTOMATIC1111, Forge and Civitai read."""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from safetensors.torch import save_file
from torch import Tensor

from finetune_monitor.base.version import __version__
from finetune_monitor.models.adapters import LoraLayer, unwrapped
from finetune_monitor.models.original_names import original_name
from finetune_monitor.models.single_file import SD2_WIDTH

TEXT_MODEL = "text_model."
"""Before every name of CLIP's text encoder; transformers 5 leaves it out."""

THUMBNAIL = 256
"""Pixels of the longer side of the image in the file's metadata."""


@dataclass(frozen=True)
class BaseModel:
    """A family of base models, as the tools name it.

    version: `ss_base_model_version`.
    architecture: `modelspec.architecture`, without `/lora`.
    prefixes: of the names in the file, by the component's name in the pipeline.
    per_block: the UNet's `layers_per_block`, if the names of its layers are those of the original layout; None if they
        are those of diffusers.
    """

    version: str
    architecture: str
    prefixes: Mapping[str, str]
    per_block: int | None = None

    def name(self, component: str, layer: str) -> str:
        """A layer's name in the file: the prefix and the layer's name, with underscores for dots."""
        if component == "unet" and self.per_block is not None:
            layer = original_name(layer, self.per_block)
        elif component != "unet" and not layer.startswith(TEXT_MODEL):
            layer = TEXT_MODEL + layer
        return f"{self.prefixes[component]}_{layer}".replace(".", "_")


UNET = "lora_unet"
SD1 = BaseModel("sd_v1", "stable-diffusion-v1", {"unet": UNET, "text_encoder": "lora_te"})
SD2 = BaseModel("sd_v2", "stable-diffusion-v2-512", {"unet": UNET, "text_encoder": "lora_te"})
SD2_V = BaseModel("sd_v2_v", "stable-diffusion-v2-768-v", {"unet": UNET, "text_encoder": "lora_te"})
SDXL = BaseModel(
    "sdxl_base_v1-0",
    "stable-diffusion-xl-v1-base",
    {"unet": UNET, "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"},
    per_block=2,
)


def base_model(pipeline: Any) -> BaseModel | None:
    """What kind of model a pipeline's is; None where kohya's names are not known for it (SD3, Flux)."""
    if getattr(pipeline, "unet", None) is None:
        return None
    unet: Any = unwrapped(pipeline.unet)
    if getattr(pipeline, "text_encoder_2", None) is not None:
        return replace(SDXL, per_block=unet.config.layers_per_block)
    predicts_velocity = pipeline.scheduler.config.get("prediction_type") == "v_prediction"
    if predicts_velocity:
        return SD2_V
    return SD2 if unet.config.cross_attention_dim == SD2_WIDTH else SD1


def kohya_state(base: BaseModel, layers: Mapping[str, Mapping[str, LoraLayer]]) -> dict[str, Tensor]:
    """The tensors of a file: `lora_down.weight`, `lora_up.weight` and `alpha` of each layer, and `dora_scale`.

    Args:
        layers: by component, then by the layer's name in it.
    """
    found: dict[str, Tensor] = {}
    for component, own in layers.items():
        for name, layer in own.items():
            key = base.name(component, name)
            found[f"{key}.lora_down.weight"] = layer.down.cpu().contiguous()
            found[f"{key}.lora_up.weight"] = layer.up.cpu().contiguous()
            found[f"{key}.alpha"] = torch.tensor(layer.alpha)
            if layer.magnitude is not None:
                found[f"{key}.dora_scale"] = _as_column(layer.magnitude, layer.up).cpu().contiguous()
    return found


def _as_column(magnitude: Tensor, up: Tensor) -> Tensor:
    """One number an output, shaped as the layer's weights are."""
    return magnitude.reshape(len(up), *(1 for _ in up.shape[1:]))


def write_kohya(
    file: Path,
    base: BaseModel,
    layers: Mapping[str, Mapping[str, LoraLayer]],
    trigger: str = "",
    thumbnail: Image | None = None,
    note: Mapping[str, Any] | None = None,
) -> None:
    """Write the file with the metadata that the tools show.

    Args:
        trigger: words that ask for the subject.
        thumbnail: an image of it.
        note: what finetune_monitor says of the weights.
    """
    save_file(kohya_state(base, layers), file, metadata=metadata(file.stem, base, layers, trigger, thumbnail, note))


def metadata(
    title: str,
    base: BaseModel,
    layers: Mapping[str, Mapping[str, LoraLayer]],
    trigger: str,
    thumbnail: Image | None,
    note: Mapping[str, Any] | None,
) -> dict[str, str]:
    """Kohya's keys (`ss_...`), those of Stability's ModelSpec 1.0.0 (`modelspec...`), and our own."""
    every = [layer for own in layers.values() for layer in own.values()]
    ranks, alphas = sorted({layer.rank for layer in every}), sorted({layer.alpha for layer in every})
    found = {
        "ss_base_model_version": base.version,
        "ss_v2": str(base in (SD2, SD2_V)),
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(ranks[-1]),
        "ss_network_alpha": f"{alphas[-1]:g}",
        "ss_output_name": title,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{base.architecture}/lora",
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "modelspec.title": title,
        "software": f"finetune_monitor {__version__}",
    }
    if trigger:
        found["modelspec.trigger_phrase"] = trigger
        found["ss_tag_frequency"] = json.dumps({"img": {trigger: 1}})
    if thumbnail is not None:
        found["modelspec.thumbnail"] = _data_url(thumbnail)
    if note:
        found["finetune_monitor"] = json.dumps(note)
    return found


def _data_url(image: Image) -> str:
    small, file = image.convert("RGB"), io.BytesIO()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    small.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
