"""A sweep's parts while it runs, without Ray's processes: who is judged, what is tried again, what is said."""

import errno
import json
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tqdm import tqdm

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import write_atomic
from finetune_monitor.base.interrupts import Interrupt
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.run_directory import lock
from finetune_monitor.record.sweep_directory import TrialRecord, TrialState
from finetune_monitor.sweep import run
from finetune_monitor.sweep.ledger import Ledger
from finetune_monitor.sweep.live_table import SweepTable
from finetune_monitor.sweep.plan import make_plan
from finetune_monitor.sweep.spec import AshaConfig, load_sweep
from finetune_monitor.sweep.trials.child import Child
from finetune_monitor.sweep.trials.supervisor import STOP, Site, Supervisor, TrialDiedError
from support import sweep_folders, sweeps


@pytest.fixture
def plan(tmp_path, tiny_model, photos):
    """A plan whose sweep has the given keys, of two trials without any."""

    def make(**keys):
        keys = keys or {"axes": {"train.rank": [1, 2]}}
        return make_plan(load_sweep(sweeps.write_sweep(tmp_path, tiny_model, photos, **keys)), None)

    return make


@pytest.mark.parametrize("searched", [False, True])
def test_a_trial_whose_watcher_cannot_start_has_failed(plan, searched, capsys):
    """Tune then tells of the error alone; a trial of a search is not in the ledger yet."""
    from finetune_monitor.sweep.ray_callbacks import Watch

    space = {"train.rank": [1, 2, 3]}
    plan = plan(search={"trials": 1, "space": space}) if searched else plan()
    ledger = Ledger(plan.folder, {}, plan.trials)
    board = SweepTable(ledger, [], 2, plan.max_steps)
    watch = Watch(
        plan, ledger, board, lambda: None, Interrupt("", lambda: None, lambda number: [number], forwarded=False)
    )
    config = {"train.rank": 2, "sweep.person": None, "sweep.seed": None} if searched else {"sweep.trial": "rank=2"}
    error = "Failure # 1\nthe actor died:\n  File x\nModuleNotFoundError: No module named 'peft'\n\n"
    watch.on_trial_error(1, [], SimpleNamespace(config=config, get_error=lambda: error))
    (trial,) = (trial for trial in ledger if trial.name.startswith("rank=2"))
    assert (trial.state, trial.attempts) == (TrialState.FAILED, 1)
    assert trial.error.endswith("could not start: ModuleNotFoundError: No module named 'peft'")
    assert f"{trial.name}: failed: {trial.error}" in capsys.readouterr().out


@pytest.fixture
def command(plan, monkeypatch, tmp_path):
    """The command for a sweep of two trials, with something else in the place of Ray."""

    def go(run_trials, session=nullcontext):
        monkeypatch.setattr(run, "prepare_ray", lambda address: None)
        monkeypatch.setattr(run, "ray_session", lambda address, scratch: session())
        monkeypatch.setattr(run, "resources_of", lambda chosen: {"cpu": 1, "gpu": 0})
        monkeypatch.setattr("finetune_monitor.sweep.ray_tuning.run_trials", run_trials)
        return run.run_sweep(tmp_path / "sweep.yaml")

    plan()
    return go


def test_the_status_is_not_0_while_a_trial_is_not_over(command, capsys):
    assert command(lambda *given: None) == 1
    assert "2 waiting; run the same command to resume" in capsys.readouterr().out


METRIC = "goal/face_similarity"


def asha(plan, **records):
    """ASHA with rungs at 10, 20 and 40, told of trials by name with their means by step; none has ended."""
    from finetune_monitor.sweep.ray_tuning import make_scheduler

    plan = plan(set={"train.max_steps": 79}, seeds=[0])
    for name, means in records.items():
        sweep_folders.write_trial(plan.folder / "trials" / name, means, reason=None, images=False)
    rule = AshaConfig(metric="face_similarity", grace_steps=10, reduction=2)
    plan = replace(plan, spec=plan.spec.model_copy(update={"early_termination": rule}))
    return make_scheduler(plan, [TrialRecord(name, {}) for name in records])


def judged(scheduler, name, step, mean):
    return scheduler.on_trial_result(None, SimpleNamespace(config={"sweep.trial": name}), {"step": step, METRIC: mean})


def test_nothing_is_published_while_ray_is_shut_down(command, monkeypatch):
    """Ray ends the process if another thread frees one of its objects meanwhile."""
    order = []

    class Noted(run.Publisher):
        def close(self, seconds):
            super().close(seconds)
            order.append("publisher")

    @contextmanager
    def session():
        yield
        order.append("Ray")

    monkeypatch.setattr(run, "Publisher", Noted)
    command(lambda plan, ledger, site, resources, watch, stopper: None, session)
    assert order == ["publisher", "Ray"]


def test_asha_does_not_judge_a_trial_again_at_rungs_it_passed_before(plan):
    scheduler = asha(plan, old={0: 0.0, 10: 0.1, 25: 0.2}, new={0: 0.0})
    for name in ("old", "new", "third"):
        scheduler.on_trial_add(None, SimpleNamespace(config={"sweep.trial": name}))
    assert judged(scheduler, "new", 10, 0.9) == "CONTINUE"
    assert judged(scheduler, "new", 20, 0.9) == "CONTINUE"
    assert judged(scheduler, "old", 25, 0.2) == "CONTINUE"  # told again
    assert judged(scheduler, "old", 30, 0.2) == "CONTINUE"
    assert judged(scheduler, "third", 10, 0.05) == "STOP"  # rung 10 holds 0.1 and 0.9
    assert judged(scheduler, "new", 40, 0.9) == "CONTINUE"
    assert judged(scheduler, "old", 40, 0.2) == "STOP"


