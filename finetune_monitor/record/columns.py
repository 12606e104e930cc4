"""Descriptions of score columns, as data: they are part of run.json, so no view needs the metric itself."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from finetune_monitor.base.json_files import as_flag, as_number, as_text

Role = Literal["score", "side", "stars", "note"]

Over = Literal["prompts", "probes", "run"]


@dataclass(frozen=True)
class ScoreColumn:
    """One column of scores.

    higher_is_better: the direction, for plots, tables, and stopping rules; None if neither direction is better.
    bounds: lowest and highest possible score of an image; infinite if there is no bound.
    role: a `score` is shown with its interval, ceiling, and direction; a `side` column (such as the share of images
        with a face) explains a score and is shown as a mean only; `stars` grade the score `of` from 1 to 5; a `note`
        describes an image and has no mean, such as which photo is nearest.
    of: the score that these stars grade, or that a note explains.
    metric: the metric that returns the column; filled in if "".
    zero: the label of an image with score 0, such as "no face"; "" for no label.
    ignores: keys of the metric's weights that the column does not depend on.
    needs: dotted config key without which the metric does not return the column.
    is_share: whether each image scores either 1 or 0, so that the mean is a share of images.
    over: the images it covers: those of the subject's prompts, or the probes; or the run, for one value per evaluation.
    alarm: the level beyond which, on the worse side, something is wrong; None for no alarm.
    says: what is wrong in that case: a sentence without its final period.
    worst_of: for a score that is the lowest mean of any prompt: the column that it is the lowest of, which tells what
        prompt an alarm is about; "" for every other column.
    likeness: for a note whose values are 0-based positions in the list of photos that its metric compares with
        (`references`): the column with the similarity of the image to that photo; "" for every other column.
    unit: of the values, for axes, such as "cosine similarity"; "" where `is_share` or the role says it, or if unknown.
    """

    higher_is_better: bool | None = True
    bounds: tuple[float, float] = (-math.inf, math.inf)
    role: Role = "score"
    of: str = ""
    metric: str = ""
    zero: str = ""
    ignores: tuple[str, ...] = ()
    needs: str = ""
    is_share: bool = False
    over: Over = "prompts"
    alarm: float | None = None
    says: str = ""
    worst_of: str = ""
    likeness: str = ""
    unit: str = ""

    @property
    def unit_in_words(self) -> str:
        """What the values are, with their range if it is limited, such as "cosine similarity, -1 to 1"."""
        of_kind = "share of images" if self.is_share else "stars" if self.role == "stars" else self.unit
        low, high = self.bounds
        ranged = f"{low:g} to {high:g}" if all(map(math.isfinite, self.bounds)) else ""
        return ", ".join(filter(None, (of_kind, ranged)))

    @property
    def is_main(self) -> bool:
        """Whether the column is shown with an interval and a direction."""
        return self.role in ("score", "stars")

    @property
    def more_is_better(self) -> bool:
        """The direction to choose by; True if the column has none."""
        return self.higher_is_better is not False

    def direction_json(self) -> dict[str, Any]:
        """The entry of a main column under `metrics` in run.json."""
        return {"higher_is_better": self.higher_is_better, "bounds": self.bounds}

    def to_json(self) -> dict[str, Any]:
        """The entry under `columns` in run.json: every field that is not the default."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) != each.default}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "ScoreColumn":
        """The column of an entry in run.json, under either key. A null bound means infinity, which JSON lacks."""
        known = {each.name: found[each.name] for each in fields(cls) if each.name in found}
        low, high = known.get("bounds") or (None, None)
        bounds = (-math.inf if low is None else as_number(low), math.inf if high is None else as_number(high))
        typed = {key: READERS[key](value) for key, value in known.items() if key in READERS and value is not None}
        return cls(**{**known, **typed, "bounds": bounds})


def _one_of(kind: Any) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in get_args(kind):
            raise ValueError(f"found {value!r}, expected one of {', '.join(get_args(kind))}")
        return as_text(value)

    return read


READERS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("of", "metric", "zero", "needs", "says", "worst_of", "likeness", "unit"), as_text),
    **dict.fromkeys(("higher_is_better", "is_share"), as_flag),
    "role": _one_of(Role),
    "over": _one_of(Over),
    "alarm": as_number,
    "ignores": lambda names: tuple(map(as_text, names)),
}
"""How the fields of a column are read from run.json."""

SIDE = ScoreColumn(None, role="side")
"""A column without a description."""


def with_level(columns: Mapping[str, ScoreColumn], level: float) -> dict[str, ScoreColumn]:
    """The same columns, with this level for those that have an alarm."""
    return {name: each if each.alarm is None else replace(each, alarm=level) for name, each in columns.items()}


def stars_of(column: str) -> str:
    """The name of the column that holds another column's stars."""
    return f"{column}_stars"


def stars_by_score(columns: Mapping[str, ScoreColumn]) -> dict[str, str]:
    """The name of the stars column for each score that has one."""
    return {column.of: name for name, column in columns.items() if column.role == "stars"}
