"""A sweep of two trials, one at a time, that is stopped by Ctrl-C, then killed, and goes on with the same command."""

import os
import signal
import sys
from pathlib import Path

import pytest

from support import sweeps


@pytest.mark.slow
def test_ctrl_c_a_killed_driver_and_the_same_command(tmp_path, tiny_model, photos):
    changes = {"train.max_steps": 200, "train.checkpoint_every": 20, "monitor.every": 100}
    alone = {"cpus": max(1, (os.cpu_count() or 1) - 0.5)}  # what is left is too little for another trial
    path = sweeps.write_sweep(tmp_path, tiny_model, photos, set=changes, axes={"train.rank": [1, 2]}, resources=alone)
    driver = sweeps.start(path, python=sys.executable)
    try:
        sweeps.wait_for(lambda: sweeps.has_checkpoint(path, "rank=1"))
        os.killpg(driver.pid, signal.SIGINT)  # a terminal tells the whole group
        assert driver.wait(100) == 130, sweeps.output(path)
        assert "0 of 2 finished, 2 waiting; run the same command to resume" in sweeps.output(path)
        assert not sweeps.children(path)
        saved = sweeps.newest(path, "rank=1")
        assert "stopping after this step with a checkpoint" in sweeps.log(path, "rank=1")

        driver = sweeps.start(path)
        sweeps.wait_for(lambda: sweeps.has_checkpoint(path, "rank=1", saved))
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        sweeps.wait_for(lambda: not sweeps.children(path))
        killed = sweeps.newest(path, "rank=1")
    finally:
        sweeps.end(driver)
    status, output = sweeps.sweep(path)
    assert status == 0, output
    assert {name: trial.attempts for name, trial in sweeps.trials(path).items()} == {"rank=1": 3, "rank=2": 1}
    assert sweeps.begun_at(path, "rank=1") == [0, saved, killed]
    assert all(sweeps.steps(path, name) == [0, 100, 200] for name in ("rank=1", "rank=2"))


@pytest.mark.slow
def test_sigterm_to_the_whole_group_leaves_ray_to_the_driver(tmp_path, tiny_model, photos):
    changes = {"train.max_steps": 2000, "train.checkpoint_every": 20, "monitor.every": 1000}
    path = sweeps.write_sweep(tmp_path, tiny_model, photos, set=changes, seeds=[0])
    driver = sweeps.start(path, python=sys.executable)
    try:
        sweeps.wait_for(lambda: sweeps.has_checkpoint(path, "seed=0"))
        temporary = Path((tmp_path / "sweep/.ray/temporary").read_text())
        os.killpg(driver.pid, signal.SIGTERM)  # as `timeout` does
        assert driver.wait(40) == 143, sweeps.output(path)  # Ray waits a minute for processes of its own that ended
    finally:
        sweeps.end(driver)
    assert "0 of 1 finished, 1 waiting; run the same command to resume" in sweeps.output(path)
    assert not temporary.exists()
