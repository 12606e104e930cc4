"""Process items in batches that fit into memory: halve the batch size after an out-of-memory error and keep it."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

logger = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")


class OutOfMemoryError(RuntimeError):
    """Even a single item does not fit into memory."""


class Batches:
    """A batch size found by trial: how many items a function can process at once.

    Args:
        first: the batch size to try first.
        what: the name of the items in messages, in the plural.
    """

    def __init__(self, first: int, what: str) -> None:
        self.size, self.what = max(1, first), what

    def map(self, items: Sequence[T], function: Callable[[Sequence[T]], Sequence[U]]) -> list[U]:
        """The results of `function` for all items, computed batch by batch, in order.

        Raises:
            OutOfMemoryError: a single item does not fit.
        """
        done: list[U] = []
        while len(done) < len(items):
            batch = items[len(done) : len(done) + self.size]
            found = self._try(batch, function)
            if found is None:
                clear_device_cache()  # the failed call's frames and their tensors are freed by now
                self._shrink(len(batch))
            else:
                done.extend(found)
        return done

    def _try(self, batch: Sequence[T], function: Callable[[Sequence[T]], Sequence[U]]) -> Sequence[U] | None:
        """The results, or None if memory ran out."""
        try:
            return function(batch)
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise OutOfMemoryError(f"out of memory with a batch of 1 of the {self.what}") from error
            return None

    def _shrink(self, tried: int) -> None:
        self.size = tried // 2
        logger.warning("out of memory with %d %s at once; continuing with %d at a time", tried, self.what, self.size)


def ran_out_of_memory(error: Exception) -> bool:
    """Whether the error means that the device or the machine ran out of memory."""
    words = ("bad_alloc", "could not create a primitive")  # from C++, and from oneDNN on the CPU
    return isinstance(error, MemoryError) or any(w in str(error) for w in words) or should_reduce_batch_size(error)