def test_a_search_over_the_number_of_steps_is_judged_up_to_the_longest(plan):
    space = {"train.max_steps": {"low": 20, "high": 60}, "train.rank": [1, 2]}
    assert plan(search={"trials": 2, "space": space}, early_termination="asha").longest == 60


@pytest.fixture
def watched(tmp_path, tiny_model, photos, monkeypatch):
    """A supervisor of a trial of 100 steps, recorded up to step 50; its process only says how it ended."""

    def make(status, meanwhile=lambda run_dir: None):
        path = sweeps.write_sweep(tmp_path, tiny_model, photos, seeds=[0], set={"train.max_steps": 100})
        plan = make_plan(load_sweep(path), None)
        for folder in ("configs", ".ray"):
            (plan.folder / folder).mkdir(parents=True, exist_ok=True)
        (plan.folder / "configs/seed=0.yaml").write_text(plan.config_text(plan.trials[0]))
        (plan.folder / ".ray/token").write_text("token")

        def child(*given):
            meanwhile(plan.folder / "trials/seed=0")
            return SimpleNamespace(poll=lambda: status, error=lambda: "it broke", stop=lambda seconds: None)

        monkeypatch.setattr("finetune_monitor.sweep.trials.supervisor.Child", child)
        return Supervisor(Site(str(plan.folder), os.getcwd(), "token", 1, ("face_similarity",), 0), "seed=0")

    return make


def write_trial(run_dir, reason):
    sweep_folders.write_trial(run_dir, {0: 0.1, 25: 0.5, 50: 0.3}, 0, reason, images=False)


def rewrite_end(run_dir, reason):
    content = json.loads((run_dir / "run.json").read_text())
    write_atomic(run_dir / "run.json", json.dumps({**content, "ended": {"reason": reason}}).encode())


def test_a_new_attempt_tells_the_newest_of_what_was_recorded_and_says_so(watched, tmp_path):
    write_trial(tmp_path / "sweep/trials/seed=0", None)
    first = (supervisor := watched(1)).next_result()
    assert (first["step"], first["again"], first["done"]) == (50, True, False)
    assert first["goal"]["face_similarity"] == pytest.approx(
        (0.5 + 0.5 + 0.3) / 3
    )  # the best of the smoothed curve until then
    with pytest.raises(TrialDiedError):
        supervisor.next_result()


@pytest.mark.slow
@pytest.mark.parametrize("status", [-11, 1, 0])
@pytest.mark.parametrize(("reason", "outcome"), [("patience", "finished"), ("loss_not_finite", "failed")])
def test_a_run_that_has_ended_has_ended_however_its_process_did(watched, tmp_path, status, reason, outcome):
    write_trial(tmp_path / "sweep/trials/seed=0", None)
    supervisor = watched(status, lambda run_dir: rewrite_end(run_dir, reason))
    supervisor.next_result()
    assert supervisor.next_result()["outcome"] == outcome


@pytest.mark.slow
@pytest.mark.parametrize("reason", StopReason)
def test_the_end_of_a_former_attempt_says_nothing_of_this_one(watched, tmp_path, reason):
    write_trial(tmp_path / "sweep/trials/seed=0", reason)
    supervisor = watched(1)
    supervisor.next_result()
    with pytest.raises(TrialDiedError, match="it broke"):
        supervisor.next_result()


@pytest.mark.slow
def test_an_interrupted_trial_does_not_start_its_process(watched, tmp_path):
    begun = []
    supervisor = watched(None, begun.append)
    (run_dir := tmp_path / "sweep/trials/seed=0").mkdir(parents=True)
    with lock(run_dir), ThreadPoolExecutor(1) as pool:  # a former attempt's process is still dying
        waiting = pool.submit(supervisor.next_result)
        with pytest.raises(NotYetError):
            waiting.result(0.5)
        (tmp_path / "sweep/.ray" / STOP).touch()
        assert waiting.result(20)["outcome"] == "interrupted"
    assert not begun


@pytest.mark.parametrize(("gpus", "seen"), [(0, ""), (0.5, "3")])
def test_a_trial_without_gpus_sees_none(tmp_path, monkeypatch, gpus, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    given = {}
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: given.update(options["env"]))
    Child(tmp_path / "config.yaml", tmp_path / "log", tmp_path, 1, gpus)
    assert given["CUDA_VISIBLE_DEVICES"] == seen


def test_a_full_disk_is_told_and_nothing_of_the_session_is_left(command, monkeypatch, tmp_path):
    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "sweep.json")

    threads = set(threading.enumerate())
    monkeypatch.setattr(Ledger, "close", full)
    with pytest.raises(UserError, match=r"sweep.json: cannot write or read it \(No space left"):
        command(full)
    left = set(threading.enumerate()) - threads - {tqdm.monitor}  # which the first progress bar starts
    for thread in left:
        thread.join(5)
    assert not any(thread.is_alive() for thread in left)
    assert not (tmp_path / "sweep/.ray").exists()


def test_a_plan_is_made_once(command, monkeypatch):
    made = []

    def counted(spec, known):
        made.append(known)
        return make_plan(spec, known)

    monkeypatch.setattr(run, "make_plan", counted)
    for number in (1, 2):
        command(lambda *given: None)
        assert len(made) == number
