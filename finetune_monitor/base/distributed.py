"""Work shared between processes: this process's rank, and the results of the others."""

from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")


def rank() -> int:
    return dist.get_rank() if _distributed() else 0


def world_size() -> int:
    return dist.get_world_size() if _distributed() else 1


def is_main() -> bool:
    return rank() == 0


def gather(found: T) -> list[T]:
    """The objects of all processes, ordered by rank, on every process."""
    if not _distributed():
        return [found]
    everyone: list[Any] = [None] * world_size()
    dist.all_gather_object(everyone, found)
    return everyone


def gather_to_main(found: T) -> list[T]:
    """The objects of all processes, ordered by rank, on the main process; every other process gets only its own.

    A process's own object is not copied.
    """
    if not _distributed():
        return [found]
    everyone: list[Any] | None = [None] * world_size() if is_main() else None
    dist.gather_object(found, everyone)
    return [found] if everyone is None else [found, *everyone[1:]]


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
