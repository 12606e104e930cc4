"""Temporary files in memory, which need not be flushed to a disk."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

MEMORY = Path("/dev/shm")

NEEDED = 8 * 2**30
"""Bytes; all tests together keep about one eighth of it at a time."""


def has_room() -> bool:
    """Whether there is such a file system, large enough, and programs can be started from it."""
    if not MEMORY.is_dir():
        return False
    found = os.statvfs(MEMORY)
    return found.f_bavail * found.f_frsize > NEEDED and not found.f_flag & os.ST_NOEXEC


def use() -> Callable[[], None]:
    """Let this process and those it starts keep temporary files there; returns what removes them all."""
    folder = tempfile.mkdtemp(prefix="tests-", dir=MEMORY)
    Path(folder).chmod(0o755)  # some tests become another user
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    return lambda: shutil.rmtree(folder, ignore_errors=True)
