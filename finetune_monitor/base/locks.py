"""Lock a file, also on file systems that have no locks."""

import errno
import fcntl
import logging
from functools import cache
from pathlib import Path
from typing import IO, Any

from finetune_monitor.base import files
from finetune_monitor.base.files import open_regular

logger = logging.getLogger(__name__)

UNSUPPORTED = files.UNSUPPORTED | {errno.ENOLCK}
"""The answers of file systems without locks, such as some network mounts."""


def try_lock(file: IO[Any]) -> bool:
    """Acquire a file's kernel lock without waiting; False if another process holds it.

    Where the file system has no locks, a warning says so once, and the answer is True.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        _say_unlocked(str(error.strerror))
    return True


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file, without keeping it; True where the file system has no locks.

    The lock is held for a moment if it is free, so `try_lock` of another process may fail then.
    """
    try:
        with open_regular(path) as file:
            return is_kept(file)
    except OSError as error:
        return error.errno in UNSUPPORTED


def is_kept(file: IO[Any]) -> bool:
    """Whether a process holds the lock of a file, and does not only look whether it is held, as this does."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def unlock(file: IO[Any]) -> None:
    """Release a lock, even if a process that was forked meanwhile still has the file open."""
    if not file.closed:
        try:
            fcntl.flock(file, fcntl.LOCK_UN)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
        file.close()


@cache
def _say_unlocked(answer: str) -> None:
    """Warn once in a process."""
    logger.warning(
        "the file system does not support locks (%s); make sure that no two processes write to the same folder", answer
    )
