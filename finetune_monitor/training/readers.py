"""Processes that read and crop the photos of the next steps while the current one trains."""

import itertools
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from finetune_monitor.base import distributed
from finetune_monitor.base.errors import UserError
from finetune_monitor.base.workers import Workers
from finetune_monitor.training.data import Batches, Seen


class PhotoReader:
    """Batches of views by turn.

    Args:
        workers: processes that read ahead; with 0, photos are read when they are asked for.
        pinned: in memory that a GPU copies from without waiting.
    """

    def __init__(self, batches: Batches, workers: int, pinned: bool):
        self._batches, self._workers, self._pinned = batches, workers, pinned
        self._found: Iterator[Seen | UserError] = iter(())
        self._next: int | None = None

    def read(self, turn: int) -> Seen:
        """The views of a turn; this process's next turn is read ahead.

        Raises:
            UserError: a photo can no longer be read, shared memory is full, or a process has ended.
        """
        if turn != self._next:
            self.close()
            self._start(turn)
        found = next(self._found)
        if isinstance(found, UserError):
            raise found
        self._next = turn + distributed.world_size()
        return found

    def close(self) -> None:
        """End the processes, if there are any."""
        found, self._found, self._next = self._found, iter(()), None
        if isinstance(found, Workers):
            found.close()

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
        self._found = Workers(loader, "data.workers") if self._workers else iter(loader)
