"""Checkpoints: what resuming needs, in safetensors and JSON, whole or not at all."""

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from finetune_monitor.errors import UserError
from finetune_monitor.files import sha256, staged_folder
from finetune_monitor.training.models import Trainable

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = 1
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on disk.

    identity: the settings that must not change between a run and its continuation.
    scaler: state of the fp16 gradient scaler, empty without one.
    ema_steps: updates that the average has seen.
    """

    folder: Path
    step: int
    identity: Mapping[str, Any]
    scaler: Mapping[str, Any]
    ema_steps: int


def save(
    folder: Path,
    step: int,
    trainable: Trainable,
    optimizer: Optimizer,
    identity: Mapping[str, Any],
    scaler: Mapping[str, Any],
    keep: int,
) -> None:
    """Write `folder/step-…`, then prune to the newest `keep`."""
    tensors: dict[str, Mapping[str, Tensor]] = {
        "weights": dict(trainable.parameters),
        "optimizer": _optimizer_tensors(optimizer),
    }
    if trainable.ema is not None:
        names = trainable.parameters
        tensors["ema"] = dict(zip(names, trainable.ema.shadow_params, strict=True))
    with staged_folder(folder / f"step-{step:06d}") as staged:
        for name, content in tensors.items():
            save_file({k: v.detach().cpu().contiguous() for k, v in content.items()}, staged / f"{name}.safetensors")
        manifest = {
            "format": FORMAT,
            "step": step,
            "identity": dict(identity),
            "scaler": dict(scaler),
            "ema_steps": trainable.ema.optimization_step if trainable.ema is not None else 0,
            "sha256": {path.name: sha256(path) for path in sorted(staged.iterdir())},
        }
        (staged / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    for old in _folders(folder)[keep:]:
        shutil.rmtree(old)


def find(folder: Path, resume: str) -> Checkpoint | None:
    """The checkpoint to go on from: the newest whole one for `auto`, none for `never`, else the one at that path.

    Raises:
        UserError: a named checkpoint is missing, damaged or of another run; checkpoints are there and none is whole;
            or there are some and `never` would begin beside them.
    """
    if resume == "never":
        if found := _folders(folder):
            raise UserError(f"{folder}: holds {found[0].name}, and train.resume is never; choose a new output_dir")
        return None
    if resume != "auto":
        if Path(resume).resolve().parent != folder.resolve():
            raise UserError(f"train.resume: found {resume}, expected auto, never or a checkpoint in {folder}")
        return read(Path(resume))
    problems = []
    for candidate in _folders(folder):
        try:
            return read(candidate)
        except UserError as error:
            logger.warning("%s; trying the one before", error)
            problems.append(str(error))
    if problems:
        raise UserError(
            f"{folder}: no checkpoint is whole ({len(problems)} tried); restore one, or set train.resume=never "
            "and choose a new output_dir"
        )
    return None


def read(folder: Path) -> Checkpoint:
    """Check a checkpoint against its manifest.

    Raises:
        UserError: it is missing, of another format, or a file differs from what was written.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        hashes = manifest["sha256"]
        if manifest["format"] != FORMAT:
            raise UserError(f"{folder}: checkpoint format {manifest['format']}, expected {FORMAT}")
        checkpoint = Checkpoint(folder, **{key: manifest[key] for key in ("step", "identity", "scaler", "ema_steps")})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: not a whole checkpoint ({error}); expected {MANIFEST} and its files") from error
    for name, expected in hashes.items():
        path = folder / Path(name).name
        if not path.is_file() or sha256(path) != expected:
            raise UserError(f"{path}: missing or damaged (its sha256 differs from the manifest's)")
    return checkpoint


def check_identity(checkpoint: Checkpoint, identity: Mapping[str, Any]) -> None:
    """Refuse to go on with another model or other trained layers.

    Raises:
        UserError: names each setting with both values.
    """
    changed = [
        f"{key}: {checkpoint.identity.get(key)!r} in the checkpoint, {value!r} in the config"
        for key, value in identity.items()
        if checkpoint.identity.get(key) != value
    ]
    if changed:
        raise UserError(
            f"{checkpoint.folder}: cannot go on with other settings; restore them or choose a new output_dir\n  "
            + "\n  ".join(changed)
        )


def restore(checkpoint: Checkpoint, trainable: Trainable, optimizer: Optimizer) -> None:
    """Load weights, optimiser state and the average in place."""
    weights = load_file(checkpoint.folder / "weights.safetensors")
    with torch.no_grad():
        for name, parameter in trainable.parameters.items():
            parameter.copy_(weights[name])
    optimizer.load_state_dict(
        {
            "state": _optimizer_state(load_file(checkpoint.folder / "optimizer.safetensors")),
            "param_groups": optimizer.state_dict()["param_groups"],
        }
    )
    if trainable.ema is not None:
        shadow = load_file(checkpoint.folder / "ema.safetensors")
        for name, average in zip(trainable.parameters, trainable.ema.shadow_params, strict=True):
            average.copy_(shadow[name])
        trainable.ema.optimization_step = checkpoint.ema_steps


def drop_after(folder: Path, step: int) -> None:
    """Remove the checkpoints of steps that the run is about to repeat: they would win over its own."""
    for path in _folders(folder):
        if int(path.name.removeprefix("step-")) > step:
            logger.warning("%s: removed, the run goes on from step %d", path, step)
            shutil.rmtree(path)


def _optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}


def _optimizer_state(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    return state


def _folders(folder: Path) -> list[Path]:
    """Checkpoints by step, newest first; litter of an interrupted write does not match the name."""
    found = [(int(match[1]), path) for path in folder.glob("step-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]
