"""LoRA files of other trainers: what they are, which base model they are for, and which step of which training."""

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import open_regular
from finetune_monitor.record.kept_weights import KOHYA_ENDING, LORA_FILE
from finetune_monitor.record.kept_weights import WEIGHTS as WEIGHTS_FOLDER
from finetune_monitor.record.run_directory import RUN
from finetune_monitor.scoring.folder import source_files
from finetune_monitor.scoring.patterns import FOLDER_PER_STEP, WEIGHTS, Named, read_name

SUFFIX = ".safetensors"

PICKLED = (".bin", ".ckpt", ".pkl", ".pt", ".pth")

METADATA = "__metadata__"

LARGEST_HEADER = 100_000_000
"""Bytes; the limit of the format."""

DOWN = re.compile(r"(?:lora_down|lora_A|lora\.down|_lora\.down|lora_linear_layer\.down)(?:\.\w+)?\.weight$")
"""The ends of the names of the first matrix of a layer, in all formats."""

OTHERS = {
    "hada_w1": "a LoHa",
    "lokr_w": "a LoKr",
    "oft_blocks": "an OFT",
    "dora_scale": "a DoRA in kohya's format",
}
"""Parts of names that show what diffusers would refuse, or load in part only."""

PEFT_PREFIX, PEFT_CONFIG = "base_model.model.", "adapter_config.json"
"""How `PeftModel.save_pretrained` names layers, and where it keeps alpha."""

SD1, SD2, SDXL, SD3, FLUX = (
    "Stable Diffusion 1.x",
    "Stable Diffusion 2.x",
    "Stable Diffusion XL",
    "Stable Diffusion 3",
    "Flux",
)

WIDTHS = {768: SD1, 1024: SD2, 2048: SDXL}
"""Base models by the width of a text token's embedding, which cross-attention reads."""

SAID = {"sd_v1": SD1, "sd_v2": SD2, "sdxl": SDXL, "sd3": SD3, "flux": FLUX}
ARCHITECTURES = {
    "stable-diffusion-v1": SD1,
    "stable-diffusion-v2": SD2,
    "stable-diffusion-xl": SDXL,
    "stable-diffusion-3": SD3,
    "flux": FLUX,
}
"""Beginnings of `ss_base_model_version` and of `modelspec.architecture`."""

PARTS = (
    (re.compile(r"double_blocks|single_blocks|single_transformer_blocks"), FLUX),
    (re.compile(r"joint_blocks|transformer\.transformer_blocks\..*add_k_proj"), SD3),
    (re.compile(r"lora_te2_|text_encoder_2\."), SDXL),
)
"""Parts of names that only layers of one kind of model have."""

REPEATED = re.compile(r"\d+_(.+)")

TO_PROMPT = re.compile(r"attn2[._](?:processor[._])?to_[kv]")


class NoLoraError(UserError):
    """A file of other weights, which may be among the LoRA files of a folder."""


@dataclass(frozen=True)
class Base:
    """What a LoRA is for. `name`: of the kind of model; None if unknown. `width`: of a text token's embedding."""

    name: str | None
    width: int | None = None

    def __str__(self) -> str:
        return self.name or f"a model with text embeddings of width {self.width}"


@dataclass(frozen=True)
class LoraFile:
    """A LoRA file. `shapes`: of its tensors by name. `said`: what the names and the metadata say of its step."""

    path: Path
    name: str
    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]
    said: Named

    @property
    def layers(self) -> int:
        return sum(DOWN.search(key) is not None for key in self.shapes)

    @property
    def is_peft(self) -> bool:
        """Whether `PeftModel.save_pretrained` wrote it."""
        return all(key.startswith(PEFT_PREFIX) for key in self.shapes)

    @property
    def base(self) -> Base:
        """The base model that it is for, by its names and shapes, or else by its metadata."""
        widths = {shape[1] for key, shape in self.shapes.items() if DOWN.search(key) and TO_PROMPT.search(key)}
        width = widths.pop() if len(widths) == 1 else None
        by_names = next((name for part, name in PARTS if any(part.search(key) for key in self.shapes)), None)
        said = _beginning(self.metadata.get("ss_base_model_version"), SAID)
        said = said or _beginning(self.metadata.get("modelspec.architecture"), ARCHITECTURES)
        return Base(by_names or WIDTHS.get(width or 0) or said, width)

    @property
    def trigger(self) -> str | None:
        """Words that ask for the subject: the trigger phrase, or those of kohya's folder of photos, `10_sks person`."""
        folders = _object(self.metadata.get("ss_tag_frequency"))
        words = (found[1] for name in folders if (found := REPEATED.fullmatch(str(name))))
        return self.metadata.get("modelspec.trigger_phrase") or next(words, None)


