"""Read JSON that anybody may have written: an object or rows, and values of the type that belongs there."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import open_regular, read_regular
from finetune_monitor.base.text import shortened

GREATEST = 2**63
"""Limit on whole numbers: steps and seeds, which become file names."""

DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OverflowError)
"""What is raised where content is not of the expected form."""

REMEDY = "restore it or choose a new output_dir"


@contextmanager
def damage_named(where: object, remedy: str = REMEDY) -> Iterator[None]:
    """Turn whatever unexpected content raises into one message.

    Raises:
        UserError: the content is damaged, or the file cannot be read.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{where}: cannot read it ({error.strerror or error}); {remedy}") from error
    except DAMAGE as error:
        raise UserError(f"{where}: damaged ({shortened(repr(error))}); {remedy}") from error


def read_object(path: Path, holder: str, remedy: str = REMEDY) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        holder: what its folder is, such as `a run directory`.

    Raises:
        UserError: the file is missing, is not a regular file, cannot be read, or holds something else.
    """
    with damage_named(path, remedy):
        try:
            text = read_regular(path)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.islink(path):
                raise
            raise UserError(f"{path.parent}: found no {path.name}, expected {holder}; check the path") from None
        try:
            content = json.loads(text)
        except ValueError as error:
            raise UserError(f"{path}: not valid JSON ({error}); {remedy}") from None
        return as_object(content)


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not empty, with their numbers; none if there is no file.

    Raises:
        UserError: it is not a regular file, or cannot be read.
    """
    if not os.path.lexists(path):
        return
    with damage_named(path), open_regular(path) as file:
        for number, line in enumerate(file, 1):
            if content := line.rstrip(b"\n"):
                yield number, content


def as_number(value: Any) -> float:
    """A finite number."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError(f"found {_quoted(value)}, expected a number")
    return float(value)


def as_whole(value: Any) -> int:
    """A whole number that may be a step or a seed."""
    if type(value) is not int or abs(value) >= GREATEST:
        raise TypeError(f"found {_quoted(value)}, expected a whole number below {GREATEST}")
    return value


def as_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"found {_quoted(value)}, expected text")
    return value


def as_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"found {_quoted(value)}, expected true or false")
    return value


def as_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"found {_quoted(value)}, expected an object")
    return dict(value)


def as_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"found {_quoted(value)}, expected a list")
    return value


def _quoted(value: Any) -> str:
    return shortened(repr(value))
