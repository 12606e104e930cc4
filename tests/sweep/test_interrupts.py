"""A sweep that is stopped by Ctrl-C, then killed, and each time goes on with the same command."""

import os
import signal

import pytest

from support import sweeps


@pytest.mark.slow
def test_ctrl_c_a_killed_driver_and_the_same_command(tmp_path, tiny_model, photos):
    changes = {"train.max_steps": 200, "train.checkpoint_every": 20, "monitor.every": 100}
    path = sweeps.write_sweep(tmp_path, tiny_model, photos, set=changes, axes={"train.rank": [1, 2]})
    names = ("rank=1", "rank=2")
    driver = sweeps.start(path)
    try:
        sweeps.wait_for(lambda: all(sweeps.has_checkpoint(path, name) for name in names))
        os.killpg(driver.pid, signal.SIGINT)  # a terminal tells the whole group
        assert driver.wait(100) == 130, sweeps.output(path)
        assert "0 of 2 finished, 2 waiting; the same command goes on from here" in sweeps.output(path)
        assert not sweeps.children(path)
        saved = {name: sweeps.newest(path, name) for name in names}
        for name in names:
            assert "ending after this step with a checkpoint" in sweeps.log(path, name)

        driver = sweeps.start(path)
        sweeps.wait_for(lambda: all(sweeps.has_checkpoint(path, name, saved[name]) for name in names))
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        sweeps.wait_for(lambda: not sweeps.children(path))
        killed = {name: sweeps.newest(path, name) for name in names}
    finally:
        sweeps.end(driver)
    status, output = sweeps.sweep(path)
    assert status == 0, output
    assert {trial.attempts for trial in sweeps.trials(path).values()} == {3}
    for name in names:
        assert sweeps.steps(path, name) == [0, 100, 200]
        assert sweeps.begun_at(path, name) == [0, saved[name], killed[name]]
