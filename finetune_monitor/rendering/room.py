"""How many cells fit at once into the GPU memory that training has left reserved, so that the process's peak stays."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

SHARE = 0.8
"""The part of the idle memory that may be filled: it is fragmented, so not every tensor fits."""


class Room:
    """The idle memory of a device, and what a cell takes of it.

    Training allocates most of its peak only within a step. Between two steps, PyTorch keeps that memory reserved.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cost = math.inf

    @contextmanager
    def watched(self, cells: int) -> Iterator[None]:
        """Learn from a block that denoises so many cells at once.

        The process's peak can only be above that of the block, so what a cell takes is never estimated too low.
        """
        if self._device.type != "cuda":
            yield
            return
        before = torch.cuda.memory_allocated(self._device)
        yield
        taken = torch.cuda.max_memory_allocated(self._device) - before
        self._cost = min(self._cost, taken / cells)

    def batch(self, first: int, cells: int) -> int:
        """The batch size for so many cells: as many as fit into the idle memory, and never less than `first`."""
        if self._device.type != "cuda":
            return first
        idle = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return filling(first, cells, idle, self._cost)


def filling(first: int, cells: int, idle: float, cost: float) -> int:
    """The smallest batch size that needs as few batches as the largest that fits.

    Args:
        idle: bytes that are reserved and not used.
        cost: bytes that one cell takes; infinite if that is unknown.
    """
    fits = min(cells, int(SHARE * idle / cost)) if cost > 0 else 0
    return first if fits <= first else math.ceil(cells / math.ceil(cells / fits))
