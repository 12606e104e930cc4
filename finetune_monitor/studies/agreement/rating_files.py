"""Read people's ratings from several kinds of files, and report all problems with them together."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_monitor.base.csv_files import read_text
from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.studies.agreement.label_studio import read_label_studio
from finetune_monitor.studies.agreement.rating_csv import read_table
from finetune_monitor.studies.agreement.rating_rows import EXPECTED_LABEL, RatingRow, checked, moment
from finetune_monitor.studies.labeling.ratings import Rating
from finetune_monitor.studies.rating_problems import NOTES, Problem, ProblemKind, examples


@dataclass(frozen=True)
class Found:
    """The content of the files.

    ratings: every valid row in the order of time, or in the order of files and rows if any has no time.
    problems: rows that were left out, and notes on rows that were kept.
    """

    ratings: tuple[Rating, ...]
    problems: tuple[Problem, ...]


def read_rating_files(paths: Sequence[Path], metric: str | None = None, known: Collection[str] | None = None) -> Found:
    """The ratings in long and wide CSV and Label Studio's JSON; the format is detected from the content.

    metric: the question, if a table does not state it; and a new name for the only metric of a Label Studio file.
    known: the allowed images; None allows any.

    Raises:
        UserError: files cannot be read or are of a different kind, or more than half of the rows of a file, or all of
            them, are not usable; lists every such file.
    """
    allowed = None if known is None else frozenset(known)
    ratings: list[Rating] = []
    problems: list[Problem] = []
    refused = []
    first_seen: dict[str, tuple[Path, str]] = {}
    for path in paths:
        try:
            kept, found = _read_file(path, metric, allowed)
        except UserError as error:
            refused.append(str(error))
            continue
        for row, rating in kept:
            first_seen.setdefault(rating.labeler, (path, row.where))
            ratings.append(rating)
        problems += found
    _refuse(refused, len(paths))
    return Found(tuple(_by_time(ratings)), (*problems, *_similar_names(first_seen)))


def _read_file(
    path: Path, metric: str | None, known: Collection[str] | None
) -> tuple[list[tuple[RatingRow, Rating]], list[Problem]]:
    kept: list[tuple[RatingRow, Rating]] = []
    problems = []
    for row in _rows(path, metric, known):
        found = row if isinstance(row, Problem) else checked(row, path, known)
        if isinstance(found, Rating) and isinstance(row, RatingRow):
            kept.append((row, found))
        elif isinstance(found, Problem):
            problems.append(found)
    _refuse_mostly_bad(path, len(kept), [problem for problem in problems if problem.kind not in NOTES])
    return kept, [*problems, *_unreadable_times(path, kept)]


def _rows(path: Path, metric: str | None, known: Collection[str] | None) -> Iterator[RatingRow | Problem]:
    text, _ = read_text(path, "ratings as CSV or as Label Studio's JSON")
    if text.lstrip()[:1] in ("[", "{"):
        return read_label_studio(path, text, metric, known)
    return read_table(path, text, metric)


def _refuse_mostly_bad(path: Path, kept: int, bad: list[Problem]) -> None:
    if not kept and not bad:
        raise UserError(f"{path}: found no ratings; expected at least one")
    if len(bad) > kept:
        all_problems(
            examples(bad),
            f"{path}: {len(bad)} of {kept + len(bad)} ratings are not usable; expected an image, a labeler, and "
            f"{EXPECTED_LABEL} in each; the first are:",
        )


def _refuse(refused: list[str], files: int) -> None:
    if len(refused) == 1:
        raise UserError(refused[0])
    indented = [text.replace("\n", "\n  ") for text in refused]
    all_problems(indented, f"{len(refused)} of {files} rating files are not usable:")


def _unreadable_times(path: Path, kept: list[tuple[RatingRow, Rating]]) -> Iterator[Problem]:
    """One note per file and column, because such problems tend to repeat."""
    stamps = [(row, row.timestamp) for row, rating in kept if row.timestamp and not rating.timestamp]
    durations = [(row, row.duration_ms) for row, rating in kept if row.duration_ms and rating.duration_ms is None]
    for found, what, expected in [(stamps, "time", "ISO 8601"), (durations, "duration", "milliseconds from 0")]:
        if found:
            row, text = found[0]
            detail = f"found the {what} {text[:40]!r}, expected {expected}; unknown for {len(found)} ratings"
            yield Problem(ProblemKind.UNREADABLE_TIME, row.where, detail, path)


def _by_time(ratings: list[Rating]) -> list[Rating]:
    moments = [moment(rating.timestamp) for rating in ratings]
    timed = [(when, place) for place, when in enumerate(moments) if when is not None]
    return [ratings[place] for _, place in sorted(timed)] if len(timed) == len(ratings) else ratings


def _similar_names(first_seen: dict[str, tuple[Path, str]]) -> Iterator[Problem]:
    spelled: dict[str, str] = {}
    for name, (path, where) in first_seen.items():
        earlier = spelled.setdefault(name.casefold(), name)
        if earlier != name:
            detail = (
                f"found the labelers {earlier!r} and {name!r}; they count as two people: spell each name the same way"
            )
            yield Problem(ProblemKind.SIMILAR_NAMES, where, detail, path)
