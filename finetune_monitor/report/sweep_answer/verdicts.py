"""Verdicts on a sweep's numbers, in a sentence: where the score changes along an axis, or which setting is best."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Literal

from finetune_monitor.stats.estimate import ROUNDING, Estimate, direction, shown, shown_value

Tone = Literal["rise", "fall", "none", "unknown"]

Change = Callable[[int, int], Estimate]
"""How much higher the second of two settings scores, given their places."""

TONES: Mapping[int | None, Tone] = {1: "rise", -1: "fall", 0: "none", None: "unknown"}
"""By the direction of a change."""

NOTHING_YET, NOTHING = "nothing to report yet", "nothing was measured"
"""While a sweep is in progress, and after its end."""


@dataclass(frozen=True)
class Finding:
    """A sentence, its direction, and the number of intervals that it is based on."""

    text: str
    tone: Tone
    intervals: int


@dataclass(frozen=True)
class Stretch:
    """The change between two places of an axis; `merged` means that no single step between them is significant."""

    first: int
    last: int
    change: Estimate
    merged: bool = False

    @property
    def tone(self) -> Tone:
        return tone_of(self.change)


def tone_of(change: Estimate) -> Tone:
    """The tone of a change, which is significant if its interval excludes 0."""
    return TONES[direction(change)]


def too_few(names: Sequence[str], has_ended: bool) -> Finding:
    """A sentence about one setting with a score, or none, between which nothing can be compared."""
    if not names:
        return Finding(NOTHING if has_ended else NOTHING_YET, "unknown", 0)
    return Finding(f"there is a score only for {names[0]}" + ("" if has_ended else " so far"), "unknown", 0)


def along_axis(values: Sequence[float], change: Change, noun: str = "") -> Finding:
    """Where a score changes along ordered numbers, and from where on there is no significant change.

    Neighbors are compared first. If several in a row do not differ significantly, the first is compared with the last:
    many small steps may add up to a significant one.

    Args:
        values: at least two.
        noun: what follows a number, such as "photos".
    """
    looked = _Counted(change)
    stretches = _stretches(len(values), looked)
    clauses = [_clause(each, stretches, values, noun) for each in stretches]
    return Finding("; ".join(clauses), _whole_tone(stretches, looked), looked.intervals)


def best_of(names: Sequence[str], levels: Sequence[float], change: Change, higher_is_better: bool | None) -> Finding:
    """Which of several settings is best, whether its lead is significant, and how many others may be as good.

    The lead is a paired difference, over what both settings have. It can contradict the levels, which are over all.

    Args:
        names: of at least two settings.
        levels: each setting's score, unchanged.
        higher_is_better: None if neither direction is better; then the sentence is about the highest score.
    """
    sign = -1.0 if higher_is_better is False else 1.0
    best, better, worse = ("highest", "higher", "lower") if higher_is_better is None else ("best", "better", "worse")
    order = sorted(range(len(names)), key=lambda place: -sign * levels[place])
    leads = [_turned(change(other, order[0]), sign) for other in order[1:]]
    lead, tone = leads[0], tone_of(leads[0])
    text = f"{names[order[0]]} is {best} ({shown_value(levels[order[0]])})"
    told = {
        "rise": "is significant",
        "none": "is not significant",
        "fall": f"is significantly below 0: where both have scores, {names[order[1]]} is {better}",
        "unknown": "has no interval and may be chance",
    }[tone]
    text += f"; its lead over {names[order[1]]}, {shown_change(lead)}, {told}" if not math.isnan(lead.mean) else ""
    open_ones = sum(tone_of(each) != "rise" for each in leads)
    if len(leads) > 1 and open_ones:
        text += f"; {open_ones} of {len(leads)} others are not significantly {worse}"
    intervals = sum(not math.isnan(each.low) for each in leads)
    is_lead = tone != "fall" and not (tone == "rise" and higher_is_better is None)
    return Finding(text, tone if is_lead else "none", intervals)


def best_steps(values: Sequence[float], steps: Sequence[Sequence[int]], best: str = "best") -> str:
    """The steps at which the runs are best, or highest, in words; one sequence of steps per value."""
    spans = [(min(found), max(found)) for found in steps]
    words = [f"{low}" if low == high else f"{low} to {high}" for low, high in spans]
    if len(set(words)) == 1:
        return f"the {best} step is {words[0]}"
    return f"the {best} step is " + ", ".join(
        f"{span} with {value:g}" for span, value in zip(words, values, strict=True)
    )


def shown_change(change: Estimate) -> str:
    """A change with as many digits as its interval needs; a nonzero bound is never shown as 0."""
    digits = 2 if change.high - change.low > ROUNDING else 3
    while digits < 5 and _is_coarse(change, digits):
        digits += 1
    return shown(change, f".{digits}f")


def _is_coarse(change: Estimate, digits: int) -> bool:
    nearest = min(abs(change.low), abs(change.high)) if tone_of(change) in ("rise", "fall") else math.inf
    unit = 10.0**-digits
    return ROUNDING < (change.high - change.low) / 2 < unit or unit / 2 > nearest


class _Counted:
    """A comparison that counts the intervals it has returned."""

    def __init__(self, change: Change):
        self._change = change
        self.intervals = 0

    def __call__(self, first: int, last: int) -> Estimate:
        found = self._change(first, last)
        self.intervals += not math.isnan(found.low)
        return found


def _stretches(count: int, change: Change) -> list[Stretch]:
    neighbors = [Stretch(first, last, change(first, last)) for first, last in pairwise(range(count))]
    found: list[Stretch] = []
    for tone, group in groupby(neighbors, key=lambda each: each.tone):
        together = list(group)
        if tone in ("none", "unknown") and len(together) > 1:
            first, last = together[0].first, together[-1].last
            together = [Stretch(first, last, change(first, last), merged=True)]
        found += together
    return found


def _whole_tone(stretches: Sequence[Stretch], change: Change) -> Tone:
    """The tone of the entire axis: if its parts point both ways, its ends decide."""
    tones = {each.tone for each in stretches}
    if {"rise", "fall"} <= tones:
        return tone_of(change(0, stretches[-1].last))
    order: tuple[Tone, ...] = ("rise", "fall", "none")
    return next((tone for tone in order if tone in tones), "unknown")


def _clause(stretch: Stretch, among: Sequence[Stretch], values: Sequence[float], noun: str) -> str:
    """One stretch in words, without what the previous clause has already said."""
    place = among.index(stretch)
    before = among[place - 1] if place else None
    first, last = f"{values[stretch.first]:g}", f"{values[stretch.last]:g}"
    span = f"from {first} to {last}" + (f" {noun}" if noun and not place else "")
    if stretch.tone == "unknown":
        return f"{span} {_unsure(stretch.change)}"
    if stretch.tone == "none":
        if place and stretch is among[-1]:
            return (
                f"beyond {first} there is no significant change ({shown_change(stretch.change)} from {first} to {last})"
            )
        return f"{span} there is no significant change ({shown_change(stretch.change)})"
    verb = {"rise": "rises", "fall": "falls"}[stretch.tone]
    size = shown_change(_turned(stretch.change, 1.0 if stretch.tone == "rise" else -1.0))
    by = f"by {size}" if before is not None and before.tone == stretch.tone else f"it {verb} by {size}"
    return f"{span} {by}" + (", though no single change in between is significant" if stretch.merged else "")


def _unsure(change: Estimate) -> str:
    """A clause on a change without an interval."""
    if math.isnan(change.mean):
        return "there is nothing in common to compare"
    direction = "higher" if change.mean >= 0 else "lower"
    return f"it is {shown_value(abs(change.mean))} {direction}, but has no interval and may be chance"


def _turned(change: Estimate, sign: float) -> Estimate:
    low, high = sorted((sign * change.low, sign * change.high))
    return Estimate(sign * change.mean, low, high, change.n, change.missing)
