"""Write a pipeline's fine-tuned weights in a format that other tools can load."""

import json
from pathlib import Path
from typing import Any

from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import staged_folder
from finetune_monitor.models.pipeline import Pipeline

LORA_FILE = "pytorch_lora_weights.safetensors"
ADAPTABLE = ("unet", "transformer", "text_encoder", "text_encoder_2")
"""The components of a pipeline whose LoRA layers diffusers can load."""

NOTE = "finetune_monitor.json"
"""File next to weights: the step they belong to, or a notice that applies to everything made with them."""


def export_weights(pipeline: Pipeline, folder: Path, note: dict[str, Any]) -> None:
    """Write LoRA weights for `pipe.load_lora_weights(folder)`, or the complete pipeline if it has no adapters.

    The folder appears only once it is complete. `finetune_monitor.json` next to the weights holds `note` and the notice
    of the pipeline's own folder, if it has one.
    """
    notice = identify(pipeline).get("notice")
    note = {**note, "notice": notice} if notice else note
    models: dict[str, Any] = {name: getattr(pipeline, name, None) for name in ADAPTABLE}
    adapted = {name: model for name, model in models.items() if getattr(model, "peft_config", None)}
    with staged_folder(folder) as staged:
        if adapted:
            layers = {f"{name}_lora_layers": lora_layers(model) for name, model in adapted.items()}
            adaptable: Any = pipeline  # pipelines whose components have adapters can write them
            adaptable.save_lora_weights(staged, **layers)
        else:
            pipeline.save_pretrained(staged)
        (staged / NOTE).write_text(json.dumps(note, indent=2) + "\n")


def identify(pipeline: Pipeline) -> dict[str, str | None]:
    """The pipeline's class, its hub id or folder, and the notice in its folder, if any.

    Raises:
        UserError: the file with the notice is damaged.
    """
    name = pipeline.config.get("_name_or_path")
    found: dict[str, str | None] = {"class": type(pipeline).__name__, "name_or_path": str(name) if name else None}
    notice = notice_of(Path(str(name))) if name else None
    return {**found, "notice": notice} if notice else found


def notice_of(folder: Path) -> str | None:
    """The notice in a model's folder; None if there is none, as for a hub id.

    Raises:
        UserError: the file with the notice is damaged.
    """
    file = folder / NOTE
    if not file.is_file():
        return None
    try:
        notice = json.loads(file.read_bytes()).get("notice")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{file}: damaged ({error!r}); restore or delete it") from error
    return str(notice) if notice else None


def lora_layers(model: nn.Module) -> dict[str, Tensor]:
    """A model's LoRA matrices under PEFT's names, fp32, with alpha / rank folded into B.

    Folding makes the file correct for every reader: otherwise the scale would be in metadata that some tools ignore.
    The names are PEFT's because diffusers' own older names do not cover convolutions and feed-forward layers, and a
    file with both loses the attention layers when it is read.
    """
    adapter = next(iter(model.peft_config))  # type: ignore[arg-type]
    state = get_peft_model_state_dict(model, adapter_name=adapter)
    scales = {name: part.scaling[adapter] for name, part in model.named_modules() if hasattr(part, "lora_B")}
    return {
        key: value.float() * scales[key.removesuffix(".lora_B.weight")] if "lora_B" in key else value.float()
        for key, value in state.items()
    }
