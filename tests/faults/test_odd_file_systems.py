"""File systems that cannot flush folders, or have no locks: everything works, and one warning says so."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from functools import partial

import pytest
from accelerate.state import AcceleratorState

from finetune_monitor.base import locks
from finetune_monitor.record.history import read_run
from finetune_monitor.training import main as training

UNFLUSHED, UNLOCKED = "the file system cannot flush files", "the file system does not support locks"


def _refuses_folders(number: int, fsync: Callable[[int], None], handle: int) -> None:
    if stat.S_ISDIR(os.fstat(handle).st_mode):
        raise OSError(number, os.strerror(number))
    fsync(handle)


def _refuses(number: int, *arguments: object) -> None:
    raise OSError(number, os.strerror(number))


@pytest.fixture
def train(forked, write_config):
    """A monitored training, in a process for which the file system answers so."""

    def go(flush: int | None, lock: int | None) -> tuple[int, str]:
        config = write_config()

        def action() -> int:
            if flush is not None:
                os.fsync = partial(_refuses_folders, flush, os.fsync)
            if lock is not None:
                fcntl.flock = partial(_refuses, lock)
            AcceleratorState._reset_state(reset_partial_state=True)
            options = ["train.max_steps=2", "monitor.every=2", "monitor.stopping=[]", "monitor.sinks={report: {}}"]
            return training.main(config, options)

        child = forked(action)
        return child.ends(60), child.output.read_text()

    return go


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flush", "lock"),
    [
        (errno.EINVAL, None),
        (errno.ENOTSUP, None),
        (None, errno.ENOLCK),
        (None, errno.ENOSYS),
        (errno.EINVAL, errno.EINVAL),
    ],
)
def test_a_run_works_and_one_warning_says_what_is_missing(flush, lock, train, run_folder):
    status, said = train(flush, lock)
    assert status == 0, said
    assert said.count(UNFLUSHED) == (flush is not None)
    assert said.count(UNLOCKED) == (lock is not None)
    assert "Traceback" not in said
    assert [evaluation.step for evaluation in read_run(run_folder).evaluations] == [0, 2]
    assert (run_folder / "checkpoints/step-000002/manifest.json").is_file()
    assert (run_folder / "page/index.html").is_file()


@pytest.mark.slow
def test_a_disk_that_fails_is_no_odd_file_system(train):
    status, said = train(errno.EIO, None)
    assert status == 1
    assert "cannot be written (Input/output error)" in said
    assert "Traceback" not in said


def test_a_lock_that_is_held_is_not_taken_for_a_missing_one(tmp_path):
    with (tmp_path / "lock").open("w") as held, (tmp_path / "lock").open("w") as other:
        assert locks.try_lock(held)
        assert not locks.try_lock(other)
        locks.unlock(held)
        assert locks.try_lock(other)
