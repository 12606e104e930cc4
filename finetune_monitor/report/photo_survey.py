"""What a run found out about its training photos before it started: `photos.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_monitor.base.json_files import as_list, as_number, as_object, as_text, damage_named, read_object
from finetune_monitor.record.run_directory import PHOTOS


@dataclass(frozen=True)
class SurveyedPhoto:
    """One photo; `similarity` is to the other photos' faces, None if unknown; `marks` say what is wrong with it."""

    name: str
    similarity: float | None
    is_outlier: bool
    marks: tuple[str, ...]


@dataclass(frozen=True)
class PhotoSurvey:
    """All photos, and sentences on what to change."""

    photos: tuple[SurveyedPhoto, ...]
    warnings: tuple[str, ...]


def read_survey(run_dir: Path) -> PhotoSurvey | None:
    """The survey of a run; None if it has none.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    file = run_dir / PHOTOS
    if not file.exists():
        return None
    remedy = "delete it: training works without"
    with damage_named(file, remedy):
        found = read_object(file, "a run directory", remedy)
        photos = tuple(_photo(as_object(photo)) for photo in as_list(found["photos"]))
        return PhotoSurvey(photos, tuple(map(as_text, as_list(found.get("warnings", [])))))


def _photo(found: Mapping[str, Any]) -> SurveyedPhoto:
    similarity = found.get("similarity")
    return SurveyedPhoto(
        as_text(found["file"]),
        None if similarity is None else as_number(similarity),
        found.get("outlier") is True,
        tuple(map(as_text, as_list(found.get("warnings", [])))),
    )
