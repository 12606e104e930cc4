"""Write a pipeline's fine-tuned weights in the formats that other tools load."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image
from torch import Tensor, nn

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import staged_folder
from finetune_monitor.models.adapters import (
    LoraLayer,
    adapter_to_export,
    lora_layers,
    new_model,
    other_adapters,
    plain_state,
    unwrapped,
)
from finetune_monitor.models.diffusers_hub import is_hub_id
from finetune_monitor.models.kohya import base_model, write_kohya
from finetune_monitor.models.pipeline import Pipeline, settings_of
from finetune_monitor.record.kept_weights import KOHYA_ENDING, NOTE, OTHER_ADAPTERS

SAMPLED = 2**20
"""Bytes at each end of a file with weights that identify it; several gigabytes would take as many seconds."""

ADAPTABLE = ("unet", "transformer", "text_encoder", "text_encoder_2")
"""The components of a pipeline whose LoRA layers diffusers can load."""


@dataclass(frozen=True)
class Label:
    """What a LoRA file says of itself to the tools that load it.

    name: `NAME_kohya.safetensors` is the file for ComfyUI, AUTOMATIC1111, Forge and Civitai.
    trigger: words that ask for the subject.
    thumbnail: an image that the weights have made.
    """

    name: str = "lora"
    trigger: str = ""
    thumbnail: Image | None = None


def export_weights(
    pipeline: Pipeline, folder: Path, note: dict[str, Any], label: Label = Label(), scheduler: Any = None
) -> None:
    """Write the adapter that was trained, or the complete pipeline where its own weights were.

    A LoRA is written twice: for `pipe.load_lora_weights(folder)`, and under kohya's names for ComfyUI and others. The
    folder appears only once it is complete. `finetune_monitor.json` next to the weights holds `note`, the base model's
    hub id, if it has one, the notice of the pipeline's own folder, if there is one, and the other adapters that are
    active, if there are any: the images have them, but what is written has not.

    Args:
        scheduler: what a complete pipeline is written with, so that it samples as its images were scored, whatever
            version of diffusers reads it; None: its own.

    Raises:
        ValueError: it cannot be said which adapter was trained, or diffusers cannot load it.
    """
    note = {**note, **_said_of(identify(pipeline))}
    parts = modules_of(pipeline)
    models = {name: unwrapped(part) for name, part in parts.items()}
    adapted = adaptable(models)
    adapter = adapter_to_export(adapted)
    if others := other_adapters(adapted, adapter):
        note = {**note, OTHER_ADAPTERS: others}
    with staged_folder(folder) as staged:
        if adapter is None:
            plain = _plain_pipeline(pipeline, parts, models)
            with _scheduler_replaced(plain, scheduler):
                plain.save_pretrained(staged)
        else:
            _save_lora(
                pipeline, staged, {name: lora_layers(model, adapter) for name, model in adapted.items()}, label, note
            )
        (staged / NOTE).write_text(json.dumps(note, indent=2) + "\n")


@contextmanager
def _scheduler_replaced(pipeline: Any, scheduler: Any) -> Iterator[None]:
    """Give a pipeline another scheduler, and its own back on exit; None changes nothing."""
    own = pipeline.scheduler
    try:
        pipeline.register_modules(scheduler=own if scheduler is None else scheduler)
        yield
    finally:
        pipeline.register_modules(scheduler=own)


def _said_of(identity: Mapping[str, str | None]) -> dict[str, str]:
    """What the note next to weights says of the pipeline that they were trained in."""
    name, notice = identity["name_or_path"], identity.get("notice")
    base = {"base_model": name} if name and is_hub_id(name) else {}
    return {**base, **({"notice": notice} if notice else {})}


def exports_lora(pipeline: Pipeline) -> bool:
    """Whether `export_weights` writes a LoRA, and not the complete pipeline.

    Raises:
        ValueError: it cannot be said which adapter was trained.
    """
    return adapter_to_export(_adapted(pipeline)) is not None


def not_exported(pipeline: Pipeline) -> dict[str, list[float]]:
    """The active adapters that images are made with, but that `export_weights` leaves out, with their weights.

    Raises:
        ValueError: it cannot be said which adapter was trained.
    """
    models = _adapted(pipeline)
    return other_adapters(models, adapter_to_export(models))


def _adapted(pipeline: Pipeline) -> dict[str, nn.Module]:
    return adaptable({name: unwrapped(part) for name, part in modules_of(pipeline).items()})


def modules_of(pipeline: Pipeline) -> dict[str, nn.Module]:
    """The networks of a pipeline, by name."""
    return {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}


def adaptable(models: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Those whose LoRA layers diffusers can load."""
    return {name: model for name, model in models.items() if name in ADAPTABLE}


