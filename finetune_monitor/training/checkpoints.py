"""Checkpoints: everything needed to resume, in safetensors and JSON, written completely or not at all."""

import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import staged_folder
from finetune_monitor.base.redaction import redacted
from finetune_monitor.training.manifest import folder_name, read_manifest, write_manifest
from finetune_monitor.training.trainable import Trainable

logger = logging.getLogger(__name__)

WEIGHTS, OPTIMIZER, AVERAGE = "weights.safetensors", "optimizer.safetensors", "ema.safetensors"
CONFIGURED = frozenset({"params", "lr", "initial_lr", "weight_decay"})
"""Values of a parameter group that come from the config, even in a resumed run."""
_NAME = re.compile(r"step-([0-9]+)")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on disk.

    identity: the settings that must not change when a run is resumed.
    scaler: the state of the fp16 gradient scaler; empty without one.
    ema_steps: the number of updates in the moving average.
    optimizer: the plain numbers in the optimizer's state; its tensors are in a file.
    """

    folder: Path
    step: int
    identity: Mapping[str, Any]
    scaler: Mapping[str, Any]
    ema_steps: int
    optimizer: Mapping[str, Any]


def save(
    folder: Path,
    step: int,
    trainable: Trainable,
    optimizer: Optimizer,
    identity: Mapping[str, Any],
    scaler: Mapping[str, Any],
    keep: int,
) -> None:
    """Write `folder/step-…`, then delete all but the newest `keep` checkpoints."""
    state, numbers = _optimizer_content(optimizer)
    tensors: dict[str, Mapping[str, Tensor]] = {WEIGHTS: dict(trainable.parameters), OPTIMIZER: state}
    if trainable.ema is not None:
        tensors[AVERAGE] = dict(zip(trainable.parameters, trainable.ema.shadow_params, strict=True))
    content = {
        "step": step,
        "identity": redacted(identity),
        "scaler": dict(scaler),
        "ema_steps": trainable.ema.optimization_step if trainable.ema is not None else 0,
        "optimizer": numbers,
    }
    with staged_folder(folder / folder_name(step)) as staged:
        for name, found in tensors.items():
            save_file({key: _as_filed(value) for key, value in found.items()}, staged / name)
        write_manifest(staged, content)
    for old in _folders(folder)[keep:]:
        shutil.rmtree(old)


def find(folder: Path, resume: str) -> Checkpoint | None:
    """The checkpoint to resume from: the latest complete one for `auto`, none for `never`, otherwise the one at that
    path.

    Raises:
        UserError: the named checkpoint is missing, damaged, or from another run; there are checkpoints, but none is
            complete; or there are checkpoints although resuming is set to `never`.
    """
    if resume == "never":
        if found := _folders(folder):
            raise UserError(f"{folder}: holds {found[0].name}, but train.resume is never; choose a new output_dir")
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
            logger.warning("%s; trying the previous one", error)
            problems.append(str(error))
    if problems:
        raise UserError(
            f"{folder}: no checkpoint is complete ({len(problems)} tried); restore one, or set train.resume=never "
            "and choose a new output_dir"
        )
    return None


def read(folder: Path) -> Checkpoint:
    """A checkpoint, after checking its manifest and every file.

    Raises:
        UserError: it is missing or has another format, or something in it differs from what was written.
    """
    return Checkpoint(folder, **read_manifest(folder, (WEIGHTS, OPTIMIZER)))


def check_identity(checkpoint: Checkpoint, identity: Mapping[str, Any]) -> None:
    """Check that a resumed run has the same model and the same trained layers.

    Raises:
        UserError: names each setting with both values.
    """
    changed = [
        f"{key}: {checkpoint.identity[key]!r} in the checkpoint, {value!r} in the config"
        for key, value in redacted(identity).items()
        if checkpoint.identity.get(key, value) != value  # earlier versions did not know every key
    ]
    if changed:
        raise UserError(
            f"{checkpoint.folder}: cannot resume with different settings; restore them or choose a new output_dir\n  "
            + "\n  ".join(changed)
        )


def restore(checkpoint: Checkpoint, trainable: Trainable, optimizer: Optimizer) -> None:
    """Load weights, optimizer state, and the moving average in place.

    Raises:
        UserError: a file cannot be read, or holds other layers than the model.
    """
    shapes = {name: parameter.shape for name, parameter in trainable.parameters.items()}
    weights = _loaded(checkpoint.folder / WEIGHTS, shapes)
    state = _loaded(checkpoint.folder / OPTIMIZER)
    shadow = _loaded(checkpoint.folder / AVERAGE, shapes) if trainable.ema is not None else {}
    with torch.no_grad():
        for name, parameter in trainable.parameters.items():
            parameter.copy_(weights[name])
    _restore_optimizer(optimizer, state, checkpoint.optimizer)
    if trainable.ema is not None:
        for name, average in zip(trainable.parameters, trainable.ema.shadow_params, strict=True):
            average.copy_(shadow[name])
        trainable.ema.optimization_step = checkpoint.ema_steps


def _loaded(path: Path, shapes: Mapping[str, torch.Size] | None = None) -> dict[str, Tensor]:
    """The tensors in a file, which must have these names and shapes."""
    try:
        found: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it, or resume from another checkpoint") from error
    if shapes is not None and {name: tensor.shape for name, tensor in found.items()} != shapes:
        raise UserError(
            f"{path}: its layers differ from those of the model; resume with the versions that wrote it (run.json "
            "lists them), or choose a new output_dir"
        )
    return found


def drop_after(folder: Path, step: int) -> None:
    """Remove the checkpoints of steps that the run is about to repeat: they would take precedence over its own."""
    for path in _folders(folder):
        if int(path.name.removeprefix("step-")) > step:
            logger.warning("%s: removed because the run resumes from step %d", path, step)
            shutil.rmtree(path)


def _as_filed(tensor: Tensor) -> Tensor:
    """A contiguous copy for a file; some optimizers share a tensor between parameters, which files do not support."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def _optimizer_content(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and plain numbers in the optimizer's state and groups, by dotted path."""
    groups = {str(i): _written(group, optimizer.defaults) for i, group in enumerate(optimizer.param_groups)}
    leaves = dict(_leaves({"state": optimizer.state_dict()["state"], "groups": groups}))
    tensors = {path: leaf for path, leaf in leaves.items() if isinstance(leaf, Tensor)}
    return tensors, {path: leaf for path, leaf in leaves.items() if path not in tensors}


def _written(group: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values that the optimizer keeps in a group, such as Prodigy's step size; others come from the config."""
    return {
        key: value
        for key, value in group.items()
        if key not in CONFIGURED and (isinstance(value, Tensor) or key not in defaults or value != defaults[key])
    }


def _leaves(node: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Restore the state; each tensor gets its parameter's memory layout, which fused kernels expect and files lack."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    groups = optimizer.state_dict()["param_groups"]
    for path, value in {**tensors, **numbers}.items():
        kind, index, *parents, key = path.split(".")
        entry = groups[int(index)] if kind == "groups" else state.setdefault(int(index), {})
        for parent in parents:
            entry = entry.setdefault(parent, {})
        entry[key] = _laid_out_as(parameters[int(index)], value) if kind == "state" else value
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _laid_out_as(parameter: Tensor, value: Any) -> Any:
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _folders(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first; leftovers of an interrupted write do not match the name."""
    found = [(int(match[1]), path) for path in folder.glob("step-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]
