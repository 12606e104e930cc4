"""What rules share: which end of an interval counts, what holds beyond chance, and checks of their options."""

import math
from collections.abc import Sequence

from finetune_monitor.stats.estimate import Estimate


def worse_end(score: Estimate, sign: float) -> float:
    """The end of the interval that is nearer to worse (sign 1) or to better (-1), turned by the sign."""
    end = score.low if sign > 0 else score.high
    return -math.inf if math.isnan(end) else sign * end


def holds(beyond: Sequence[bool], sure: bool) -> bool:
    """Beyond now, and not by chance: for sure, or twice in a row."""
    return beyond[-1] and (sure or beyond[-2:] == [True, True])


def named(metric: str, prompts: Sequence[int] | None) -> str:
    """The metric, and which prompts of the grid it is of."""
    return metric if prompts is None else f"{metric} of prompts {', '.join(map(str, prompts))}"


def at_least(rule: object, **least: float) -> None:
    for name, limit in least.items():
        found = getattr(rule, name)
        if not found >= limit:
            raise ValueError(f"{type(rule).__name__}.{name}: found {found:g}, expected {limit:g} or more")


def check_prompts(rule: object, prompts: Sequence[int] | None) -> None:
    if prompts is not None and (not prompts or min(prompts) < 0 or len(set(prompts)) < len(prompts)):
        raise ValueError(
            f"{type(rule).__name__}.prompts: found {prompts}, expected places of prompts in the grid, from 0, each once"
        )
