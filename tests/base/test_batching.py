"""Batches that memory holds."""

import subprocess
import sys

import pytest
import torch

from finetune_monitor.base.batching import Batches, OutOfMemoryError, ran_out_of_memory


def test_all_items_go_through_in_order():
    sizes = []

    def double(batch):
        sizes.append(len(batch))
        return [2 * item for item in batch]

    assert Batches(3, "numbers").map(range(7), double) == [0, 2, 4, 6, 8, 10, 12]
    assert sizes == [3, 3, 1]
    assert Batches(0, "numbers").map([], double) == []


def test_memory_that_runs_out_halves_the_batch_which_is_remembered(caplog):
    sizes = []

    def small_memory(batch):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return list(batch)

    batches = Batches(8, "images")
    assert batches.map(range(9), small_memory) == list(range(9))
    assert batches.map(range(3), small_memory) == list(range(3))
    assert sizes == [8, 4, 2, 2, 2, 2, 1, 2, 1]
    assert "out of memory with 8 images at once; continuing with 4" in caplog.text


def test_one_item_that_does_not_fit_is_an_error():
    def no_memory(batch):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes")

    with pytest.raises(OutOfMemoryError, match="a batch of 1 of the images"):
        Batches(4, "images").map([1, 2], no_memory)


def test_other_errors_are_not_taken_for_it():
    def broken(batch):
        raise ValueError("another thing")

    with pytest.raises(ValueError, match="another thing"):
        Batches(4, "images").map([1, 2], broken)
    assert not ran_out_of_memory(RuntimeError("shapes cannot be multiplied"))


@pytest.mark.slow
def test_the_machines_own_memory_runs_out():
    """For real: an address space with room for two items but not for eight."""
    code = """
import resource
import torch
from finetune_monitor.base.batching import Batches
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 700 * 2**20,) * 2)
batches = Batches(8, "items")
found = batches.map(range(8), lambda batch: torch.ones(len(batch), 64, 2**20).sum((1, 2)).tolist())
assert found == [2.0**26] * 8
print(batches.size)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) in (1, 2)
    assert "out of memory with 8 items at once; continuing with 4" in done.stderr
