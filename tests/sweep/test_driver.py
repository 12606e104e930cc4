"""Sweeps as a user runs them: trials that are killed, that fail, that are stopped early, and a search continued."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune_monitor.record.sweep_directory import TrialState
from finetune_monitor.sweep.run import run_sweep
from finetune_monitor.training.config import load_config
from finetune_monitor.training.run import run
from support import sweeps

pytestmark = pytest.mark.slow


@pytest.fixture
def write(tmp_path, tiny_model, photos):
    return lambda **keys: sweeps.write_sweep(tmp_path, tiny_model, photos, **keys)


def test_one_of_two_trials_is_killed_and_comes_back_while_a_third_fails_at_once(write, tmp_path, photos):
    path = write(set={"train.checkpoint_every": 10, "monitor.every": 30}, people=people(tmp_path, photos))
    driver = sweeps.start(path)
    try:
        sweeps.wait_for(lambda: sweeps.has_checkpoint(path, "ben"))
        os.kill(sweeps.children(path)["ben"], signal.SIGKILL)
        assert driver.wait(300) == 1, sweeps.output(path)
    finally:
        sweeps.end(driver)
    found, output = sweeps.trials(path), sweeps.output(path)
    failed = found.pop("ana")
    assert (failed.state, failed.attempts) == (TrialState.FAILED, 1)  # another one would end the same way
    assert failed.error.startswith("the run cannot start:")
    assert "damaged" in failed.error
    assert f"failed: {failed.error.splitlines()[0]}" in output
    assert "2 of 3 finished, 1 failed" in output
    assert "ana.log" in output
    assert {trial.state for trial in found.values()} == {TrialState.FINISHED}
    assert {name: trial.attempts for name, trial in found.items()} == {"ben": 2, "cy": 1}
    assert "ben: retrying from its checkpoint: ended by signal 9 (SIGKILL)" in output
    first, second = sweeps.begun_at(path, "ben")
    assert first == 0 < second
    assert {name: sweeps.steps(path, name)[-1] for name in found} == {"ben": 90, "cy": 30}
    assert sweeps.steps(path, "ben") == [0, 30, 60, 90]
    assert (tmp_path / "sweep/sweep.csv").read_text().count("\n") == 1 + 1 + 4 + 2  # the failed one has a row too
    assert not (tmp_path / "sweep/.ray").exists()
    assert same_as_alone(tmp_path, "ben", 90)


def people(folder: Path, photos: Path) -> dict[str, dict[str, object]]:
    """Three, of whom the first has a damaged photo and the second trains for long enough to be killed."""
    (folder / "damaged").mkdir()
    (folder / "damaged/1.png").write_bytes(b"no image")
    steps = {"ana": 30, "ben": 90, "cy": 30}
    images = {name: folder / "damaged" if name == "ana" else photos for name in steps}
    return {name: {"data.instance_images": str(images[name]), "train.max_steps": steps[name]} for name in steps}


def same_as_alone(folder: Path, name: str, step: int) -> bool:
    """Whether the trial that was killed learned what the same config learns without a sweep."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a trial has it: sums would be added up in another order
    try:
        config = load_config(folder / "sweep/configs" / f"{name}.yaml", [f"output_dir={folder / 'alone'}"])
        assert run(config) == 0
    finally:
        torch.set_num_threads(threads)
    weights = f"checkpoints/step-{step:06d}/weights.safetensors"
    ours, theirs = load_file(folder / "sweep/trials" / name / weights), load_file(folder / "alone" / weights)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_search_is_continued_and_asha_stops_what_lags_behind_its_earlier_trials(write):
    space = {"train.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}, "train.rank": [1, 2]}
    steps = {"train.max_steps": 40, "train.checkpoint_every": 5, "monitor.every": 10}
    rule = {"rule": "asha", "reduction": 2}
    path = write(set=steps, search={"trials": 2, "space": space}, seeds=[3], early_termination=rule)
    assert sweeps.sweep(path)[0] == 0, sweeps.output(path)
    first = sweeps.trials(path)
    for name in first:
        raise_scores(path.parent / "sweep/trials" / name / "evaluations.jsonl")

    status, output = sweeps.sweep(path, "search.trials=3")
    assert status == 0, output
    assert not [line for line in output.splitlines() if line.startswith("[")]  # what Ray and Optuna log
    second = sweeps.trials(path)
    assert {name: second[name] for name in first} == first  # told to ASHA and to the search from their records
    assert len(second) == len({json.dumps(dict(trial.settings)) for trial in second.values()}) == 3
    assert all(1e-5 <= trial.settings["train.learning_rate"] <= 1e-2 for trial in second.values())
    assert {trial.seed for trial in second.values()} == {3}
    (third,) = second.keys() - first
    assert second[third].state == TrialState.STOPPED_EARLY, output
    assert sweeps.steps(path, third)[-1] < 40
    assert sweeps.newest(path, third) >= 10

    assert run_sweep(path, ["search.trials=3"]) == 0
    assert sweeps.trials(path) == second  # nothing was run


def raise_scores(path: Path) -> None:
    """Make a recorded trial better than any other can be."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["scores"]["aesthetic"]["mean"] = 10.0
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
