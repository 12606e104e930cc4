"""Read a folder of photos as people have them: captions beside photos, metadata.jsonl, kohya's folders with repeats."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.images import list_images, passed_over
from finetune_monitor.base.paths import user_path
from finetune_monitor.base.text import some_of

METADATA, CAPTION = "metadata.jsonl", ".txt"

TEXT_KEYS = ("text", "caption", "prompt")
"""Keys of a line in metadata.jsonl that hold the caption; the first one found is used."""

_REPEATS = re.compile(r"([1-9][0-9]*)_(.*\S.*)")

_KOHYA = re.compile(r"[^_]*_.*")

LONGEST = 1_000_000
"""Bytes of a caption; a longer file is no caption."""


@dataclass(frozen=True)
class Photo:
    """A photo of the subject.

    caption: its own prompt; None if the instance prompt describes it.
    repeats: how often an epoch contains it.
    """

    path: Path
    caption: str | None = None
    repeats: int = 1


def read_photos(folder: str | Path) -> list[Photo]:
    """The photos in a folder, or in kohya's folders in it (`10_sks person`), sorted by name.

    A caption is the text beside a photo (`01.txt`), the text in metadata.jsonl, or the words of kohya's folder.

    Raises:
        UserError: the folder has no photos; or lists every caption without a photo, every line of metadata.jsonl that
            cannot be used, and every folder without a number of repeats.
    """
    folder = user_path(folder)
    parts = kohya_folders(folder)
    problems: list[str] = []
    if parts:
        found = [photo for part in parts for photo in _read_part(part, problems)]
    else:
        found = list(_read_one(folder, 1, None, problems))
    all_problems(problems, f"{folder}: {len(problems)} problems with captions or repeats:")
    return found


def list_photos(folder: str | Path) -> list[Path]:
    """The paths of the photos of `read_photos`, without reading captions.

    Raises:
        UserError: the folder has no photos.
    """
    parts = kohya_folders(user_path(folder)) or [Path(folder)]
    return [path for part in parts for path in list_images(part)]


def kohya_folders(folder: Path) -> list[Path]:
    """Folders of photos in a folder that has none itself, if their names are kohya's (`10_sks person`)."""
    if not folder.is_dir() or _has_photos(folder):
        return []
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    with_photos = [path for path in inner if _has_photos(path)]
    return with_photos if any(_KOHYA.fullmatch(path.name) for path in with_photos) else []


def without_captions(folder: str | Path) -> list[Photo]:
    """The photos in a folder, or in kohya's folders in it, once each and without captions.

    Raises:
        UserError: the folder has no photos.
    """
    return [Photo(path) for path in list_photos(folder)]


def passed_over_in(folder: Path) -> list[str]:
    """Sentences that name what is neither a photo nor a caption, for each folder that has such files.

    Raises:
        UserError: the folder has no photos.
    """
    found = []
    for part in kohya_folders(folder) or [folder]:
        stems = {path.stem for path in list_images(part)}
        captions = {path.name for path in part.iterdir() if path.suffix.lower() == CAPTION and path.stem in stems}
        found.append(passed_over(part, {METADATA, *captions}))
    return [sentence for sentence in found if sentence]


def _has_photos(folder: Path) -> bool:
    try:
        return bool(list_images(folder))
    except UserError:
        return False


def _read_part(folder: Path, problems: list[str]) -> Iterator[Photo]:
    """The photos of one of kohya's folders."""
    match = _REPEATS.fullmatch(folder.name)
    if match is None:
        found = folder.name.partition("_")[0] if "_" in folder.name else folder.name
        problems.append(
            f"{folder}: found {found!r}, expected a number of repeats and a prompt, as in '10_sks person'; rename it"
        )
        return
    yield from _read_one(folder, int(match[1]), match[2].strip(), problems)


def _read_one(folder: Path, repeats: int, words: str | None, problems: list[str]) -> Iterator[Photo]:
    paths = list_images(folder)
    captions = {**_beside(folder, paths, problems)}
    for path, text in _in_metadata(folder, paths, problems).items():
        if captions.setdefault(path, text) != text:
            problems.append(
                f"{path}: has one caption beside it and another one in {METADATA}; keep only one of the two"
            )
    yield from (Photo(path, captions.get(path, words), repeats) for path in paths)


def _beside(folder: Path, paths: Sequence[Path], problems: list[str]) -> dict[Path, str]:
    """The captions in text files named like a photo; without any such file, other text files are no captions."""
    texts = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() == CAPTION and _is_file(path)}
    matching = [path for path in paths if path.stem in texts]
    if not matching:
        return {}
    for stem in sorted(texts.keys() - {path.stem for path in matching}):
        problems.append(f"{texts[stem]}: a caption without a photo; add the photo {stem}.*, or remove the caption")
    found = {path: _read_caption(texts[path.stem], problems) for path in matching}
    return {path: text for path, text in found.items() if text}


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _read_caption(path: Path, problems: list[str]) -> str:
    """The words of a caption; empty if there are none."""
    try:
        if path.stat().st_size > LONGEST:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        return " ".join(path.read_text("utf-8-sig").split())
    except (OSError, ValueError) as error:
        problems.append(f"{path}: cannot be read as a caption ({error}); save it as a short text in UTF-8")
        return ""


def _in_metadata(folder: Path, paths: Sequence[Path], problems: list[str]) -> dict[Path, str]:
    """The captions in metadata.jsonl, as in an image folder of Hugging Face's datasets."""
    file = folder / METADATA
    if not file.is_file():
        return {}
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        problems.append(f"{file}: cannot be read ({error}); save it as text in UTF-8")
        return {}
    names, found = {path.name: path for path in paths}, {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                path, text = _entry(line, names)
                found[path] = text
            except ValueError as error:
                problems.append(f"{file}: line {number}: {error}")
    return found


def _entry(line: str, names: Mapping[str, Path]) -> tuple[Path, str]:
    """One line: its photo and caption."""
    try:
        content: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f'found no JSON ({error}), expected an object such as {{"file_name": "01.jpg", "text": "..."}}'
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"found a {type(content).__name__}, expected an object with file_name and text")
    name = content.get("file_name")
    if not isinstance(name, str) or name not in names:
        raise ValueError(f"file_name is {name!r}, and there is no such photo; add the photo or remove the line")
    text = next((content[key] for key in TEXT_KEYS if key in content), None)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"found {some_of(sorted(content), 5)}, expected a caption as text under {TEXT_KEYS[0]!r}")
    return names[name], " ".join(text.split())
