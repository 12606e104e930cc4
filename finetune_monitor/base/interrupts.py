"""Ctrl-C, SIGTERM, or a closed terminal: the first signal asks for a clean stop, the second stops at once."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Thread, current_thread, main_thread
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
    with _second_ends(forwarded):
        interrupt.listen()
        try:
            yield interrupt
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _second_ends(forwarded: bool) -> Iterator[None]:
    """End the process at a second signal, also while the main thread is in a long call of another library.

    Python runs handlers only between two instructions, and merges signals that arrive before.
    """
    arrived, note = os.pipe()
    os.set_blocking(note, False)
    before = signal.set_wakeup_fd(note, warn_on_full_buffer=False)
    Thread(target=_end_at_second, args=(arrived, forwarded), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(note)  # which ends the thread


def _end_at_second(arrived: int, forwarded: bool) -> None:
    seen: set[int] = set()
    while note := os.read(arrived, 1):
        number = note[0]
        if number in SIGNALS:
            if number in seen or (seen and not forwarded):
                os._exit(128 + number)
            seen.add(number)
    os.close(arrived)


def end_quietly() -> None:
    """From now on, Ctrl-C ends the process at once, with exit status 130 and no traceback: nothing has begun yet."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


@contextmanager
def interruptible_work() -> Iterator[None]:
    """Inside the block, Ctrl-C raises `KeyboardInterrupt`, except during an import, where it ends the process quietly.

    Libraries that are being imported would turn the exception into others, or swallow it.
    """
    if current_thread() is not main_thread() or signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        yield
        return
    before = signal.signal(signal.SIGINT, _interrupt_or_exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt_or_exit(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _exit(number, frame)
        frame = frame.f_back
    raise KeyboardInterrupt


def _exit(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)
