"""What a training loop passes: parts of the monitor, and steps and numbers of any numeric type."""

import math
import reprlib
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any, TypeVar

from finetune_monitor.base.numbers import whole_number
from finetune_monitor.metrics import Metric
from finetune_monitor.monitor.audience import Hook
from finetune_monitor.monitor.stopping import StoppingRule
from finetune_monitor.sinks import Sink

Part = TypeVar("Part")


def metrics_of(value: Iterable[Metric]) -> list[Metric]:
    """The metrics of a monitor.

    Raises:
        TypeError: it is no list of metrics.
    """
    return _parts(value, "metrics", lambda part: isinstance(part, Metric), "metrics, such as FaceSimilarity(photos)")


def rules_of(value: StoppingRule | Iterable[StoppingRule]) -> list[StoppingRule]:
    """The stopping rules of a monitor; a single one needs no list.

    Raises:
        TypeError: something else is in it.
    """
    rules = [value] if isinstance(value, StoppingRule) else value
    is_rule, expected = (lambda part: isinstance(part, StoppingRule)), "rules, such as Plateau('face_similarity')"
    return _parts(rules, "stopping", is_rule, expected)


def sinks_of(value: Iterable[Sink]) -> list[Sink]:
    """The sinks of a monitor.

    Raises:
        TypeError: it is no list of sinks.
    """
    return _parts(value, "sinks", lambda part: isinstance(part, Sink), "sinks, such as TensorBoardSink()")


def hooks_of(value: Iterable[Hook | Sink]) -> list[Hook | Sink]:
    """The hooks of a monitor.

    Raises:
        TypeError: it is no list of hooks.
    """
    expected = "functions of an evaluation and a decision, or objects with a sink's methods"
    return _parts(value, "hooks", lambda part: callable(part) or isinstance(part, Sink), expected)


def _parts(value: Iterable[Part], name: str, is_part: Callable[[object], bool], expected: str) -> list[Part]:
    """The objects in a list; a class in place of an object, or an object in place of a list, is an error."""
    if not isinstance(value, Iterable) or is_part(value):
        raise TypeError(f"{name}: found {_named(value)}, expected a list of {expected}")
    parts = list(value)
    for part in parts:
        if isinstance(part, type) or not is_part(part):
            raise TypeError(f"{name}: found {_named(part)}, expected {expected}")
    return parts


def _named(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    is_plain = value is None or isinstance(value, (str, Real, Iterable))
    return reprlib.repr(value) if is_plain else f"an instance of {type(value).__name__}"


def step_of(value: Any, name: str = "step", fewest: int = 0) -> int:
    """A number of optimizer steps.

    Raises:
        TypeError: it is no whole number.
        ValueError: there are too few.
    """
    found = int(value) if isinstance(value, float) and value.is_integer() else whole_number(value)
    if found is None:
        raise TypeError(f"{name}: found {reprlib.repr(value)}, expected a whole number of optimizer steps")
    if found < fewest:
        raise ValueError(f"{name}: found {found}, expected {fewest} or more steps")
    return found


def number_of(value: Any, name: str) -> float:
    """A number; also the only one in a list, as a scheduler's `get_last_lr()` has it.

    Raises:
        TypeError: it is no number, or several.
    """
    found = value[0] if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1 else value
    try:
        found = found.item() if hasattr(found, "item") else found
    except (ValueError, RuntimeError):  # numpy's and torch's answers for several numbers
        found = None
    if isinstance(found, bool) or not isinstance(found, Real):
        raise TypeError(f"{name}: found {reprlib.repr(value)}, expected one number")
    return float(found)


def finite_or_none(number: float) -> float | None:
    """The number; None, for unknown, instead of one that is not finite."""
    return number if math.isfinite(number) else None
