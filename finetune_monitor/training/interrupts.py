"""Ctrl-C and SIGTERM: finish the step and save; a second signal ends at once."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from finetune_monitor import ranks


class Interrupt:
    """The signal that asked for the end, if one has."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def asked(self) -> bool:
        """Whether any process was asked to stop; every process gets the same answer."""
        found = [number for number in ranks.gather(self.signal) if number is not None]
        self.signal = found[0] if found else None
        return self.signal is not None

    @property
    def exit_status(self) -> int:
        """128 + the signal's number, as shells have it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal if self.signal else 0

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler: remember the signal, and let a second one end the process."""
        self.signal = number
        signal.signal(number, signal.SIG_DFL)
        print("\nending after this step with a checkpoint; again to end at once", file=sys.stderr, flush=True)


@contextmanager
def watched_signals() -> Iterator[Interrupt]:
    """Turn SIGINT and SIGTERM into a flag inside the block."""
    interrupt = Interrupt()
    before = {number: signal.signal(number, interrupt.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
