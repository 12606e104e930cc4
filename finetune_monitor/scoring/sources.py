"""What the given paths hold: images, LoRA files, or a base model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import SUFFIXES
from finetune_monitor.base.paths import user_path
from finetune_monitor.models.diffusers_hub import PIPELINE, is_hub_id, resolve_hub_model
from finetune_monitor.models.single_file import UNET, is_single_file, read_shapes
from finetune_monitor.scoring.images import image_files
from finetune_monitor.scoring.lora_files import PICKLED, SUFFIX, weight_files

NOWHERE = "no such file or folder; expected images, LoRA files, or a base model"


@dataclass(frozen=True)
class Sources:
    """The given paths by what they hold. `base`: of the LoRA files, or the one that is scored alone."""

    images: tuple[Path, ...]
    weights: tuple[Path, ...]
    base: str | None = None


def find_sources(
    paths: Sequence[Path], base: str | None, default: str | None = None, may_be_empty: bool = False
) -> Sources:
    """Look into every path.

    Args:
        base: the base model, if one is named; then a folder with both, or where files may appear, is one of LoRA files,
            and else one of images.
        default: the base model of LoRA files if none is named.
        may_be_empty: accept folders without either, in which files may appear.

    Raises:
        UserError: a path does not exist, or holds nothing that can be scored.
    """
    kinds = {path: _kind(path, base is not None, may_be_empty) for path in dict.fromkeys(map(user_path, paths))}
    models = [path for path, kind in kinds.items() if kind == "base"]
    if models and (base is not None or len(kinds) > 1):
        raise UserError(f"{models[0]}: {_among_others(models[0])}")
    images, weights = (tuple(path for path, kind in kinds.items() if kind == wanted) for wanted in ("image", "lora"))
    if weights and base is None and default is None:
        raise UserError(f"{weights[0]}: found LoRA files but no --base; name the base model that they are for")
    if models:
        _check_model(models[0])
        return Sources((), (), str(models[0]))
    return Sources(images, weights, base or default if weights else None)


def _among_others(path: Path) -> str:
    if path.exists():
        return "found a base model among other paths; name it only once, with --base"
    return NOWHERE


def _check_model(path: Path) -> None:
    """Check that a base model is available; a path that looks like a hub id may also be mistyped."""
    if path.is_file():
        return
    try:
        resolve_hub_model(path)
    except UserError as error:
        raise (
            error
            if path.exists()
            else UserError(f"{path}: no such file or folder, and not a base model either: {error}")
        ) from error


def _kind(path: Path, has_base: bool, may_be_empty: bool) -> str:
    if not path.exists():
        if is_hub_id(str(path)) and path.suffix.lower() not in (SUFFIX, *PICKLED, *SUFFIXES):
            return "base"
        raise UserError(f"{path}: {NOWHERE}")
    if not path.is_dir():
        return _kind_of_file(path)
    if (path / PIPELINE.marker).exists():
        return "base"
    has_weights, has_images = bool(weight_files(path)), bool(image_files(path))
    if has_base and (has_weights or may_be_empty):
        return "lora"
    if has_images or (may_be_empty and not has_weights):
        return "image"
    if has_weights:
        return "lora"
    raise UserError(_nothing_in(path))


def _kind_of_file(path: Path) -> str:
    if path.suffix.lower() in (SUFFIX, *PICKLED):
        return "base" if _is_model(path) else "lora"
    if path.suffix.lower() in SUFFIXES:
        raise UserError(f"{path}: found a single image, expected a folder of images; name its folder")
    raise UserError(f"{path}: not a LoRA file; expected one that ends in {SUFFIX}, or a folder")


def _is_model(file: Path) -> bool:
    """Whether a file holds a complete model; one that cannot be read is reported as what it was given as."""
    try:
        return is_single_file(file) and any(name.startswith(UNET) for name in read_shapes(file))
    except UserError:
        return False


def _nothing_in(folder: Path) -> str:
    names = sorted(found.name for found in folder.iterdir() if not found.name.startswith("."))
    held = f"found only {', '.join(names[:3])}" if names else "found nothing"
    pickled = any(Path(name).suffix.lower() in PICKLED for name in names)
    advice = f"pickles are never loaded: convert them to {SUFFIX}" if pickled else "check the path"
    return f"{folder}: {held}, expected images, or files that end in {SUFFIX}; {advice}"
