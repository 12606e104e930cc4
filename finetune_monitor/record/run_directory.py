"""The run directory: its file names and its lock."""

import errno
import logging
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from weakref import WeakValueDictionary

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import open_own
from finetune_monitor.base.json_files import read_object
from finetune_monitor.base.locks import is_kept, try_lock, unlock
from finetune_monitor.base.paths import links_in
from finetune_monitor.base.text import counted
from finetune_monitor.record.sweep_directory import TRIALS, is_sweep

CONFIG, RUN, EVALUATIONS, IMAGES = "config.yaml", "run.json", "evaluations.jsonl", "images.jsonl"
PHOTOS, CONTACT_SHEET = "photos.json", "contact_sheet.jpg"
TRAINING, FULL_QUALITY = "training.jsonl", "full_quality.jsonl"
LOCK = ".lock"
CONTROL, IN_PROGRESS, STATUS, REQUESTS = "control", "in_progress", "status.json", "requests.jsonl"

LOOK, LONGEST_LOOK = 0.01, 10.0
"""How often to try, and for how long at most, while somebody only looks whether the lock is held; in seconds."""

logger = logging.getLogger(__name__)

_held: WeakValueDictionary[tuple[int, int, int], IO[str]] = WeakValueDictionary()
"""The locks that were acquired, by process, device, and inode."""

OURS = (
    *("images", "references", "checkpoints", "candidates", "weights", "best", "last", "page", "configs", "logs"),
    *(CONTROL, IN_PROGRESS),
)
"""Folders of a run or a sweep in which everything was written by us, so that a link there was planted."""

SHARED = (LOCK, REQUESTS, "tensorboard", "wandb", "trials", ".ray")
"""Others, in which links may have a meaning, but which are none themselves."""


def read_json(path: Path) -> dict[str, Any]:
    """The content of `run.json`.

    Raises:
        UserError: the file is missing, cannot be read, or does not hold a JSON object.
    """
    if not os.path.lexists(path) and (found := _held_instead(path.parent)):
        raise UserError(f"{path.parent}: {found}")
    return read_object(path, "a run directory")


def _held_instead(folder: Path) -> str:
    """What a folder holds instead of a run, and what to do; empty if nothing is known of it."""
    if is_sweep(folder):
        page = f"finetune-monitor report {shlex.quote(str(folder))} -o FOLDER"
        return f"is a sweep, expected a run; name one of its runs, in {folder / TRIALS}, or see all of them: {page}"
    if runs := sorted(found.parent for found in folder.glob(f"*/{RUN}")):
        return f"holds {counted(len(runs), 'run')}, expected a run directory; name one of them, such as {runs[0]}"
    return ""


def check_no_sweep(output_dir: Path) -> None:
    """Check that a run may begin in a directory, which a sweep would then no longer accept as its own.

    Raises:
        UserError: it holds a sweep.
    """
    if is_sweep(output_dir):
        raise UserError(f"{output_dir}: holds a sweep, expected an empty directory; choose another output_dir")


@contextmanager
def taking(output_dir: Path) -> Iterator[None]:
    """Create and lock a directory in this block.

    Raises:
        UserError: it cannot be written to.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{output_dir}: cannot write to it ({error.strerror}); choose another output_dir") from error


def lock(output_dir: Path, takes_over: bool = False) -> IO[str]:
    """Acquire the directory's kernel lock, which is released when its holder exits, however that happens.

    Args:
        takes_over: take a lock that this process holds, with a warning, as when a notebook's cell is run again.

    Raises:
        UserError: another process holds it, or the directory has links through which other places would be written.
    """
    check_places(output_dir)
    try:
        file = open_own(output_dir / LOCK)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO):
            raise
        raise UserError(f"{output_dir / LOCK}: {error.strerror}; expected a lock of ours; remove it") from error
    key = _key(file.fileno())
    if takes_over and (mine := _held.get(key)) is not None and not mine.closed:
        logger.warning("%s: an earlier monitor in this process was not closed; this one takes over", output_dir)
        unlock(mine)
    if not _soon_locked(file):
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise UserError(
            f"{output_dir}: in use by the run with PID {holder}; wait for it, stop it, or choose another output_dir"
        )
    _held[key] = file
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _soon_locked(file: IO[str]) -> bool:
    """Acquire the lock, although whoever looks whether it is held (`is_locked`) shares it for a moment."""
    latest = time.monotonic() + LONGEST_LOOK
    while not (is_acquired := try_lock(file)) and not is_kept(file) and time.monotonic() < latest:
        time.sleep(LOOK)
    return is_acquired


def is_held_here(output_dir: Path) -> bool:
    """Whether this process holds the directory's lock."""
    try:
        held = _held.get(_key(output_dir / LOCK))
    except OSError:
        return False
    return held is not None and not held.closed


def _key(file: int | Path) -> tuple[int, int, int]:
    found = os.stat(file)
    return os.getpid(), found.st_dev, found.st_ino


def check_places(output_dir: Path) -> None:
    """Check that what is written or deleted in a directory stays there, and that our folders can be used.

    Raises:
        UserError: a folder of ours is a link or holds one, or is a file.
    """
    planted = [output_dir / name for name in (*OURS, *SHARED) if (output_dir / name).is_symlink()]
    planted += [path for path in (output_dir / "trials").glob("*") if path.is_symlink()]
    for name in OURS if not planted else ():
        planted += links_in(output_dir / name)
    if planted:
        raise UserError(
            f"{planted[0]}: found a link, expected a file or folder of the run itself, because what is written or "
            "deleted there would be elsewhere; remove it, or choose an output_dir at its target"
        )
    for path in (output_dir / name for name in OURS):
        if path.exists() and not path.is_dir():
            raise UserError(f"{path}: found a file, expected a folder of the run; move it away")
