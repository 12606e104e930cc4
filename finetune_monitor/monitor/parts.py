"""The lists that a monitor is made of: metrics, rules, sinks, and hooks, with anything else in them named."""

import reprlib
from collections.abc import Callable, Iterable
from numbers import Real
from typing import TypeVar

from finetune_monitor.metrics import Metric, problem_of
from finetune_monitor.monitor.audience import Hook
from finetune_monitor.monitor.stopping import StoppingRule
from finetune_monitor.sinks import Sink

Part = TypeVar("Part")


def metrics_of(value: Iterable[Metric]) -> list[Metric]:
    """The metrics of a monitor.

    Raises:
        TypeError: it is no list of metrics.
        ValueError: a metric has a name, a direction, or bounds that cannot be recorded.
    """
    expected = "metrics, such as FaceSimilarity(photos), with name, higher_is_better, bounds, and score"
    metrics = _parts(value, "metrics", lambda part: isinstance(part, Metric), expected)
    for metric in metrics:
        if wrong := problem_of(metric):
            raise ValueError(f"metrics: {type(metric).__name__}.{wrong}")
    return metrics


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
