"""Ratings as a matrix of labelers by images, and a description of each labeler's answers."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.text import counted
from finetune_monitor.metrics.thresholds import HIGHEST, LOWEST
from finetune_monitor.stats.estimate import MISSING
from finetune_monitor.stats.statistics import srcc
from finetune_monitor.studies.agreement.coefficients import LEAST_OTHERS, without
from finetune_monitor.studies.agreement.rating_rows import moment
from finetune_monitor.studies.labeling.ratings import Rating

HASTY_MS = 300
"""A faster answer was hardly considered."""

HASTY_SHARE = 0.2
LOW_COVERAGE = 0.5

NAMES_LISTED = 5
"""How many names a note lists."""


@dataclass(frozen=True)
class LabelTable:
    """All labels of one metric, with each labeler's latest label for each image.

    labelers, images: in natural order (r2 before r10); each has at least one label.
    labels: 1 to 5; NaN if a labeler gave none.
    durations: milliseconds to the answer; NaN if unknown.
    replaced: the number of earlier ratings of the same image by the same labeler, replaced by later ones.
    repeats: for each labeler, the labels of an image and its repeat, for images with both.
    """

    metric: str
    labelers: tuple[str, ...]
    images: tuple[str, ...]
    labels: Float[np.ndarray, "evaluators samples"]
    durations: Float[np.ndarray, "evaluators samples"]
    replaced: int
    repeats: Mapping[str, Float[np.ndarray, "n 2"]]

    @property
    def coverage(self) -> Float[np.ndarray, "evaluators"]:
        """The share of the images that each labeler labeled."""
        shares: np.ndarray = (~np.isnan(self.labels)).mean(axis=1)
        return shares

    def complete(self, coverage: float) -> "LabelTable":
        """The table without labelers who labeled a smaller share of the images, and without images that lose all
        labels.

        `replaced` stays that of all labelers.

        Raises:
            UserError: nobody labeled that many images.
        """
        kept = self.coverage >= coverage
        if not kept.any():
            raise UserError(
                f"{self.metric}: none of its {counted(len(self.labelers), 'labeler')} labeled {coverage:.0%} of the "
                f"{len(self.images)} images; the maximum is {self.coverage.max():.1%}; require less"
            )
        return self.only(kept, ~np.isnan(self.labels[kept]).all(axis=0))

    def only(self, labelers: Bool[np.ndarray, "evaluators"], images: Bool[np.ndarray, "samples"]) -> "LabelTable":
        """The chosen labelers and images; `replaced` stays that of all."""
        names = _chosen(self.labelers, labelers)
        return replace(
            self,
            labelers=names,
            images=_chosen(self.images, images),
            labels=self.labels[labelers][:, images],
            durations=self.durations[labelers][:, images],
            repeats={name: self.repeats[name] for name in names},
        )


@dataclass(frozen=True)
class Labeler:
    """A description of one labeler's labels; NaN if there is too little data.

    n: images labeled, not counting repeats.
    coverage: that number as a share of all images.
    deviation: the population standard deviation (ddof 0).
    shares: the share of each label, from 1 to 5.
    constant: whether two or more labels are all the same.
    median_ms: the median time to an answer.
    hasty: the share of the answers with known duration that took less than `HASTY_MS`.
    others: Spearman's correlation with the mean of the others, over the images that at least two of them labeled.
    consistency: the share of repeats with exactly the label of the original.
    repeats: the number of repeats.
    """

    name: str
    n: int
    coverage: float
    mean: float
    deviation: float
    shares: tuple[float, ...]
    constant: bool
    median_ms: float
    hasty: float
    others: float
    consistency: float
    repeats: int


def label_tables(ratings: Sequence[Rating], repeat_of: Mapping[str, str] | None = None) -> dict[str, LabelTable]:
    """The tables by metric, in natural order; a metric with ratings only for repeats has none.

    The latest rating of an image, labeler, and metric counts: by time if all of them have one, otherwise by order.

    repeat_of: the original of each image that is a repeat; a repeat is not a separate sample.
    """
    by_metric: dict[str, list[Rating]] = {}
    for rating in ratings:
        by_metric.setdefault(rating.metric, []).append(rating)
    tables = {name: _table(name, by_metric[name], repeat_of or {}) for name in sorted(by_metric, key=_natural)}
    return {name: table for name, table in tables.items() if table.images}


def describe_labelers(table: LabelTable) -> list[Labeler]:
    """One description per labeler, in the table's order."""
    return [_describe(table, place) for place in range(len(table.labelers))]


def table_notes(table: LabelTable) -> list[str]:
    """Sentences that a reader of figures from these labels should know; none if all is well."""
    return [*_missing_notes(table), *_labeler_notes(describe_labelers(table))]


def listed(names: Sequence[str]) -> str:
    """The first names, and the number of others."""
    more = f" and {len(names) - NAMES_LISTED:,} more" if len(names) > NAMES_LISTED else ""
    return ", ".join(names[:NAMES_LISTED]) + more


