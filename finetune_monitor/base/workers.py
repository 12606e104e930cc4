"""Processes that read ahead: if one ends, an error says so where its data is awaited, and nowhere else."""

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker
from threading import Thread, current_thread, main_thread
from types import FrameType
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader

from finetune_monitor.base.errors import UserError

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds that processes have to end by themselves."""

SOON = 1.0
"""Seconds after a connection has broken in which the process at its other end ends."""


class Workers(Generic[T]):
    """The items of a DataLoader that has worker processes.

    The processes ignore Ctrl-C and SIGTERM: the current step still needs their items. torch reports a killed one from a
    handler of SIGCHLD, which raises an error in whatever the main thread is doing, even in cleaning up; here, the
    handler is set only while an item is awaited.

    Args:
        option: names the number of processes in errors.
    """

    def __init__(self, loader: DataLoader[Any], option: str) -> None:
        self._option = option
        self._is_awaited = False
        before = set(multiprocessing.active_children())
        with _held_signals():
            self._items: Iterator[T] = iter(loader)
        self._processes = [process for process in multiprocessing.active_children() if process not in before]

    def __enter__(self) -> "Workers[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        """Wait for the next item.

        Raises:
            UserError: a process has ended, as when the system is out of memory.
        """
        try:
            return self._awaited()
        except StopIteration:
            raise
        except Exception:  # from the handler, or from a connection to a process that has ended
            self._await_end(SOON)
            self._check()
            raise

    def close(self) -> None:
        """End the processes, even those that hang; they ignore the signals that multiprocessing sends at exit."""
        if not self._failed():
            end = Thread(target=self._items._shutdown_workers, daemon=True)  # type: ignore[attr-defined]
            end.start()
            end.join(PATIENCE)
        for process in self._processes:
            process.kill()
            process.join(PATIENCE)

    def _awaited(self) -> T:
        if current_thread() is not main_thread():  # only there can handlers be set
            self._check()
            return next(self._items)
        before = signal.signal(signal.SIGCHLD, self._on_end)
        self._is_awaited = True
        try:
            self._check()
            return next(self._items)
        finally:
            self._is_awaited = False
            signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)

    def _on_end(self, number: int, frame: FrameType | None) -> None:
        """Stop waiting for a process that has ended, or for one that hangs beside it."""
        if self._is_awaited and self._failed():
            self._is_awaited = False  # from now on, nothing is interrupted
            self._check()

    def _await_end(self, seconds: float) -> None:
        ready = connection.wait([process.sentinel for process in self._processes], seconds)
        for process in self._processes:
            if process.sentinel in ready:
                process.join(seconds)  # its exit status comes a moment later

    def _failed(self) -> list[int]:
        """The exit statuses of processes that have failed, below 0 for a signal."""
        return [process.exitcode for process in self._processes if process.exitcode]

    def _check(self) -> None:
        if failed := self._failed():
            how = signal.Signals(-failed[0]).name if failed[0] < 0 else f"exit status {failed[0]}"
            raise UserError(
                f"{self._option}: a process that reads images has ended ({how}), perhaps because memory or /dev/shm "
                f"is full; enlarge it, lower {self._option}, or set it to 0, and run the same command again"
            )


@contextmanager
def _held_signals() -> Iterator[None]:
    """Hold signals back while processes start.

    The processes inherit that for Ctrl-C and SIGTERM. torch sets its handler of SIGCHLD; the former one is restored.
    """
    resource_tracker.ensure_running()  # starting it would lift the mask that the processes inherit
    handler = signal.getsignal(signal.SIGCHLD)
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        if current_thread() is main_thread():
            signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
