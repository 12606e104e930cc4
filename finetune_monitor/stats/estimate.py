"""Estimates with intervals, and how numbers are written as text and as JSON, including missing ones."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from finetune_monitor.base.json_files import as_number, as_whole

FloatArray = Float[np.ndarray, "n"]
"""One value per image; NaN if an image could not be measured."""

MISSING = float("nan")

ROUNDING = 1e-9
"""Smaller differences are rounding errors of floating-point sums."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval, such as a mean over the grid (`stats.intervals`).

    `mean` is NaN if nothing was measured; `low` and `high` are NaN if too little was measured.
    """

    mean: float
    low: float
    high: float
    n: int
    missing: int

    def to_json(self) -> dict[str, float | int | None]:
        numbers = {"mean": self.mean, "low": self.low, "high": self.high}
        return {**{key: json_number(value) for key, value in numbers.items()}, "n": self.n, "missing": self.missing}

    def to_value_json(self) -> dict[str, float | int | None]:
        """The same with `value` in place of `mean`, which also suits a correlation."""
        found = self.to_json()
        return {"value": found.pop("mean"), **found}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Estimate":
        mean, low, high = (from_json_number(found[key]) for key in ("mean", "low", "high"))
        return cls(mean, low, high, as_whole(found["n"]), as_whole(found["missing"]))


NO_ESTIMATE = Estimate(MISSING, MISSING, MISSING, 0, 0)
"""The estimate of something that was not measured at all."""


def direction(change: Estimate) -> Literal[1, 0, -1] | None:
    """The direction of a change whose entire interval is above 0 (1) or below 0 (-1).

    0 if the interval contains 0, so that the change may be chance; None if there is no interval.
    """
    if math.isnan(change.low):
        return None
    if change.low > ROUNDING:
        return 1
    return -1 if change.high < -ROUNDING else 0


def json_number(value: float) -> float | None:
    """A number for JSON, which has no NaN: a missing value becomes None."""
    return None if math.isnan(value) else float(value)


def from_json_number(value: float | None) -> float:
    return MISSING if value is None else as_number(value)


def shown(estimate: Estimate, form: str = ".3f", unit: str = "") -> str:
    """A value with its interval, if it has one; with more decimals than `form` has where it would mislead."""
    numbers = estimate.mean, estimate.low, estimate.high
    value, low, high = (number(each, _fine_enough(form, *numbers)) for each in numbers)
    return value + unit if low == "—" else f"{value}{unit} [{low}, {high}]"


def shown_value(value: float, form: str = ".3f") -> str:
    """A value that needs no interval, with as many decimals as `shown` gives it."""
    return number(value, _fine_enough(form, value))


def _fine_enough(form: str, value: float, low: float = MISSING, high: float = MISSING) -> str:
    """The form, with more decimals where it would leave only zeros, or hide that an interval excludes 0.

    These are two significant digits of the greatest number, or one of the end that is nearest to 0. The page does the
    same (`decimalsOf` in words.js).
    """
    decimals = re.fullmatch(r"(.*\.)(\d+)f", form)
    if decimals is None:
        return form
    greatest = max((abs(each) for each in (value, low, high) if not math.isnan(each)), default=0.0)
    nearest = min(abs(low), abs(high)) if low * high > 0 else 0.0
    usual, unit = int(decimals[2]), 10.0 ** -int(decimals[2])
    of_greatest = 1 - math.floor(math.log10(greatest)) if ROUNDING < greatest < unit else usual
    of_nearest = -math.floor(math.log10(nearest)) if ROUNDING < nearest < unit / 2 else usual
    return f"{decimals[1]}{max(of_greatest, of_nearest)}f"


def number(value: float, form: str = ".2f") -> str:
    """A formatted number: a dash if missing, and never a negative zero."""
    text = f"{value:{form}}"
    if np.isnan(value):
        return "—"
    return text if any(digit in text for digit in "123456789") else text.lstrip("-")


def plain(value: Any) -> Any:
    """The value in JSON types; non-finite numbers become null, unknown types become text."""
    if isinstance(value, Estimate):
        return value.to_json()
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (str, int, bool)) or value is None else str(value)
