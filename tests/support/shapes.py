"""The check of shapes while the tests run: of all functions and dataclasses whose annotations name an array.

The others are left alone, because mypy checks them; to check them again would take a fifth of the suite's time.
"""

import inspect
from collections.abc import Callable
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""An int may stand for a float, as in PEP 484."""

_check = jaxtyping.jaxtyped


def check_shapes(package: str) -> None:
    """Check those of a package's modules that are imported from now on."""
    jaxtyping.jaxtyped = _check_arrays  # which the import hook calls for everything
    jaxtyping.install_import_hook(package, "support.shapes.checked")


def _check_arrays(**settings: Any) -> Callable[[Any], Any]:
    return lambda target: _check(target, **settings) if _names_an_array(target) else target


def _names_an_array(target: Any) -> bool:
    return any(_is_of_arrays(each) for each in inspect.get_annotations(target).values())


def _is_of_arrays(annotation: Any) -> bool:
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(_is_of_arrays(each) for each in get_args(annotation))
