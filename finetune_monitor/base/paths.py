"""Paths that a user or a file names: their home folder, names that no file can have, and where they may lead."""

import os
from collections.abc import Iterator
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


def check_folder(folder: Path, expected: str) -> None:
    """Check that a folder is there.

    Raises:
        UserError: there is nothing, or a file.
    """
    if not folder.is_dir():
        found = "found a file" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {found}; expected {expected}")


def as_typed(path: Path) -> Path:
    """An absolute path as it would be typed in the working directory: relative if it is below."""
    here = Path.cwd()
    return path.relative_to(here) if here in path.parents else path


def _unfit(path: Path) -> str:
    """Why no file can have this path; "" if one can."""
    if "\0" in str(path):
        return "found a NUL character"
    if len(os.fsencode(path)) > LONGEST_PATH or any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
        return f"too long: found a name over {LONGEST_NAME} bytes, or a path over {LONGEST_PATH}"
    return ""


class Containment:
    """Where the names in a record, a sweep or an export lead: to a place inside its folder, or nowhere.

    The folder itself may be reached by links. Inside it, a link leads out, wherever it points, and so do `..` and
    absolute names.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._plain: dict[Path, bool] = {}

    def path(self, name: object) -> Path | None:
        """The path of what a record names, which may not exist; None if it is outside, or not a name."""
        if not isinstance(name, str) or not name or "\0" in name:
            return None
        inner = Path(name)
        if inner.is_absolute() or ".." in inner.parts:
            return None
        path = self._folder / inner
        return path if path == self._folder or (self._is_plain(path.parent) and not os.path.islink(path)) else None

    def _is_plain(self, folder: Path) -> bool:
        """Whether a folder is reached without links; looked up once."""
        if folder == self._folder:
            return True
        if folder not in self._plain:
            self._plain[folder] = not os.path.islink(folder) and self._is_plain(folder.parent)
        return self._plain[folder]


def links_in(folder: Path) -> Iterator[Path]:
    """The links anywhere in a folder; they are not followed."""
    for root, folders, files in os.walk(folder):
        yield from (Path(root, name) for name in (*folders, *files) if os.path.islink(os.path.join(root, name)))
