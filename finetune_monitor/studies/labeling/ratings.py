"""One rating by one labeler, and the long CSV format of ratings."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields

from finetune_monitor.base.csv_files import csv_text


@dataclass(frozen=True)
class Rating:
    """A row of the long CSV; a later rating of the same image, labeler and metric replaces an earlier one.

    label: 1 to 5.
    timestamp: when it was given, ISO 8601 in UTC; empty if unknown.
    duration_ms: from the image's appearance to the answer; None if unknown.
    """

    image_id: str
    labeler: str
    metric: str
    label: int
    timestamp: str = ""
    duration_ms: int | None = None


RATING_COLUMNS = tuple(field.name for field in fields(Rating))


def to_csv(ratings: Iterable[Rating]) -> str:
    """The long CSV, one row per rating, in the order given."""
    return csv_text(RATING_COLUMNS, map(astuple, ratings))
