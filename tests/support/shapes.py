"""The check of shapes while the tests run: of all arguments, results, and fields whose annotations name an array.

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
        annotations = inspect.get_annotations(target)
        arrays = {name: each for name, each in annotations.items() if _is_of_arrays(each)}
        if not arrays:
            return target
        if not inspect.isfunction(target):
            return _check(target, **settings)
        target.__annotations__ = arrays
        checked = _check(target, **settings)
        target.__annotations__ = annotations
        return _at_first(checked, target)

    return checking


def _at_first(checked: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def call(*arguments: Any, **named: Any) -> Any:
        _calls[plain] += 1
        return (checked if _calls[plain] <= FIRST else plain)(*arguments, **named)

    return call


def _is_of_arrays(annotation: Any) -> bool:
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(_is_of_arrays(each) for each in get_args(annotation))
