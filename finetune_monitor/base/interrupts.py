"""Ctrl-C, SIGTERM, or a closed terminal: the first signal asks for a clean stop, the second stops at once."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SHOW_CURSOR = b"\x1b[?25h"
"""Shows the cursor: a live table hides it and cannot restore it after a second signal."""

Gather = Callable[[int | None], Sequence[int | None]]
"""Collects one object from each process, ordered by rank, on every process."""


class Interrupt:
    """The signal that asked to stop, if there was one.

    number: of the signal; None if there was none.
    seconds: since the signal arrived.

    Args:
        message: shown in the terminal at the first signal.
        tell: called at the first signal.
        gather: shares the signal among processes.
        forwarded: a launcher may forward one Ctrl-C as a different signal, so only a repeat of the same signal stops
            the process at once.
    """

    def __init__(self, message: str, tell: Callable[[], None], gather: Gather, forwarded: bool) -> None:
        self.number: int | None = None
        self._message, self._tell, self._gather, self._forwarded = message.encode(), tell, gather, forwarded
        self._since = 0.0
        self._signals = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # as nohup does
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    @property
    def exit_status(self) -> int:
        """128 + the signal's number, as in shells: 130 for Ctrl-C, 143 for SIGTERM; 0 if there was no signal."""
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
        """Install the signal handlers; call it again after starting a library that installs its own."""
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
                os.write(2, b"\n" + self._message + b"; repeat to stop at once\n")
            self._tell()

    def _mute(self) -> None:
        """Discard further output: the terminal is closed, and writing to it would raise an error."""
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
    """Collect signals in an `Interrupt` inside the block."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    interrupt = Interrupt(message, tell, gather, forwarded)
    interrupt.listen()
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
