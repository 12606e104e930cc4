"""Match the image names in a table to files on disk."""

import os
import posixpath
import reprlib
from collections.abc import Sequence
from pathlib import Path

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import SUFFIXES
from finetune_monitor.base.paths import check_folder

IMAGE_COLUMNS = frozenset({"file", "filename", "image", "image_id", "name", "path"})


def without_suffix(name: str) -> str:
    """A name without its image suffix, if it has one: `1.jpg` and `1` become `1`; `v1.5` is unchanged."""
    stem, suffix = posixpath.splitext(name)
    return stem if suffix.lower() in SUFFIXES else name


def locate_images(names: Sequence[str], folder: str | Path) -> list[Path | None]:
    """The file for each name below a folder, or None if there is none. Hidden files and linked folders are skipped.

    A name is a path in the folder and may start with the folder's own name or path. Its image suffix may differ or be
    missing; if several files match, the first in alphabetical order is used.

    Raises:
        UserError: the folder is missing, or none of the names has a file.
    """
    folder = Path(folder)
    check_folder(folder, "the folder with the rated images")
    files = files_below(folder)
    exact = set(files)
    stems: dict[str, str] = {}
    for file in files:
        if (stem := without_suffix(file)) != file:
            stems.setdefault(stem, file)
    full = folder.resolve()
    prefixes = ("", "./", f"{full.name}/", f"{folder.as_posix()}/", f"{full.as_posix()}/")
    located = [_find(name, exact, stems, prefixes) for name in names]
    if names and not any(located):
        example = f"found {reprlib.repr(files[0])}" if files else "the folder has no files"
        raise UserError(
            f"{folder}: has none of the {len(names)} rated images; looked for {reprlib.repr(names[0])}, "
            f"{example}; pass the folder that the names are relative to"
        )
    return [folder / file if file else None for file in located]


def files_below(folder: Path) -> list[str]:
    """Paths relative to the folder, sorted."""
    files = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(root).relative_to(folder)
        prefix = "" if below == Path() else f"{below.as_posix()}/"
        files += [prefix + name for name in names if not name.startswith(".")]
    return sorted(files)


def _find(name: str, exact: set[str], stems: dict[str, str], prefixes: tuple[str, ...]) -> str | None:
    for prefix in prefixes:
        if name.startswith(prefix):
            path = name[len(prefix) :]
            found = path if path in exact else stems.get(path) or stems.get(without_suffix(path))
            if found:
                return found
    return None
