"""An error in a step while workers read photos: they end, and so does the run, with the original error."""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from support import needs
from support.trainings import Training, started, train

NEVER = ["monitor.enabled=false", "train.cache_latents=never", "data.workers=1", "train.max_steps=100000"]
SOON = 15
"""Seconds; workers that are joined at exit, deaf to signals, would take for ever."""


@pytest.fixture
def own_photos(photos, tmp_path) -> Path:
    return shutil.copytree(photos, tmp_path / "photos")


@pytest.fixture
def command(write_config, own_photos) -> list[str]:
    return train(write_config(), f"data.instance_images={own_photos}", *NEVER)


def _trains(training: Training, folder: Path) -> None:
    """Wait for the first checkpoint, when all workers are reading."""
    training.until(lambda: any(folder.glob("run/checkpoints/step-*/manifest.json")))


def _ends_in_an_error(training: Training, *said: str, seconds: float = SOON) -> None:
    assert training.ends(seconds) == 2
    message = training.said.rpartition("train.py: ")[2]
    assert all(each in message for each in said)
    assert "Caught" not in training.said
    assert "Traceback" not in training.said


@pytest.mark.slow
def test_a_photo_that_is_removed_ends_the_run_with_its_name(command, own_photos, tmp_path):
    with started(tmp_path / "said", command) as training:
        _trains(training, tmp_path)
        (own_photos / "1.png").unlink()
        _ends_in_an_error(training, f"{own_photos / '1.png'}: no such file; expected an image")


@pytest.mark.slow
@needs.mounts
def test_a_full_dev_shm_ends_the_run_and_says_what_to_do(command, tmp_path):
    command[0] = sys.executable  # no other Python would see the mount
    keep, give_back = 'mount --bind "$TMPDIR" /mnt', 'mkdir -p "$TMPDIR" && mount --bind /mnt "$TMPDIR"'
    small = f'{keep} && mount -t tmpfs -o size=128k tmpfs /dev/shm && {give_back} && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", small, "sh", *command]
    with started(tmp_path / "said", words, TMPDIR=tempfile.gettempdir()) as training:
        _ends_in_an_error(training, "no space left in shared memory", "enlarge /dev/shm", "or set it to 0", seconds=60)


def _readers(training: Training) -> list[psutil.Process]:
    children = psutil.Process(training.process.pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_run_even_if_the_other_hangs(command, tmp_path):
    with started(tmp_path / "said", [*command, "data.workers=2"]) as training:
        _trains(training, tmp_path)
        first, second = _readers(training)
        second.suspend()
        first.kill()
        _ends_in_an_error(training, "a process that reads images has ended (SIGKILL)", "lower data.workers")


@pytest.mark.slow
def test_sigterm_ends_the_workers_too(command, tmp_path):
    with started(tmp_path / "said", command) as training:
        _trains(training, tmp_path)
        os.killpg(training.process.pid, signal.SIGTERM)  # as a scheduler does
        assert training.ends(SOON) == 128 + signal.SIGTERM
        assert "Traceback" not in training.said