def _beginning(text: str | None, known: Mapping[str, str]) -> str | None:
    return next((name for start, name in known.items() if text and text.lower().startswith(start)), None)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files in a folder and the folders below it; of our own two formats, only one.

    Of a run of our own, these are the weights of its steps.
    """
    folder = folder / WEIGHTS_FOLDER if (folder / RUN).exists() else folder
    found = [folder / name for name in source_files(folder) if name.endswith(SUFFIX)]
    twins = {path.parent for path in found if path.name == LORA_FILE}
    return [path for path in found if not (path.name.endswith(KOHYA_ENDING) and path.parent in twins)]


def read_header(path: Path) -> dict[str, Any]:
    """The tensors and the metadata that a safetensors file lists; its content is only measured.

    Raises:
        UserError: it is not in this format, or not complete.
    """
    try:
        with open_regular(path) as file:
            start = file.read(8)
            if path.suffix.lower() in PICKLED or start.startswith((b"\x80", b"PK")):
                raise UserError(
                    f"{path}: found a pickle, which can run any code and is never loaded; expected {SUFFIX}; ask its "
                    "author for one, or convert it in an isolated environment"
                )
            size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= size <= LARGEST_HEADER:
                raise UserError(f"{path}: not a safetensors file; expected a LoRA in that format; check the path")
            header = json.loads(file.read(size))
            end = max((tensor["data_offsets"][1] for name, tensor in header.items() if name != METADATA), default=0)
            found = file.seek(0, 2)
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror}); expected a LoRA file") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise UserError(f"{path}: damaged or incomplete ({error}); copy it again from its source") from error
    if found < 8 + size + end:
        raise UserError(
            f"{path}: incomplete: found {found:,} bytes, expected {8 + size + end:,}; copy it again from its source"
        )
    return dict(header)


def is_complete(path: Path) -> bool:
    """Whether all bytes that a file announces are there: another process may still be writing it."""
    try:
        read_header(path)
    except UserError:
        return False
    return True


def read_lora(path: Path, folder: Path) -> LoraFile:
    """What a LoRA file says, without reading its tensors.

    Args:
        folder: the place that it was found in, which its name in messages is relative to.

    Raises:
        UserError: it is damaged, no LoRA, or of a kind that diffusers cannot load.
    """
    header = read_header(path)
    metadata = {key: text for key, text in (header.pop(METADATA, None) or {}).items() if isinstance(text, str)}
    shapes = {key: tuple(tensor.get("shape", ())) for key, tensor in header.items()}
    found = LoraFile(path, _name(path, folder), shapes, metadata, _said(path, folder, metadata))
    _check_kind(found)
    return found


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path != folder else path.name


def _check_kind(found: LoraFile) -> None:
    for part, kind in OTHERS.items():
        if any(part in key for key in found.shapes):
            raise UserError(
                f"{found.path}: found {kind}, which diffusers cannot load completely; expected a LoRA; leave it out"
            )
    if found.layers == 0:
        raise NoLoraError(
            f"{found.path}: found {_what_else(found.shapes)}, expected a LoRA; name a base model with --base"
        )


def _what_else(shapes: Mapping[str, Any]) -> str:
    if any(key.startswith(("model.diffusion_model.", "first_stage_model.")) for key in shapes):
        return "a complete model in a single file"
    first = next(iter(shapes), None)
    return "no tensors" if first is None else f"other weights (the first is {first})"


def _said(path: Path, folder: Path, metadata: Mapping[str, str]) -> Named:
    """What the path says of the step, and otherwise the metadata of kohya's and ai-toolkit's files."""
    whole = Path(folder.resolve().name, path.relative_to(folder)) if path != folder else path.resolve()
    named = read_name(whole.with_suffix("").as_posix(), WEIGHTS) or Named("")
    step, epoch = named.step, named.epoch
    if step is None:
        step = _number(metadata.get("ss_steps")) or _number(_object(metadata.get("training_info")).get("step"))
        epoch = epoch if epoch is not None else _number(metadata.get("ss_epoch"))
    named_by_folder = named.tool == FOLDER_PER_STEP or path.name == LORA_FILE
    series = "" if named_by_folder else path.stem if named.series is None else named.series
    return Named(named.tool, step, epoch, series=series)


def _object(text: str | None) -> Mapping[str, Any]:
    """The JSON object in a text; empty if there is none."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(found: Any) -> int | None:
    text = str(found)
    return int(text) if text.isdecimal() and len(text) < 12 else None


@dataclass(frozen=True)
class Series:
    """The files of one training, by step. `unordered`: names of files whose step had to be guessed.

    home: the folder that they are in.
    """

    home: Path
    name: str
    files: Mapping[int, LoraFile]
    epochs: Mapping[int, int | None]
    unordered: tuple[str, ...] = ()


def series_of(files: Sequence[LoraFile]) -> list[Series]:
    """The files by training: those whose names begin alike are epochs or steps of one."""
    found: dict[tuple[Path, str], list[LoraFile]] = {}
    for file in files:
        found.setdefault((_home(file), str(file.said.series)), []).append(file)
    return [_ordered(home, name or _title(home), own) for (home, name), own in found.items()]


def _home(file: LoraFile) -> Path:
    """The folder of a training's files; that of checkpoints is the one around theirs."""
    folder = file.path.resolve().parent
    return folder.parent if file.said.tool == FOLDER_PER_STEP else folder


def _title(home: Path) -> str:
    """The name of a training without one of its own: that of its folder."""
    return home.parent.name if home.name == WEIGHTS_FOLDER else home.name


def _ordered(home: Path, name: str, files: Sequence[LoraFile]) -> Series:
    """By step if all that name anything have one, and else by epoch; files without either come last."""
    numbered = [file for file in files if file.said.step is not None or file.said.epoch is not None]
    has_steps = all(file.said.step is not None for file in numbered)
    by_step: dict[int, LoraFile] = {}
    rest = []
    for file in files:
        place = file.said.step if has_steps else file.said.epoch
        if not place or place in by_step:
            rest.append(file)
        else:
            by_step[place] = file
    for file in rest:
        by_step[max(by_step, default=0) + 1] = file
    ordered = dict(sorted(by_step.items()))
    guessed = tuple(file.name for file in rest)
    return Series(home, name, ordered, {step: file.said.epoch for step, file in ordered.items()}, guessed)
