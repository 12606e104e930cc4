"""The check of shapes while the tests run: of all functions and dataclasses whose annotations name an array.

The others are left alone, because mypy checks them; to check them again would take a fifth of the suite's time. In each
test, the first calls of a function stand for all, because some are called a hundred thousand times.
"""

import functools
import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""An int may stand for a float, as in PEP 484."""

FIRST = 5
"""The number of calls per test that are checked."""

_check = jaxtyping.jaxtyped
_calls: Counter[Callable[..., Any]] = Counter()


def check_shapes(package: str) -> None:
    """Check those of a package's modules that are imported from now on."""
    jaxtyping.jaxtyped = _check_arrays  # which the import hook calls for everything
    jaxtyping.install_import_hook(package, "support.shapes.checked")


def begin_test() -> None:
    """Check the first calls again."""
    _calls.clear()


def _check_arrays(**settings: Any) -> Callable[[Any], Any]:
    def checking(target: Any) -> Any:
        if not _names_an_array(target):
            return target
        checked = _check(target, **settings)
        return _at_first(checked, target) if inspect.isfunction(target) else checked

    return checking


def _at_first(checked: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def call(*arguments: Any, **named: Any) -> Any:
        _calls[plain] += 1
        return (checked if _calls[plain] <= FIRST else plain)(*arguments, **named)

    return call


def _names_an_array(target: Any) -> bool:
    return any(_is_of_arrays(each) for each in inspect.get_annotations(target).values())


def _is_of_arrays(annotation: Any) -> bool:
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(_is_of_arrays(each) for each in get_args(annotation))
