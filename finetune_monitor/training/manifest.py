"""A checkpoint's manifest: its numbers, the SHA-256 of each file beside it, and that of itself."""

import hashlib
import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import read_regular, sha256

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT, UNHASHED = 3, 2
"""The format that is written, and the earlier one, whose manifest has no hash of itself."""

HASHES, OWN_HASH = "sha256", "manifest_sha256"
LARGEST = 50_000_000
"""Bytes of a manifest; the largest list a number for each parameter of a UNet."""

NUMBERS: Mapping[str, type] = {"step": int, "identity": dict, "scaler": dict, "ema_steps": int, "optimizer": dict}
"""What a manifest holds besides the format and the hashes."""


def write_manifest(folder: Path, numbers: Mapping[str, Any]) -> None:
    """Write the manifest of the files that are in the folder now; `numbers` has the keys `NUMBERS`."""
    hashes = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    content = {"format": FORMAT, **{key: numbers[key] for key in NUMBERS}, HASHES: hashes}
    (folder / MANIFEST).write_text(json.dumps({**content, OWN_HASH: _hash(content)}, indent=2) + "\n")


def read_manifest(folder: Path, required: Collection[str]) -> dict[str, Any]:
    """The numbers of a checkpoint, after checking its manifest, and every file against it.

    A manifest of the earlier format is accepted with a warning, as nothing can show whether it was altered.

    Args:
        required: the files without which there is no checkpoint.

    Raises:
        UserError: the checkpoint is missing or has another format; its manifest or a file is not what was written; its
            step is not that of its folder; or the folder has other files than the manifest.
    """
    content = _parsed(folder)
    if content["format"] not in (FORMAT, UNHASHED):
        raise UserError(
            f"{folder}: found checkpoint format {content['format']}, expected {FORMAT}; resume with the version that "
            "wrote it, or choose a new output_dir"
        )
    _check_itself(folder, content)
    if folder.name != folder_name(content["step"]):
        raise UserError(f"{folder}: holds step {content['step']}, expected {folder_name(content['step'])} as its name")
    _check_files(folder, content[HASHES], required)
    return {key: content[key] for key in NUMBERS}


def folder_name(step: int) -> str:
    """The name of the folder for the checkpoint of a step."""
    return f"step-{step:06d}"


def _parsed(folder: Path) -> dict[str, Any]:
    """The manifest, with every key that it needs and the right type under each."""
    types: Mapping[str, type] = {"format": int, **NUMBERS, HASHES: dict}
    try:
        content = json.loads(read_regular(folder / MANIFEST, LARGEST))
        wrong = [key for key, kind in types.items() if type(content[key]) is not kind]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{folder}: not a complete checkpoint ({error}); expected {MANIFEST} and its files") from error
    if wrong:
        raise UserError(f"{folder / MANIFEST}: damaged ({', '.join(wrong)} cannot be read); restore the checkpoint")
    return dict(content)


def _check_itself(folder: Path, content: Mapping[str, Any]) -> None:
    rest = {key: value for key, value in content.items() if key != OWN_HASH}
    if content["format"] == UNHASHED and OWN_HASH not in content:
        logger.warning(
            "%s: an earlier version wrote this checkpoint without a hash of its manifest; the weights are verified, "
            "the step and the settings are not",
            folder,
        )
    elif content.get(OWN_HASH) != _hash(rest):
        raise UserError(f"{folder / MANIFEST}: damaged (its sha256 differs from the one in it); restore the checkpoint")


def _check_files(folder: Path, hashes: Mapping[str, Any], required: Collection[str]) -> None:
    """Check that the folder holds exactly these files; hidden ones are the file system's own."""
    try:
        present = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {MANIFEST}
        found = {name: sha256(folder / name) for name in sorted(present & hashes.keys())}
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error}); restore the checkpoint") from error
    if unknown := sorted((present | set(required)) - hashes.keys()):
        raise UserError(f"{folder / unknown[0]}: not in the manifest, which lists every file; restore the checkpoint")
    if damaged := sorted(name for name, expected in hashes.items() if found.get(name) != expected):
        raise UserError(f"{folder / damaged[0]}: missing or damaged (its sha256 differs from the manifest's)")


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
