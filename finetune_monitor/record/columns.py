"""What a column of scores is, as data: it stands in run.json, so that every view knows it without the metric."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

Role = Literal["score", "side", "stars", "note"]

Over = Literal["prompts", "probes", "run"]


@dataclass(frozen=True)
class ScoreColumn:
    """One column of scores.

    higher_is_better: the direction, for plots, tables and stopping rules; None where neither is better.
    bounds: least and greatest score of one image; infinite where there is none.
    role: a `score` is shown with its interval, its ceiling and its direction, a `side` column (the rate of faces
        found) explains a score and is shown as a mean alone, `stars` grade the score `of` from 1 to 5, a `note` says
        something of an image that has no mean, such as which photo is nearest.
    of: the score whose stars these are, or whose images a note explains.
    metric: the metric that gives the column; filled in where it is "".
    zero: what an image with the score 0 is marked with, such as "no face"; "" for no mark.
    ignores: keys of the metric's weights that the column does not depend on.
    needs: dotted key of the config without which the metric does not give the column.
    is_share: whether an image has either 1 or 0, so that the mean is a share of the images.
    over: whether its images are those of the subject's prompts or the probes; or whether it is of a whole evaluation.
    alarm: the value beyond which something is wrong, on the side that is not better; None where nothing is.
    says: what is wrong then, in a sentence without its full stop.
    likeness: of a note whose values are places, from 0, among the photos that its metric compares with (`references`):
        the column that says how alike an image and that photo are; "" for every other column.
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
    likeness: str = ""

    @property
    def is_main(self) -> bool:
        """Whether it is shown with an interval and a direction."""
        return self.role in ("score", "stars")

    @property
    def more_is_better(self) -> bool:
        """The direction to choose by: where nothing is said, as if more were better."""
        return self.higher_is_better is not False

    def direction_json(self) -> dict[str, Any]:
        """What run.json has of a main column under `metrics`."""
        return {"higher_is_better": self.higher_is_better, "bounds": self.bounds}

    def to_json(self) -> dict[str, Any]:
        """What run.json has of it under `columns`: all that is not as usual."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) != each.default}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "ScoreColumn":
        """As run.json has it, under either key; a bound that is null is infinite: JSON has no infinity."""
        known = {each.name: found[each.name] for each in fields(cls) if each.name in found}
        low, high = known.get("bounds") or (None, None)
        bounds = (-math.inf if low is None else float(low), math.inf if high is None else float(high))
        return cls(**{**known, "bounds": bounds, "ignores": tuple(known.get("ignores", ()))})


SIDE = ScoreColumn(None, role="side")
"""A column of which nothing is said."""


def with_level(columns: Mapping[str, ScoreColumn], level: float) -> dict[str, ScoreColumn]:
    """The same columns, with this level for those that have an alarm."""
    return {name: each if each.alarm is None else replace(each, alarm=level) for name, each in columns.items()}


def stars_of(column: str) -> str:
    """The name of the column with the stars of another."""
    return f"{column}_stars"


def stars_by_score(columns: Mapping[str, ScoreColumn]) -> dict[str, str]:
    """Which column has a score's stars, where there is one."""
    return {column.of: name for name, column in columns.items() if column.role == "stars"}
