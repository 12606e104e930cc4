"""Sweeps as a user runs them: trials that are killed, that fail, that are stopped, and the same command again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sweeps
import torch
from safetensors.torch import load_file

from conftest import ROOT
from finetune_monitor.sweep.state import TrialState

pytestmark = pytest.mark.slow

LONG = {"train.max_steps": 60, "train.checkpoint_every": 5, "monitor.every": 30}


@pytest.fixture
def write(tmp_path, tiny_model, photos):
    return lambda **keys: sweeps.write_sweep(tmp_path, tiny_model, photos, **keys)


def test_four_trials_of_which_one_is_killed_and_comes_back(write, tmp_path):
    path = write(set=LONG, axes={"data.instance_count": [1, 2]}, seeds=[0, 1])
    name = "instance_count=2_seed=0"
    driver = sweeps.start(path)
    try:
        sweeps.wait_for(lambda: sweeps.has_checkpoint(path, name))
        os.kill(sweeps.children(path)[name], signal.SIGKILL)
        assert driver.wait(120) == 0, sweeps.output(path)
    finally:
        sweeps.end(driver)
    found = sweeps.trials(path)
    assert list(found) == [f"instance_count={n}_seed={s}" for n in (1, 2) for s in (0, 1)]
    assert {trial.state for trial in found.values()} == {TrialState.FINISHED}
    assert {trial.name: trial.attempts for trial in found.values() if trial.attempts > 1} == {name: 2}
    assert f"{name}: tried again from its checkpoint: ended by signal 9 (SIGKILL)" in sweeps.output(path)
    assert all(sweeps.steps(path, each) == [0, 30, 60] for each in found)
    assert not (tmp_path / "sweep/.ray").exists()
    assert (tmp_path / "sweep/sweep.csv").read_text().count("\n") == 1 + 4 * 3
    assert same_as_alone(tmp_path, name)


def same_as_alone(folder: Path, name: str) -> bool:
    """Whether the trial that was killed learnt what the same config learns without a sweep."""
    config = folder / "sweep/configs" / f"{name}.yaml"
    command = [sys.executable, "train.py", "--config", str(config), f"output_dir={folder / 'alone'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=100)
    weights = "checkpoints/step-000060/weights.safetensors"
    ours, theirs = load_file(folder / "sweep/trials" / name / weights), load_file(folder / "alone" / weights)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_trial_that_fails_at_once_is_shown_and_the_rest_goes_on(write, tiny_model, tmp_path):
    path = write(axes={"model": [str(tmp_path / "gone"), str(tiny_model)]})
    status, output = sweeps.sweep(path)
    failed, finished = sweeps.trials(path).values()
    assert (status, failed.state, finished.state) == (1, TrialState.FAILED, TrialState.FINISHED)
    assert failed.attempts == 1  # another one would end the same way
    assert "gone" in failed.error
    assert f"failed: {failed.error.splitlines()[0]}" in output
    assert "1 of 2 finished, 1 failed" in output
    assert f"{failed.name}.log" in output


def test_ctrl_c_a_killed_driver_and_the_same_command(write, tmp_path):
    path = write(set={**LONG, "train.max_steps": 400, "monitor.every": 200}, axes={"train.rank": [1, 2]})
    driver = sweeps.start(path)
    try:
        sweeps.wait_for(lambda: sweeps.has_checkpoint(path, "rank=1") and sweeps.has_checkpoint(path, "rank=2"))
        os.killpg(driver.pid, signal.SIGINT)  # a terminal tells the whole group
        assert driver.wait(25) == 130, sweeps.output(path)
        assert "0 of 2 finished, 2 waiting; the same command goes on from here" in sweeps.output(path)
        assert not sweeps.children(path)
        saved = {name: newest(path, name) for name in ("rank=1", "rank=2")}
        log = (tmp_path / "sweep/logs/rank=1.log").read_text()
        assert "ending after this step with a checkpoint" in log

        driver = sweeps.start(path)
        sweeps.wait_for(lambda: all(sweeps.has_checkpoint(path, name, step) for name, step in saved.items()))
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        sweeps.wait_for(lambda: not sweeps.children(path), seconds=15)
    finally:
        sweeps.end(driver)
    status, output = sweeps.sweep(path)
    assert status == 0, output
    assert {trial.attempts for trial in sweeps.trials(path).values()} == {3}
    assert sweeps.steps(path, "rank=1") == sweeps.steps(path, "rank=2") == [0, 200, 400]


def newest(path: Path, name: str) -> int:
    folders = (path.parent / "sweep/trials" / name / "checkpoints").glob("step-*")
    return max(int(folder.name[5:]) for folder in folders)


def test_asha_stops_what_lags_behind_trials_of_an_earlier_command(write, tmp_path):
    short = {**LONG, "train.max_steps": 40, "monitor.every": 10}
    path = write(set=short, axes={"train.rank": [1]}, early_termination={"rule": "asha", "reduction": 2})
    assert sweeps.sweep(path)[0] == 0
    raise_scores(tmp_path / "sweep/trials/rank=1/evaluations.jsonl")
    status, output = sweeps.sweep(path, "axes={train.rank: [1, 2]}")
    assert status == 0, output
    found = sweeps.trials(path)
    assert found["rank=1"].attempts == 1  # told to ASHA from its record
    assert found["rank=2"].state == TrialState.STOPPED_EARLY, output
    assert sweeps.steps(path, "rank=2")[-1] < 40
    assert newest(path, "rank=2") >= 10
    assert sweeps.sweep(path, "axes={train.rank: [1, 2]}")[0] == 0
    assert sweeps.trials(path) == found  # nothing was run


def raise_scores(path: Path) -> None:
    """Make a recorded trial better than any other can be."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["scores"]["aesthetic"]["mean"] = 10.0
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_search_is_continued(write):
    space = {"train.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}, "train.rank": [1, 2]}
    path = write(search={"trials": 2, "space": space}, seeds=[3])
    assert sweeps.sweep(path)[0] == 0, sweeps.output(path)
    first = sweeps.trials(path)
    status, output = sweeps.sweep(path, "search.trials=3")
    assert status == 0, output
    assert not [line for line in output.splitlines() if line.startswith("[")]  # what Ray and Optuna log
    second = sweeps.trials(path)
    assert {name: second[name] for name in first} == first
    assert len(second) == len({json.dumps(dict(trial.settings)) for trial in second.values()}) == 3
    assert all(1e-5 <= trial.settings["train.learning_rate"] <= 1e-2 for trial in second.values())
    assert {trial.seed for trial in second.values()} == {3}
