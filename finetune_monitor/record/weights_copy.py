"""Copy the weights of a step out of a run directory, in the format that a tool reads."""

import shutil
from pathlib import Path

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import staged_folder, write_named
from finetune_monitor.record.history import RunHistory, read_run
from finetune_monitor.record.kept_weights import (
    BEST,
    CARD,
    DIFFUSERS,
    KOHYA,
    LAST,
    LORA_FILE,
    NOTE,
    SAMPLES,
    KeptWeights,
    kept_weights,
    weights_at,
)

FILE_ENDING = ".safetensors"

OTHER_ENDINGS = (".bin", ".ckpt", ".gguf", ".onnx", ".pkl", ".pt", ".pth", ".sft", ".zip")
"""Endings of files with weights that no folder should have."""


def chosen_weights(run_dir: Path, step: int | str) -> KeptWeights:
    """The weights of a step, or of the `best` or the `last` one.

    Raises:
        UserError: it is no run directory, no step is the best, or the step's weights were not kept.
    """
    history = read_run(run_dir)
    kept = kept_weights(run_dir)
    if step == LAST and kept:
        return kept[max(kept)]
    number = _best_step(history) if step == BEST else step
    if number == 0:
        model = f" ({history.model})" if history.model else ""
        raise UserError(f"{run_dir}: step 0 is the base model{model}, of which a run has no copy; choose another step")
    return weights_at(run_dir, 0 if number == LAST else int(number), kept)


def _best_step(history: RunHistory) -> int:
    found = history.best_step
    if found:
        return found
    why = f"no step is better than the base model by {history.best_metric}" if found == 0 else "nothing was measured"
    raise UserError(f"{history.output_dir}: has no best step, because {why}; choose one with --step")


def copy_weights(found: KeptWeights, run_dir: Path, target: Path, wanted: str | None = None) -> str:
    """Write the weights to a file or a folder that does not exist yet.

    Args:
        target: a file `*.safetensors`, or a folder, which gets the file that diffusers loads, or the pipeline.
        wanted: the format; None chooses by the target: kohya's for a file, diffusers' for a folder or for a file that
            has diffusers' name.

    Returns:
        The format.

    Raises:
        UserError: the target has the ending of another kind of file, it exists or cannot be written, or the weights do
            not exist in this format.
    """
    is_file = target.suffix.lower() == FILE_ENDING
    _check_ending(target)
    chosen = wanted or _format_of(target, found)
    _check_target(target, run_dir, found.step)
    _check_format(found, target, chosen, is_file)
    try:
        if is_file:
            source = found.kohya_file if chosen == KOHYA else found.place
            assert source is not None
            write_named(target, source.read_bytes())
        else:
            _copy_folder(found, target)
    except OSError as error:
        raise UserError(f"{target}: cannot write it ({error.strerror}); choose another place") from error
    return chosen


def _check_ending(target: Path) -> None:
    if target.suffix.lower() in OTHER_ENDINGS:
        raise UserError(
            f"{target}: found the ending of a kind of file that is not written, expected a file *{FILE_ENDING} or a "
            "folder; choose another name"
        )


def _format_of(target: Path, found: KeptWeights) -> str:
    is_for_others = target.suffix.lower() == FILE_ENDING and target.name != LORA_FILE and found.kohya_file is not None
    return KOHYA if is_for_others else DIFFUSERS


def _check_target(target: Path, run_dir: Path, step: int) -> None:
    try:
        exists, is_folder = target.exists() or target.is_symlink(), target.is_dir()
    except OSError as error:
        raise UserError(f"{target}: cannot read it ({error.strerror}); choose another place") from error
    if is_folder:
        inside = target / f"{run_dir.resolve().name}-step-{step}{FILE_ENDING}"
        raise UserError(f"{target}: is a folder that exists; name a new file or folder in it, such as {inside}")
    if exists:
        raise UserError(f"{target}: exists, and would be overwritten; choose another name or move it")
    if target.resolve().is_relative_to(run_dir.resolve()):
        raise UserError(f"{target}: is in the run directory, where the run may delete it; choose another place")


def _check_format(found: KeptWeights, target: Path, chosen: str, is_file: bool) -> None:
    if not found.is_lora and (chosen == KOHYA or is_file):
        raise UserError(
            f"{found.folder}: is a complete pipeline, not a LoRA; expected --format {DIFFUSERS} and a folder for it"
        )
    if chosen == KOHYA and not is_file:
        raise UserError(f"{target}: found a folder for kohya's format, expected a file; add {FILE_ENDING}")
    if chosen == KOHYA and found.kohya_file is None:
        raise UserError(
            f"{found.folder}: has no file in kohya's format, whose names are not known for this kind of model; choose "
            f"--format {DIFFUSERS}"
        )


def _copy_folder(found: KeptWeights, target: Path) -> None:
    """Copy the LoRA file, or the pipeline, and the note beside it."""
    with staged_folder(target) as staged:
        if found.is_lora:
            for name in (LORA_FILE, NOTE):
                shutil.copy2(found.folder / name, staged)
        else:
            others = shutil.ignore_patterns(CARD, SAMPLES)
            shutil.copytree(found.folder, staged, ignore=others, dirs_exist_ok=True)
