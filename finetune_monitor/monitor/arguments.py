"""What a training loop passes: steps and numbers of any numeric type, such as numpy's or a tensor's; settings."""

import math
import reprlib
from collections.abc import Mapping, Sequence
from contextlib import ContextDecorator
from numbers import Real
from typing import Any

from finetune_monitor.base.numbers import whole_number


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


def settings_of(value: Any) -> dict[str, Any]:
    """Training settings by name; none for None.

    Raises:
        TypeError: it is no dict, such as what an argument parser returns.
    """
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(f"hparams: found {reprlib.repr(value)}, expected a dict of settings, such as vars(args)")
    return {str(name): each for name, each in (value or {}).items()}


def check_live_weights(value: Any) -> None:
    """Check that the weights to evaluate can be swapped in again and again.

    Raises:
        TypeError: it is no function; a context manager that a function has returned works only once.
    """
    if not callable(value) or isinstance(value, ContextDecorator):
        raise TypeError(
            f"live_weights: found {reprlib.repr(value)}, expected a function that returns a context manager; pass the "
            "function itself, without calling it"
        )
