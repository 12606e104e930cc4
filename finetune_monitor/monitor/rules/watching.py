"""Shared by rules: what they watch, in words, and checks of their options."""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class OfPrompts(Protocol):
    """A rule that can be limited to some prompts of the grid."""

    @property
    def metric(self) -> str: ...

    @property
    def prompts(self) -> Sequence[int] | None: ...


def named(rule: OfPrompts) -> str:
    """The metric, with the prompts of the grid that the rule watches."""
    if rule.prompts is None:
        return rule.metric
    prompts = "prompt" if len(rule.prompts) == 1 else "prompts"
    return f"{rule.metric} of {prompts} {', '.join(map(str, rule.prompts))}"


def last_ones(evaluations: int) -> str:
    """The newest evaluations in words: `the last evaluation`, `the last 3 evaluations`."""
    return "the last evaluation" if evaluations == 1 else f"the last {evaluations:,} evaluations"


def at_least(rule: object, **least: float) -> None:
    finite(rule, *least)
    for name, limit in least.items():
        found = getattr(rule, name)
        if not found >= limit:
            raise ValueError(f"{type(rule).__name__}.{name}: found {found:g}, expected {limit:g} or more")


def finite(rule: object, *names: str) -> None:
    """Check that these fields of a rule are finite numbers, or None."""
    for name in names:
        found = getattr(rule, name)
        if found is not None and not math.isfinite(found):
            raise ValueError(f"{type(rule).__name__}.{name}: found {found:g}, expected a finite number")


def check_prompts(rule: OfPrompts) -> None:
    prompts = rule.prompts
    if prompts is not None and (not prompts or min(prompts) < 0 or len(set(prompts)) < len(prompts)):
        raise ValueError(
            f"{type(rule).__name__}.prompts: found {prompts}, expected distinct 0-based indices of the grid's prompts"
        )
