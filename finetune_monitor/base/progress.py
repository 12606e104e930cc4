"""The progress of long work: a bar on a terminal or in a notebook, and elsewhere a plain line now and then."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm.auto import tqdm

MOST_LINES = 20
"""How many lines the progress of one piece of work takes at most where there is no terminal."""


def is_live() -> bool:
    """Whether somebody sees a bar move: on a terminal or in a notebook, but not in a log."""
    return sys.stderr.isatty() or any(kind.__name__ == "tqdm_notebook" for kind in tqdm.__mro__)


class Progress:
    """Counts what is done of a known total.

    Args:
        what: is being done, such as "training".
        unit: one of what is counted.
        done: how much was done earlier.
        is_shown: False in every process but one.
    """

    def __init__(self, total: int, what: str, unit: str, done: int = 0, is_shown: bool = True) -> None:
        live = is_live()
        self._bar: Any = tqdm(total=total, initial=done, desc=what, unit=f" {unit}", disable=not (is_shown and live))
        self._prints = is_shown and not live
        self._total, self._what, self._unit = total, what, unit
        self._done = self._first = done
        self._every, self._began = _apart(total), time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, count: int, numbers: Mapping[str, float] | None = None) -> None:
        """Count more, and show the latest numbers with it."""
        before, self._done = self._done, self._done + count
        words = {name: f"{number:.3g}" for name, number in (numbers or {}).items()}
        self._bar.set_postfix(words, refresh=False)
        self._bar.update(count)
        if self._prints and self._done // self._every > before // self._every:
            said = "".join(f", {name} {word}" for name, word in words.items())
            print(
                f"{self._what}: {self._unit} {self._done} of {self._total}{said} ({self._times()})",
                file=sys.stderr,
                flush=True,
            )

    def _times(self) -> str:
        spent = time.monotonic() - self._began
        left = spent / (self._done - self._first) * (self._total - self._done)
        return f"{tqdm.format_interval(spent)} so far, about {tqdm.format_interval(left)} left"


def _apart(total: int) -> int:
    """A round number of which a total has at most `MOST_LINES`: 1, 2, or 5 times a power of ten."""
    power = 1
    while 5 * power * MOST_LINES < total:
        power *= 10
    return next(digit * power for digit in (1, 2, 5) if digit * power * MOST_LINES >= total)