def _save_lora(
    pipeline: Any, folder: Path, found: Mapping[str, Mapping[str, LoraLayer]], label: Label, note: Mapping[str, Any]
) -> None:
    layers = {name: own for name, own in found.items() if own}
    states = {f"{name}_lora_layers": _peft_state(own, magnitude_key(name)) for name, own in layers.items()}
    pipeline.save_lora_weights(folder, **states)
    if (base := base_model(pipeline)) is not None:
        file = folder / f"{label.name}{KOHYA_ENDING}"
        write_kohya(file, base, layers, label.trigger, label.thumbnail, note)


def magnitude_key(model: str) -> str:
    """The name of a DoRA's magnitudes in a layer: transformers, which loads text encoders, wants one more part."""
    return "lora_magnitude_vector.weight" if model.startswith("text_encoder") else "lora_magnitude_vector"


def _peft_state(layers: Mapping[str, LoraLayer], magnitude: str) -> dict[str, Tensor]:
    """Matrices under PEFT's names, with the scale folded into B.

    Folding makes the file correct for every reader: otherwise the scale would be in metadata that some tools ignore.
    The names are PEFT's because diffusers' own older names do not cover convolutions and feed-forward layers, and a
    file with both loses the attention layers when it is read.
    """
    found = {}
    for name, layer in layers.items():
        found[f"{name}.lora_A.weight"] = layer.down.contiguous()
        found[f"{name}.lora_B.weight"] = (layer.scale * layer.up).contiguous()
        if layer.magnitude is not None:
            found[f"{name}.{magnitude}"] = layer.magnitude.contiguous()
    return found


def _plain_pipeline(pipeline: Pipeline, parts: Mapping[str, nn.Module], models: Mapping[str, nn.Module]) -> Pipeline:
    """The pipeline as diffusers loads it: without wrappers, and without adapters, which would rename its weights."""
    plain = {name: _without_adapters(model) for name, model in models.items()}
    if all(plain[name] is parts[name] for name in parts):
        return pipeline
    kind: Any = type(pipeline)
    found: Pipeline = kind(**{**settings_of(pipeline), **pipeline.components, **plain})
    return found


def _without_adapters(model: nn.Module) -> nn.Module:
    """A copy on the same memory with the model's own weights alone; the model itself where it has no adapter."""
    state = plain_state(model)
    if state.keys() == model.state_dict().keys():
        return model
    copy = new_model(model)
    copy.load_state_dict(state, assign=True)
    return copy


def identify(pipeline: Pipeline) -> dict[str, str | None]:
    """The pipeline's class, its hub id or folder, and of a folder what identifies its content, and the notice in it.

    Raises:
        UserError: the file with the notice is damaged.
    """
    name = pipeline.config.get("_name_or_path")
    found: dict[str, str | None] = {"class": type(pipeline).__name__, "name_or_path": str(name) if name else None}
    folder = Path(str(name)) if name else None
    if folder is None or not folder.exists():
        return found
    notice = notice_of(folder) if folder.is_dir() else None
    return {**found, "sha256": fingerprint(folder), **({"notice": notice} if notice else {})}


def fingerprint(folder: Path) -> str:
    """SHA-256 of a model folder's settings and of the size, the beginning, and the end of each file with weights.

    A model may also be a file.
    """
    found = hashlib.sha256()
    if folder.is_file():
        _update(found, folder, "")
        return found.hexdigest()
    files = [path for path in (*folder.glob("*/*.json"), *folder.glob("*/*.safetensors")) if path.is_file()]
    for path in sorted([*files, *folder.glob("model_index.json")]):
        _update(found, path, path.relative_to(folder).as_posix())
    return found.hexdigest()


def _update(found: Any, path: Path, name: str) -> None:
    size = path.stat().st_size
    found.update(f"{name} {size} ".encode())
    with path.open("rb") as file:
        found.update(file.read(SAMPLED))
        file.seek(max(0, size - SAMPLED))
        found.update(file.read())


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
