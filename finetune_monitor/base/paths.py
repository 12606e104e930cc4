"""Paths that a user or a file names: their home folder, and names that no file can have."""

import os
from pathlib import Path

from finetune_monitor.base.errors import UserError

LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes that Linux accepts."""


def user_path(path: str | Path) -> Path:
    """The path with a leading `~` expanded.

    Raises:
        UserError: `~` names nobody on this machine, or no file can have this name.
    """
    try:
        found = Path(path).expanduser()
    except RuntimeError:
        user = str(path).partition("/")[0]
        raise UserError(f"{path}: found no home folder for {user}; write the whole path") from None
    if why := _unfit(found):
        raise UserError(f"{path}: {why}; expected the path of a file or folder")
    return found


def _unfit(path: Path) -> str:
    """Why no file can have this path; "" if one can."""
    if "\0" in str(path):
        return "found a NUL character"
    if len(os.fsencode(path)) > LONGEST_PATH or any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
        return f"too long: found a name over {LONGEST_NAME} bytes, or a path over {LONGEST_PATH}"
    return ""
