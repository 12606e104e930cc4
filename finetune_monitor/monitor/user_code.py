"""Call the user's metrics, rules, sinks, and hooks: whatever they raise, return, or wait for, training continues."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import current_thread, main_thread
from types import FrameType
from typing import Any, TypeVar

from finetune_monitor.base.text import shortened

T = TypeVar("T")

TICK = 1.0
"""Seconds after which code that has swallowed the interruption is interrupted again."""

AT_ONCE = 1e-6
"""Seconds until a timer rings that is due: 0 would turn it off."""

LONGEST = 500
"""Characters of an error that a warning quotes."""


class TimedOut(BaseException):
    """The code took too long; no `except Exception` in it stops this."""


class UserCode:
    """Calls functions that may fail in any way, or never end.

    A limit is enforced by an alarm in the main thread, which interrupts Python code between two instructions, and waits
    of the system, such as for a network. So the code never runs beside the training, no kernel on a GPU is cut short,
    and the caller restores models and random generators as after any other error. A call into a library that never
    returns to Python is not interrupted. An alarm that the training has set itself rings when it is due, or right after
    the call, and what its handler raises gets through.

    Args:
        seconds: that all calls after a `begin` may take together; None: no limit.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = self._left = math.inf if seconds is None else seconds
        self._is_armed = False

    def begin(self) -> None:
        """Let the next calls take the entire time again."""
        self._left = self._seconds

    def call(self, action: Callable[[], T], failed: Callable[[str], None]) -> T | None:
        """The result; None after calling `failed` with what went wrong. Only Ctrl-C gets through."""
        with self._alarm():
            began = time.monotonic()
            try:
                return self._limited(action)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                failed(self._in_words(error))
                return None
            finally:
                self._left -= time.monotonic() - began

    def _alarm(self) -> AbstractContextManager[None]:
        is_needed = self._has_limit() and self._left > 0
        return _borrowed_alarm(self._ring) if is_needed else nullcontext()

    def _has_limit(self) -> bool:
        """Whether there is a limit that can be enforced: in the main thread, and where no library has the alarm."""
        if math.isinf(self._left) or current_thread() is not main_thread():
            return False
        return signal.getsignal(signal.SIGALRM) is not None

    def _limited(self, action: Callable[[], T]) -> T:
        if not self._has_limit():
            return action()
        if self._left <= 0:
            raise TimedOut
        try:
            self._is_armed = True
            signal.setitimer(signal.ITIMER_REAL, self._left, TICK)
            return action()
        finally:
            self._is_armed = False

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if self._is_armed:
            raise TimedOut

    def _in_words(self, error: BaseException) -> str:
        if isinstance(error, TimedOut):
            return f"metrics, rules, sinks, and hooks took longer than {self._seconds:g} s (evaluation_timeout)"
        return in_words(error)


@contextmanager
def _borrowed_alarm(ring: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let SIGALRM ring here, and give it back on exit with the time that its own timer has left."""
    (left, interval), began = signal.setitimer(signal.ITIMER_REAL, 0), time.monotonic()
    try:
        before = signal.signal(signal.SIGALRM, ring)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    finally:
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), AT_ONCE), interval)


def in_words(error: Any) -> str:
    """An exception as a text, whatever its own methods do."""
    try:
        return shortened(repr(error), LONGEST)
    except Exception:
        return type(error).__name__


def name_of(code: Any) -> str:
    """The name of a sink or a hook, whatever its attributes are."""
    try:
        return str(getattr(code, "name", None) or getattr(code, "__qualname__", None) or type(code).__qualname__)
    except Exception:
        return type(code).__name__
