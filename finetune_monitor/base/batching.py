"""Work in batches that memory holds: tried, halved where it runs out, and remembered."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

logger = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")


class OutOfMemoryError(RuntimeError):
    """Not even one item fits into memory."""


class Batches:
    """How many items go through a function at once, found by trying.

    Args:
        first: how many are tried first.
        what: what the items are, for messages.
    """

    def __init__(self, first: int, what: str) -> None:
        self.size, self.what = max(1, first), what

    def map(self, items: Sequence[T], function: Callable[[Sequence[T]], Sequence[U]]) -> list[U]:
        """`function` of all items, batch by batch, in their order.

        Raises:
            OutOfMemoryError: one item alone does not fit.
        """
        done: list[U] = []
        while len(done) < len(items):
            batch = items[len(done) : len(done) + self.size]
            found = self._try(batch, function)
            if found is None:
                clear_device_cache()  # here the failed call's frames are gone, and their tensors with them
                self._shrink(len(batch))
            else:
                done.extend(found)
        return done

    def _try(self, batch: Sequence[T], function: Callable[[Sequence[T]], Sequence[U]]) -> Sequence[U] | None:
        """None where memory ran out."""
        try:
            return function(batch)
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise OutOfMemoryError(f"out of memory with a single one of the {self.what}") from error
            return None

    def _shrink(self, tried: int) -> None:
        self.size = tried // 2
        logger.warning("out of memory with %d %s at once; %d from now on", tried, self.what, self.size)


def ran_out_of_memory(error: Exception) -> bool:
    """Whether a device's or the machine's memory was the reason."""
    words = ("bad_alloc", "could not create a primitive")  # C++'s, and oneDNN's on the CPU
    return isinstance(error, MemoryError) or any(w in str(error) for w in words) or should_reduce_batch_size(error)
