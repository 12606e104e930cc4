"""Ctrl-C, SIGTERM or a closed terminal: the signal is remembered for a clean end; a second one ends at once."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SHOW_CURSOR = b"\x1b[?25h"
"""A live table hides it, and could not show it again after a second signal."""

Gather = Callable[[int | None], Sequence[int | None]]
"""Gives every process what each of them has, in the order of their ranks."""


class Interrupt:
    """The signal that asked for the end, if one has.

    number: of the signal; None where there was none.
    seconds: since it came.

    Args:
        message: what the terminal is told at the first signal.
        tell: called at the first signal.
        gather: shares the signal among processes.
        forwarded: a launcher may pass one Ctrl-C on as a signal of another kind, so that only the same one again
            ends the process at once.
    """

    def __init__(self, message: str, tell: Callable[[], None], gather: Gather, forwarded: bool) -> None:
        self.number: int | None = None
        self._message, self._tell, self._gather, self._forwarded = message.encode(), tell, gather, forwarded
        self._since = 0.0
        self._signals = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # as by nohup
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    @property
    def exit_status(self) -> int:
        """128 + the signal's number, as shells have it: 130 for Ctrl-C, 143 for SIGTERM; 0 where there was none."""
        return 128 + self.number if self.number else 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._since

    def asked(self) -> bool:
        """Whether any process was asked to stop; every process gets the same answer."""
        found = [number for number in self._gather(self.number) if number is not None]
        self.number = found[0] if found else None
        return self.number is not None

    def listen(self) -> None:
        """Take the signals; once more after a library has started that takes them for itself."""
        for number in self._signals:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        for other in [number] if self._forwarded else self._signals:
            signal.signal(other, signal.SIG_DFL)
        if number == signal.SIGHUP:
            self._mute()
        if self.number is None:
            self.number, self._since = number, time.monotonic()
            with suppress(OSError):
                if 1 in self._terminals:
                    os.write(1, SHOW_CURSOR)
                os.write(2, b"\n" + self._message + b"; again to end at once\n")
            self._tell()

    def _mute(self) -> None:
        """The terminal is gone: to write there would be an error from now on."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in self._terminals:
            os.dup2(nowhere, stream)
        os.close(nowhere)


@contextmanager
def watched_signals(
    message: str,
    *,
    tell: Callable[[], None] = lambda: None,
    gather: Gather = lambda number: [number],
    forwarded: bool = False,
) -> Iterator[Interrupt]:
    """Turn the signals into an `Interrupt` inside the block."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    interrupt = Interrupt(message, tell, gather, forwarded)
    interrupt.listen()
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
