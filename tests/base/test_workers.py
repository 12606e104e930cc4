"""Processes that read ahead and end: the error comes where their items are awaited, whatever they were doing."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.resource_sharer import _resource_sharer

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.workers import Workers

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

KILLED = r"^--readers: a process that reads images has ended \(SIGKILL\), perhaps because .* or set it to 0, and run"


class Slow(Dataset):
    """Numbers as tensors, in shared memory; each takes a while from a certain one on."""

    def __init__(self, quick: int = 10**6, ends: int = -1):
        self.quick, self.ends = quick, ends

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.ends:
            os._exit(3)
        time.sleep(0 if index < self.quick else 60)
        return torch.tensor([index])


def started(data: Slow, workers: int = 2) -> Workers[torch.Tensor]:
    loader = DataLoader(
        data, batch_size=None, num_workers=workers, multiprocessing_context="fork", generator=torch.Generator()
    )
    return Workers(loader, "--readers")


def processes() -> list[multiprocessing.process.BaseProcess]:
    return sorted(multiprocessing.active_children(), key=lambda process: process.pid or 0)


def kill(process: multiprocessing.process.BaseProcess) -> None:
    process.kill()
    process.join()


@pytest.fixture(autouse=True)
def handler() -> Iterator[signal.Handlers]:
    """Nobody is left, and the handler of SIGCHLD is the one from before."""
    before = signal.getsignal(signal.SIGCHLD)
    yield before
    assert multiprocessing.active_children() == []
    assert signal.getsignal(signal.SIGCHLD) is before


def test_items_come_in_order_and_the_end_is_no_error():
    with started(Slow()) as items:
        assert [int(item) for item in items] == list(range(100))


def test_one_that_is_killed_while_nobody_waits_disturbs_nothing_and_is_told_at_the_next_item(handler):
    with started(Slow()) as items:
        next(items)
        assert signal.getsignal(signal.SIGCHLD) is handler  # torch's own raises wherever the main thread is
        kill(processes()[0])
        with pytest.raises(UserError, match=KILLED):
            next(items)
        for process in processes():  # nor does cleaning up
            kill(process)


def test_one_that_is_killed_is_told_while_an_item_is_awaited_even_if_the_other_hangs():
    with started(Slow(quick=1)) as items:
        next(items)
        first, second = processes()
        os.kill(second.pid, signal.SIGSTOP)
        threading.Timer(0.3, first.kill).start()
        start = time.monotonic()
        with pytest.raises(UserError, match=KILLED):
            next(items)
        assert time.monotonic() - start < 4  # sooner than torch looks by itself


@pytest.mark.parametrize("broken", [ConnectionResetError, ConnectionRefusedError, EOFError, FileNotFoundError])
def test_a_connection_that_breaks_since_its_process_ends_is_told_as_such(broken, monkeypatch):
    with started(Slow(), 1) as items:
        next(items)

        def breaks(*_: object) -> None:
            threading.Timer(0.2, processes()[0].kill).start()  # some moments later
            raise broken

        monkeypatch.setattr(_resource_sharer, "get_connection", breaks)
        with pytest.raises(UserError, match=KILLED):
            next(items)


def test_a_connection_that_breaks_by_itself_is_an_error_of_its_own(monkeypatch):
    with started(Slow(), 1) as items:
        next(items)

        def breaks(*_: object) -> None:
            raise ConnectionResetError

        monkeypatch.setattr(_resource_sharer, "get_connection", breaks)
        with pytest.raises(ConnectionResetError):
            next(items)


def test_an_exit_status_is_named():
    with started(Slow(ends=1)) as items, pytest.raises(UserError, match=r"has ended \(exit status 3\)"):
        list(items)


def test_outside_of_the_main_thread_it_is_told_too():
    found = []

    def read() -> None:
        with started(Slow(quick=1)) as items:
            next(items)
            kill(processes()[0])
            try:
                next(items)
            except UserError as error:
                found.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert "SIGKILL" in found[0]
