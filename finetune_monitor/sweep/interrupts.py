"""Ctrl-C and SIGTERM while a sweep runs: trials save a checkpoint and end; a second signal ends at once."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE = 16.0
"""Seconds for the trials to say that they have stopped; after that the sweep ends without them."""

SHOW_CURSOR = b"\x1b[?25h"
"""A live table hides it, and could not show it again after a second signal."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """The signal that asked for the end, if one has."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self.number: int | None = None
        self._tell, self._since = tell, 0.0

    @property
    def exit_status(self) -> int:
        """128 + the signal's number, as shells have it; 0 where there was none."""
        return 128 + self.number if self.number else 0

    def is_overdue(self) -> bool:
        return time.monotonic() > self._since + PATIENCE

    def listen(self) -> None:
        """Take the signals; once more after Ray has started, which takes SIGTERM for itself."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number, self._since = number, time.monotonic()
        for other in SIGNALS:
            signal.signal(other, signal.SIG_DFL)
        if sys.stdout.isatty():
            os.write(sys.stdout.fileno(), SHOW_CURSOR)
        print("\nending the trials with a checkpoint each; again to end at once", file=sys.stderr, flush=True)
        self._tell()


@contextmanager
def watched_signals(tell: Callable[[], None]) -> Iterator[Interrupt]:
    """Turn SIGINT and SIGTERM into a flag inside the block; `tell` is called at the first."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    interrupt = Interrupt(tell)
    interrupt.listen()
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
