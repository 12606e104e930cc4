"""One answer as stored in a file, and why it may not be a rating."""

import re
import reprlib
import unicodedata
from collections.abc import Collection
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from finetune_monitor.metrics.thresholds import HIGHEST, LOWEST
from finetune_monitor.studies.labeling.ratings import Rating
from finetune_monitor.studies.rating_problems import Problem, ProblemKind

WHOLE = re.compile(r"[+-]?[0-9]+(?:\.0*)?")
"""`4`, `4.` and `4.0`."""

EXPECTED_LABEL = f"a whole number from {LOWEST} to {HIGHEST}"

MILLISECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]*)?")

SECOND_FRACTION = re.compile(r"(?<=:[0-9]{2})\.([0-9]+)")


class RatingRow(NamedTuple):
    """One answer as text, not checked yet; empty fields are missing from the file."""

    where: str
    image_id: str
    labeler: str
    metric: str
    label: str
    timestamp: str = ""
    duration_ms: str = ""


def is_label(text: str) -> bool:
    return WHOLE.fullmatch(text) is not None and LOWEST <= float(text) <= HIGHEST


def checked(row: RatingRow, file: Path, known: Collection[str] | None) -> Rating | Problem:
    """The rating in a row, or the reason why it is invalid; an unreadable time counts as unknown.

    Systems store a letter such as ë as one character or as two; a labeler is the same person in both.
    """
    if misfit := _misfit(row, known):
        kind, detail = misfit
        return Problem(kind, row.where, detail, file)
    labeler, label = unicodedata.normalize("NFC", row.labeler), int(float(row.label))
    return Rating(row.image_id, labeler, row.metric, label, _timestamp(row.timestamp), _milliseconds(row.duration_ms))


def moment(timestamp: str) -> datetime | None:
    """An ISO 8601 time in UTC, interpreted as UTC if it has no zone; None if it is not a time."""
    text = timestamp[:-1] + "+00:00" if timestamp.endswith(("Z", "z")) else timestamp
    try:  # Python 3.10 supports neither Z nor decimals other than three or six
        found = datetime.fromisoformat(SECOND_FRACTION.sub(lambda found: f".{found[1][:6]:0<6}", text))
        return found.replace(tzinfo=timezone.utc) if found.tzinfo is None else found.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def _misfit(row: RatingRow, known: Collection[str] | None) -> tuple[ProblemKind, str] | None:
    if not row.labeler:
        return ProblemKind.NO_LABELER, "found no labeler"
    if not row.image_id:
        return ProblemKind.BAD_ROW, "found no image"
    if not row.metric:
        return ProblemKind.BAD_ROW, "found no metric"
    if not WHOLE.fullmatch(row.label):
        return ProblemKind.UNKNOWN_LABEL, f"found the label {reprlib.repr(row.label)}, expected {EXPECTED_LABEL}"
    if not LOWEST <= float(row.label) <= HIGHEST:
        return ProblemKind.OUT_OF_RANGE, f"found the label {reprlib.repr(row.label)}, expected {EXPECTED_LABEL}"
    if known is not None and row.image_id not in known:
        return (
            ProblemKind.UNKNOWN_IMAGE,
            f"found the image {reprlib.repr(row.image_id)}, which is not one of the known images",
        )
    return None


def _timestamp(text: str) -> str:
    found = moment(text)
    if found is None:
        return ""
    return text if text.endswith(("Z", "+00:00")) else found.isoformat()


def _milliseconds(text: str) -> int | None:
    return round(float(text)) if MILLISECONDS.fullmatch(text) else None
