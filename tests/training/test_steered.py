"""Trainings in processes of their own that are steered from outside: stopped, evaluated, held, and interrupted."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from finetune_monitor.cli import main
from finetune_monitor.record.history import read_run
from finetune_monitor.record.live import PAUSE, read_status
from finetune_monitor.record.run_state import state_of
from finetune_monitor.training.config import load_config
from finetune_monitor.training.run import run as train
from support.forked import Child

pytestmark = pytest.mark.slow

LONG = ("train.max_steps=100000", "monitor.every=50000", "train.checkpoint_every=50000", "monitor.sinks={}")


@pytest.fixture
def begun(write_config, forked, tmp_path) -> Callable[[], Child]:
    """A training that would take hours, after its first steps."""
    config = load_config(write_config(), LONG)

    def begin() -> Child:
        AcceleratorState._reset_state(reset_partial_state=True)
        child, before = forked(lambda: train(config)), read_status(tmp_path / "run")
        child.until(lambda: (status := read_status(tmp_path / "run")) and status != before and status.step > 0)
        return child

    return begin


def checkpoints(run: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*")]


def test_it_is_evaluated_and_stopped_on_request_and_the_same_command_goes_on(begun, tmp_path):
    run = tmp_path / "run"
    training = begun()
    assert main(["evaluate", str(run)]) == 0
    training.until(lambda: len(read_run(run).evaluations) == 2)
    assert main(["stop", str(run)]) == 0
    assert training.ends(40) == 0
    assert "stopping on request" in training.output.read_text()
    history = read_run(run)
    assert [each.on_request for each in history.evaluations] == [False, True, True]
    assert (history.reason, state_of(history).name) == ("requested", "finished")
    last = history.evaluations[-1].step
    assert checkpoints(run) == [last]
    assert json.loads((run / "last/finetune_monitor.json").read_text())["step"] == last
    training = begun()
    training.until(lambda: read_status(run).step > last)
    assert state_of(read_run(run)).name == "training"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_held_training_with_a_checkpoint_of_the_step_it_is_held_at(number, begun, tmp_path):
    run = tmp_path / "run"
    training = begun()
    assert main(["pause", str(run)]) == 0
    training.until(lambda: state_of(read_run(run)).name == "paused")
    step = read_status(run).step
    said = f"step {step}: paused on request; to continue: finetune-monitor resume {run}"
    training.until(lambda: said in training.output.read_text())
    os.kill(training.pid, number)
    assert training.ends(20) == 128 + number
    assert checkpoints(run) == [step]
    assert read_run(run).reason == "interrupted"
    assert not (run / "control").exists()


def test_a_pause_of_a_killed_training_does_not_hold_the_next_one(begun, tmp_path):
    run = tmp_path / "run"
    training = begun()
    (run / "control" / PAUSE).touch()  # by hand
    training.until(lambda: state_of(read_run(run)).name == "paused")
    os.kill(training.pid, signal.SIGKILL)
    training.ends(20)
    assert (run / "control" / PAUSE).exists()
    assert state_of(read_run(run)).name == "interrupted"
    again = begun()
    assert state_of(read_run(run)).name == "training"
    assert "ignoring pause, asked before this process started" in again.output.read_text()
