"""What watches over a trial's process, without Ray: it goes on from checkpoints, and knows what may be tried again."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from finetune_monitor.sweep.plan import make_plan
from finetune_monitor.sweep.spec import load_sweep
from finetune_monitor.sweep.trials.child import PREFIX, USER_ERROR
from finetune_monitor.sweep.trials.supervisor import STOP, TOKEN, Site, Supervisor, TrialDiedError
from support import preloaded, sweeps
from support.places import ROOT


@pytest.fixture
def watch(tmp_path, tiny_model, photos, monkeypatch):
    """A supervisor of one trial, whose config has the given keys."""
    site = Site(str(tmp_path / "sweep"), str(ROOT), "token", 1, ("aesthetic",), 0)
    made = []
    monkeypatch.setattr(sys, "executable", preloaded.python())

    def start(**changes):
        path = sweeps.write_sweep(tmp_path, tiny_model, photos, seeds=[0], set=changes)
        plan = make_plan(load_sweep(path), None)
        for folder in ("configs", ".ray"):
            (plan.folder / folder).mkdir(parents=True, exist_ok=True)
        (plan.folder / "configs/seed=0.yaml").write_text(plan.config_text(plan.trials[0]))
        (plan.folder / ".ray" / TOKEN).write_text("token")
        made.append(Supervisor(site, "seed=0"))
        return made[-1]

    yield start
    for supervisor in made:
        supervisor.stop(0)


@pytest.mark.slow
def test_a_killed_process_is_an_error_and_the_next_goes_on_until_it_is_told_to_stop(watch, tmp_path):
    long = {"train.max_steps": 600, "train.checkpoint_every": 10, "monitor.every": 20}
    first, path = watch(**long), tmp_path / "sweep.yaml"
    assert first.next_result()["step"] == 0
    sweeps.wait_for(lambda: sweeps.has_checkpoint(path, "seed=0"))
    os.kill(sweeps.children(path)["seed=0"], signal.SIGKILL)
    with pytest.raises(TrialDiedError, match=r"ended by signal 9 \(SIGKILL\)"):
        for _ in range(30):
            first.next_result()
    second = watch(**long)
    results = [second.next_result() for _ in range(3)]
    assert [found["again"] for found in results] == [True, False, False]
    newest = results[0]["step"]  # of those that the first had recorded
    assert [found["step"] for found in results] == [newest, newest + 20, newest + 40]
    assert not any(found["done"] for found in results)
    goals, scores = ([found[key]["aesthetic"] for found in results] for key in ("goal", "scores"))
    assert min(scores) - 0.5 < goals[-1] <= max(scores) + 0.5  # of the smoothed curve, with what was before

    sweeps.wait_for(lambda: len(sweeps.begun_at(path, "seed=0")) == 2)
    killed_at, saved = sweeps.begun_at(path, "seed=0")[1], sweeps.newest(path, "seed=0")
    assert killed_at >= 10
    (tmp_path / "sweep/.ray" / STOP).touch()
    found = second.next_result()
    assert (found["done"], found["outcome"]) == (True, "interrupted")
    assert sweeps.newest(path, "seed=0") >= max(saved, killed_at)
    assert json.loads((tmp_path / "sweep/trials/seed=0/run.json").read_text())["ended"]["reason"] == "interrupted"


def test_a_machine_without_the_folder_is_told_so(watch, tmp_path):
    supervisor = watch()
    (tmp_path / "sweep/.ray" / TOKEN).write_text("of another machine")
    found = supervisor.next_result()
    assert found["outcome"] == "failed"
    assert "storage that all machines of the cluster share" in found["error"]


@pytest.mark.slow
def test_a_process_dies_with_its_parent(tmp_path):
    (tmp_path / "endless.py").write_text("import time\ntime.sleep(600)\n")
    content = yaml.safe_load((ROOT / "configs/demo.yaml").read_text())
    content["monitor"]["hooks"] = ["endless:hook"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "finetune_monitor.sweep.trials.process", str(tmp_path / "config.yaml")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True) as child:
        time.sleep(1)
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(20) == -signal.SIGKILL


@pytest.mark.slow
def test_a_config_that_is_not_valid_is_the_users_error(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": "x"}))
    command = [sys.executable, "-m", "finetune_monitor.sweep.trials.process", str(tmp_path / "config.yaml")]
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as child:
        assert child.wait(60) == USER_ERROR
        assert child.stderr.read().startswith(f"{PREFIX}{tmp_path / 'config.yaml'}: the config is not valid")
