"""Processes that read and crop the photos of the next steps while the current one trains."""

import itertools
import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from threading import Thread, current_thread, main_thread

import torch
from torch.utils.data import DataLoader

from finetune_monitor.base import distributed
from finetune_monitor.base.errors import UserError
from finetune_monitor.training.data import Batches, Seen

PATIENCE = 5.0
"""Seconds that processes have to end by themselves."""


class PhotoReader:
    """Batches of views by turn.

    Args:
        workers: processes that read ahead; with 0, photos are read when they are asked for.
        pinned: in memory that a GPU copies from without waiting.
    """

    def __init__(self, batches: Batches, workers: int, pinned: bool):
        self._batches, self._workers, self._pinned = batches, workers, pinned
        self._found: Iterator[Seen | UserError] = iter(())
        self._processes: list[BaseProcess] = []
        self._next: int | None = None

    def read(self, turn: int) -> Seen:
        """The views of a turn; this process's next turn is read ahead.

        Raises:
            UserError: a photo can no longer be read, or shared memory is full.
        """
        if turn != self._next:
            self.close()
            self._start(turn)
        found = next(self._found)
        if isinstance(found, UserError):
            raise found
        self._next = turn + distributed.world_size()
        return found

    def check(self) -> None:
        """Check that all processes are running.

        Raises:
            UserError: one has ended, as when the system is out of memory.
        """
        ended = [process.exitcode for process in self._processes if process.exitcode]
        if ended:
            how = signal.Signals(-ended[0]).name if ended[0] < 0 else f"exit status {ended[0]}"
            raise UserError(
                f"data.workers: a process that reads photos has ended ({how}), perhaps because memory or /dev/shm "
                "is full; enlarge it, lower data.workers, or set it to 0, and run the same command again"
            )

    def close(self) -> None:
        """End the processes, even those that hang; they ignore the signals that multiprocessing sends at exit."""
        found, self._found, self._next = self._found, iter(()), None
        processes, self._processes = self._processes, []
        if processes:
            with _unwatched():
                end = Thread(target=found._shutdown_workers, daemon=True)  # type: ignore[attr-defined]
                end.start()
                end.join(PATIENCE)
                _kill([process for process in processes if process.is_alive()])

    def _start(self, first: int) -> None:
        turns = itertools.count(first, distributed.world_size())
        loader = DataLoader(
            self._batches,
            batch_size=None,
            sampler=turns,
            num_workers=self._workers,
            pin_memory=self._pinned,
            multiprocessing_context="spawn"
            if self._workers
            else None,  # a fork would copy the state of CUDA and the tokenizers
            generator=torch.Generator(),  # otherwise it would use the generator that dropout uses
        )
        before = set(multiprocessing.active_children())
        self._found = _started_deaf(loader) if self._workers else iter(loader)
        self._processes = [process for process in multiprocessing.active_children() if process not in before]


def _started_deaf(loader: DataLoader[Seen | UserError]) -> Iterator[Seen | UserError]:
    """Start processes that ignore Ctrl-C and SIGTERM: the current step still needs their photos."""
    resource_tracker.ensure_running()  # starting it would lift the mask that the processes inherit
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.kill()
        process.join(PATIENCE)


@contextmanager
def _unwatched() -> Iterator[None]:
    """Without torch's handler of SIGCHLD: whenever a process ends, it raises an error if any has been killed.

    It runs in the main thread, and only there can it be replaced.
    """
    if current_thread() is not main_thread():
        yield
        return
    try:
        before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    except RuntimeError:  # raised by that handler, which Python calls before it is replaced
        before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