def _table(metric: str, ratings: Sequence[Rating], repeat_of: Mapping[str, str]) -> LabelTable:
    latest = _latest(ratings)
    originals = [rating for rating in latest if rating.image_id not in repeat_of]
    labelers = _sorted({rating.labeler for rating in originals})
    images = _sorted({rating.image_id for rating in originals})
    row = {name: place for place, name in enumerate(labelers)}
    column = {name: place for place, name in enumerate(images)}
    labels, durations = np.full((2, len(labelers), len(images)), MISSING)
    rows = [row[rating.labeler] for rating in originals]
    columns = [column[rating.image_id] for rating in originals]
    labels[rows, columns] = [rating.label for rating in originals]
    durations[rows, columns] = [MISSING if rating.duration_ms is None else rating.duration_ms for rating in originals]
    repeats = _repeats(latest, originals, repeat_of, labelers)
    return LabelTable(metric, labelers, images, labels, durations, len(ratings) - len(latest), repeats)


def _latest(ratings: Sequence[Rating]) -> list[Rating]:
    """The one rating of each image and labeler that counts."""
    groups: dict[tuple[str, str], list[Rating]] = {}
    for rating in ratings:
        groups.setdefault((rating.image_id, rating.labeler), []).append(rating)
    return [group[0] if len(group) == 1 else _last(group) for group in groups.values()]


def _last(ratings: list[Rating]) -> Rating:
    times = [(when, place) for place, rating in enumerate(ratings) if (when := moment(rating.timestamp)) is not None]
    return ratings[max(times)[1]] if len(times) == len(ratings) else ratings[-1]


def _repeats(
    latest: Sequence[Rating], originals: Sequence[Rating], repeat_of: Mapping[str, str], labelers: Sequence[str]
) -> dict[str, Float[np.ndarray, "n 2"]]:
    given = {(rating.labeler, rating.image_id): rating.label for rating in originals}
    pairs: dict[str, list[tuple[int, int]]] = {name: [] for name in labelers}
    again = [rating for rating in latest if rating.image_id in repeat_of]
    for rating in sorted(again, key=lambda rating: _natural(rating.image_id)):
        first = given.get((rating.labeler, repeat_of[rating.image_id]))
        if first is not None:
            pairs[rating.labeler].append((first, rating.label))
    return {name: np.array(found, dtype=np.float64).reshape(-1, 2) for name, found in pairs.items()}


def _describe(table: LabelTable, place: int) -> Labeler:
    name, row = table.labelers[place], table.labels[place]
    given = ~np.isnan(row)
    own = row[given]
    times = table.durations[place][given]
    times = times[~np.isnan(times)]
    repeats = table.repeats[name]
    others = without(table.labels, place)
    both = given & ~np.isnan(others)
    return Labeler(
        name=name,
        n=len(own),
        coverage=len(own) / len(row),
        mean=float(own.mean()),
        deviation=float(own.std()),
        shares=tuple(float((own == label).mean()) for label in range(LOWEST, HIGHEST + 1)),
        constant=len(own) > 1 and bool((own == own[0]).all()),
        median_ms=float(np.median(times)) if len(times) else MISSING,
        hasty=float((times < HASTY_MS).mean()) if len(times) else MISSING,
        others=float(srcc(row[both], others[both])),
        consistency=float((repeats[:, 0] == repeats[:, 1]).mean()) if len(repeats) else MISSING,
        repeats=len(repeats),
    )


def _missing_notes(table: LabelTable) -> Iterator[str]:
    gaps, thin = np.isnan(table.labels), (~np.isnan(table.labels)).sum(axis=0) < LEAST_OTHERS
    if gaps.any():
        yield f"{gaps.sum():,} of {gaps.size:,} labels are missing ({_percent(gaps.mean())})."
    if table.replaced:
        again = "of the same image by the same labeler left out, because only the latest counts"
        yield f"{counted(table.replaced, 'earlier rating')} {again}."
    if thin.any():
        named = listed(_chosen(table.images, thin))
        yield f"{counted(int(thin.sum()), 'image')} with fewer than {LEAST_OTHERS} labels: {named}."


def _labeler_notes(labelers: Sequence[Labeler]) -> Iterator[str]:
    if found := [each.name for each in labelers if each.constant]:
        yield f"{counted(len(found), 'labeler')} who always gave the same answer: {listed(found)}."
    if found := [f"{each.name} ({_percent(each.coverage)})" for each in labelers if each.coverage < LOW_COVERAGE]:
        yield f"{counted(len(found), 'labeler')} who labeled less than half of the images: {listed(found)}."
    if found := [f"{each.name} ({each.others:.2f})" for each in labelers if each.others < 0]:
        against = "Spearman against the mean of the others is negative; is the scale reversed?"
        yield f"{counted(len(found), 'labeler')} whose {against} {listed(found)}."
    if found := [f"{each.name} ({_percent(each.hasty)})" for each in labelers if each.hasty >= HASTY_SHARE]:
        often = f"at least a fifth of the answers in under {HASTY_MS} ms"
        yield f"{counted(len(found), 'labeler')} with {often}: {listed(found)}."


def _percent(share: float) -> str:
    """A percentage that is never 0% of something nor 100% of less than all."""
    if 0 < share < 0.01 or 0.99 < share < 1:
        return "under 1%" if share < 0.5 else "over 99%"
    return f"{100 * share:.0f}%"


def _chosen(names: Sequence[str], chosen: Bool[np.ndarray, "n"]) -> tuple[str, ...]:
    return tuple(name for name, kept in zip(names, chosen, strict=True) if kept)


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=_natural))


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """A key that sorts numbers within names by value, and ignores case."""
    pieces = re.split("([0-9]+)", name)
    ordered = [piece.lstrip("0") if place % 2 else piece.casefold() for place, piece in enumerate(pieces)]
    return [(len(piece) if place % 2 else 0, piece) for place, piece in enumerate(ordered)], name
