"""Numbers of any library's type."""

import operator
from typing import Any


def whole_number(value: Any) -> int | None:
    """A whole number, also numpy's or a tensor's; None if it is none."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None
