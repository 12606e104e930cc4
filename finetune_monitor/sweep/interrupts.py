"""Ctrl-C, SIGTERM or a closed terminal while a sweep runs: trials save a checkpoint; a second signal ends at once."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

PATIENCE = 16.0
"""Seconds for the trials to say that they have stopped; after that the sweep ends without them."""

SHOW_CURSOR = b"\x1b[?25h"
"""A live table hides it, and could not show it again after a second signal."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

MESSAGE = b"\nending the trials with a checkpoint each; again to end at once\n"


class Interrupt:
    """The signal that asked for the end, if one has."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self.number: int | None = None
        self._tell, self._since = tell, 0.0
        self._signals = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # as by nohup
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    @property
    def exit_status(self) -> int:
        """128 + the signal's number, as shells have it; 0 where there was none."""
        return 128 + self.number if self.number else 0

    def is_overdue(self) -> bool:
        return time.monotonic() > self._since + PATIENCE

    def listen(self) -> None:
        """Take the signals; once more after Ray has started, which takes SIGTERM for itself."""
        for number in self._signals:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number, self._since = number, time.monotonic()
        for other in self._signals:
            signal.signal(other, signal.SIG_DFL)
        if number == signal.SIGHUP:
            self._mute()
        with suppress(OSError):
            if 1 in self._terminals:
                os.write(1, SHOW_CURSOR)
            os.write(2, MESSAGE)
        self._tell()

    def _mute(self) -> None:
        """The terminal is gone: to write there would be an error from now on."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in self._terminals:
            os.dup2(nowhere, stream)
        os.close(nowhere)


@contextmanager
def watched_signals(tell: Callable[[], None]) -> Iterator[Interrupt]:
    """Turn the signals into a flag inside the block; `tell` is called at the first."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    interrupt = Interrupt(tell)
    interrupt.listen()
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
