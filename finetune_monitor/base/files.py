"""Nothing half written: stage, fsync, rename."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from finetune_monitor.base.errors import UserError

STAGING = ".staging-"
"""Prefix of what is being written; whatever carries it after a crash is litter."""


def fsync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: bytes) -> None:
    """Replace `path` as a whole: a reader, or a crash, sees the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(STAGING + path.name)
    try:
        staged.write_bytes(content)
        fsync(staged)
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def claim(folder: Path, names: Sequence[str]) -> None:
    """Make a folder for results, and see that no file of these names in it would be overwritten.

    Raises:
        UserError: one is there, or the folder cannot be made.
    """
    for name in names:
        if (folder / name).exists():
            raise UserError(f"{folder}: found {name}, which would be overwritten; name another folder, or move it away")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); expected a folder for the results") from error


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield a folder to fill; it takes the place of `target` when the block ends well, and vanishes otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staged, old = (target.with_name(prefix + target.name) for prefix in (STAGING, STAGING + "old-"))
    for litter in (staged, old):
        shutil.rmtree(litter, ignore_errors=True)
    staged.mkdir()
    try:
        yield staged
        for path in (*staged.rglob("*"), staged):
            fsync(path)
        if target.exists():
            target.rename(old)
        staged.rename(target)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    fsync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
