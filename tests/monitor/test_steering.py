"""Requests to a run in progress: carried out at the next step, recorded, and without effect on schedule or rules."""

import fcntl
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from finetune_monitor import FinetuneMonitor, Patience
from finetune_monitor.base.errors import UserError
from finetune_monitor.base.locks import is_locked
from finetune_monitor.monitor.evaluator import Evaluator, WarnOnce
from finetune_monitor.monitor.steering import Inbox
from finetune_monitor.record import live
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.history import read_run
from finetune_monitor.record.live import EVALUATE, PAUSE, STOP, Status, read_status, request, withdraw
from finetune_monitor.record.run_directory import LOCK, lock
from finetune_monitor.record.run_state import state_of
from support.scripted import GRID, Scripted


@pytest.fixture
def made(pipeline, run_folder):
    def make(**settings) -> FinetuneMonitor:
        metric = Scripted(settings.pop("scores", [0.1] * 9))
        return FinetuneMonitor(pipeline, GRID, [metric], run_folder, **{"every": 10, **settings}).start()

    return make


def recorded(folder: Path) -> list[tuple[str, int]]:
    rows = map(json.loads, (folder / "requests.jsonl").read_text().splitlines())
    return [(row["request"], row["step"]) for row in rows]


def test_a_stop_ends_the_run_at_the_next_step_and_is_recorded_as_one(made, run_folder):
    monitor = made()
    assert not monitor.on_step_end(1)
    request(run_folder, STOP)
    assert monitor.on_step_end(2)
    monitor.evaluate(2)
    monitor.close()
    run = read_run(run_folder)
    assert run.reason == StopReason.REQUESTED
    assert run.evaluations[-1].decision.stop
    assert "stopped by request" in " ".join(run.run["verdict"]["sentences"])
    assert "saved" not in " ".join(run.run["verdict"]["sentences"])
    assert recorded(run_folder) == [("stop", 2)]


def test_a_stopped_run_that_is_resumed_goes_on(made, run_folder):
    monitor = made()
    request(run_folder, STOP)
    monitor.on_step_end(10)
    monitor.close()
    again = made(resume_step=10)
    assert not again.on_step_end(11)
    again.close(StopReason.MAX_STEPS)
    assert read_run(run_folder).reason == StopReason.MAX_STEPS


def test_a_request_to_a_loop_whose_step_count_restarts_does_not_end_it(made, run_folder, caplog):
    monitor = made()
    monitor.on_step_end(10)
    request(run_folder, EVALUATE)
    assert not monitor.on_step_end(1)
    assert not list((run_folder / "control").iterdir())
    assert [evaluation.step for evaluation in monitor.close().evaluations] == [0, 10]
    assert "step 1 comes after an evaluation at step 10 and is skipped" in caplog.text


def test_rules_do_not_count_the_evaluation_at_which_a_run_was_stopped(made, run_folder):
    rule = {"scores": [0.5, 0.5, 0.1], "stopping": Patience("scripted", patience=2)}
    monitor = made(**rule)
    request(run_folder, STOP)
    assert monitor.on_step_end(5)
    monitor.evaluate(5)
    monitor.close()
    again = made(resume_step=5, **rule)
    assert [again.on_step_end(step) for step in (6, 10, 20)] == [False, False, True]
    again.close()


@pytest.mark.slow
def test_an_evaluation_on_request_changes_neither_the_schedule_nor_what_rules_count(made, run_folder):
    def steps(scores, asked, **settings):
        monitor = made(scores=scores, stopping=Patience("scripted", patience=2), **settings)
        for step in range(1, 41):
            if step in asked:
                request(run_folder, EVALUATE)
            if monitor.on_step_end(step):
                break
        monitor.close()
        return step, [(each.step, each.on_request) for each in read_run(run_folder).evaluations]

    scores = [0.5, 0.4, 0.4, 0.4, 0.6, 0.3, 0.3]  # three requested in between: they would have exhausted the patience
    found = steps(scores, (3, 4, 5, 10), max_overhead=0.999)
    expected = [(0, False), (3, True), (4, True), (5, True), (10, False), (20, False), (30, False)]
    assert found == (30, expected)
    assert recorded(run_folder) == [("evaluate", step) for step in (3, 4, 5, 10)]


def test_the_budget_does_not_count_what_was_asked_for(made, run_folder, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("finetune_monitor.monitor.budget.time.monotonic", lambda: clock[0])
    monitor = made(max_overhead=0.5)
    monitor._budget.cost = 6.0  # as if an evaluation took six seconds, and a step takes one
    request(run_folder, EVALUATE)
    for step in range(1, 11):
        clock[0] += 1
        monitor.on_step_end(step)
    monitor.close()
    assert [each.step for each in monitor.evaluations] == [0, 1, 10]  # counted from step 1, step 10 would be too early


def test_a_request_at_a_scheduled_evaluation_does_not_evaluate_twice(made, run_folder):
    monitor = made()
    request(run_folder, EVALUATE)
    monitor.on_step_end(10)
    monitor.close()
    assert [(each.step, each.on_request) for each in monitor.evaluations] == [(0, False), (10, False)]


def test_alarms_do_not_sound_twice_in_a_row_because_somebody_looked_twice(pipeline, run_folder):
    class Noisy(Scripted):
        columns: ClassVar = {"scripted": ScoreColumn(bounds=(0.0, 1.0), alarm=0.5, says="it is low")}

        def score(self, images, cells):
            return {"scripted": np.array([0.1, 0.7])}  # below the level on average, which may be chance

    monitor = FinetuneMonitor(pipeline, GRID, [Noisy([])], run_folder, every=10).start()
    for step in range(1, 21):
        if step in (8, 9):
            request(run_folder, EVALUATE)
        monitor.on_step_end(step)
    monitor.close()
    assert [(each.step, each.alarms) for each in monitor.evaluations[1:]] == [
        (8, ()), (9, ()), (10, ()), (20, ("scripted",))
    ]  # fmt: skip


@pytest.mark.slow
def test_a_pause_holds_the_training_until_it_is_withdrawn(made, run_folder, capsys):
    monitor = made()
    request(run_folder, PAUSE)
    seen = []

    def resume():
        time.sleep(0.6)
        seen.append(state_of(read_run(run_folder)).name)
        request(run_folder, EVALUATE)  # which a held run does, too
        time.sleep(0.6)
        withdraw(run_folder, PAUSE)

    thread = threading.Thread(target=resume)
    thread.start()
    start = time.monotonic()
    assert not monitor.on_step_end(1)
    assert time.monotonic() - start > 1.2
    thread.join()
    assert seen == ["paused"]
    assert state_of(read_run(run_folder)).name == "training"
    monitor.close()
    assert recorded(run_folder) == [("pause", 1), ("evaluate", 1), ("resume", 1)]
    said = capsys.readouterr().out
    assert f"step 1: paused on request; to continue: finetune-monitor resume {run_folder}" in said
    assert "step 1: the pause has ended after " in said


@pytest.mark.slow
def test_a_held_run_can_be_stopped(made, run_folder):
    monitor = made()
    request(run_folder, PAUSE)
    threading.Timer(0.5, request, (run_folder, STOP)).start()
    assert monitor.on_step_end(1)
    assert monitor.close().reason == StopReason.REQUESTED


def test_stop_and_pause_at_once_stop(made, run_folder):
    monitor = made()
    request(run_folder, PAUSE)
    request(run_folder, STOP)
    request(run_folder, EVALUATE)
    assert monitor.on_step_end(1)
    monitor.close()
    assert recorded(run_folder) == [("evaluate", 1), ("stop", 1)]


@pytest.mark.slow
def test_ctrl_c_ends_a_pause_in_a_loop_of_ones_own(made, run_folder):
    threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), made() as monitor:
        request(run_folder, PAUSE)
        monitor.on_step_end(1)
    run = read_run(run_folder)
    assert (run.reason, state_of(run).name) == (StopReason.INTERRUPTED, "interrupted")
    assert recorded(run_folder)[-1] == ("resume", 1)


@pytest.mark.slow
def test_a_loop_with_its_own_handler_is_asked_whether_it_was_told_to_end(made, run_folder):
    told = []
    monitor = made(interrupted=lambda: bool(told))
    request(run_folder, PAUSE)
    threading.Timer(0.5, told.append, ("SIGTERM",)).start()
    assert monitor.on_step_end(1)
    assert not monitor.decision.stop
    monitor.close(StopReason.INTERRUPTED)


def test_requests_from_before_a_resume_are_ignored_and_said(made, run_folder, caplog):
    made().close()
    request(run_folder, STOP)
    request(run_folder, PAUSE)
    monitor = made(resume_step=1)
    assert not monitor.on_step_end(2)
    monitor.close()
    assert "ignoring pause, stop, asked before this process started" in caplog.text
    assert not (run_folder / "requests.jsonl").exists()


def test_nothing_of_a_run_in_progress_is_left_when_it_has_ended(made, run_folder):
    monitor = made()
    assert {"control", "in_progress", "status.json"} <= {path.name for path in run_folder.iterdir()}
    monitor.close()
    assert not {"control", "in_progress", "status.json"} & {path.name for path in run_folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("plant", [lambda path: path.mkdir(), lambda path: os.mkfifo(path), lambda path: path.touch()])
def test_a_request_by_hand_may_be_any_file_and_is_carried_out_once(plant, made, run_folder):
    monitor = made()
    plant(run_folder / "control" / EVALUATE)
    for step in (1, 2, 3):
        monitor.on_step_end(step)
    monitor.close()
    assert [each.step for each in monitor.evaluations] == [0, 1]


def test_a_control_folder_that_is_gone_asks_for_nothing_and_is_made_by_the_next_request(made, run_folder):
    monitor = made()
    (run_folder / "control").rmdir()
    assert not monitor.on_step_end(1)
    request(run_folder, STOP)
    assert monitor.on_step_end(2)
    monitor.close()


def test_a_look_is_one_call_of_the_system_unless_something_changed(made, run_folder, monkeypatch):
    monitor = made()
    inbox, listed = Inbox(run_folder, WarnOnce()), []
    listing = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or listing(path))
    start = time.perf_counter()
    for _ in range(1000):
        inbox.look()
    assert time.perf_counter() - start < 0.2
    assert len(listed) == 1
    request(run_folder, STOP)
    assert inbox.look() == {STOP}
    monitor.close()


def test_images_are_seen_while_they_are_rendered_and_gone_when_they_are_recorded(made, run_folder, monkeypatch):
    seen = []
    score = Evaluator._score

    def looking(self, cells, kept):
        status = read_status(run_folder)
        seen.append((status.state, status.step, status.images, len(live.previews(run_folder, status.step))))
        return score(self, cells, kept)

    monkeypatch.setattr(Evaluator, "_score", looking)
    monitor = made()
    monitor.on_step_end(10)
    cells = len(GRID.cells)
    assert seen == [("evaluating", 0, cells, cells), ("evaluating", 10, cells, cells)]
    assert live.previews(run_folder) == []
    assert read_status(run_folder).state == "training"
    monitor.close()


def test_a_run_that_cannot_say_what_it_does_trains_on_with_one_warning(made, run_folder, caplog, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    for name in ("write_status", "open_live", "note_request"):
        monkeypatch.setattr(live, name, full)
    monitor = made()
    monitor.on_step_end(10)
    monitor.close()
    assert [each.step for each in monitor.evaluations] == [0, 10]
    assert caplog.text.count("cannot be watched or steered") == 1


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", "{", '{"state": 1, "step": 1, "since": 1, "images": 0}', "9" * 20000]
)
def test_a_damaged_status_says_nothing(content, tmp_path):
    (tmp_path / "status.json").write_text(content)
    assert read_status(tmp_path) is None
    live.write_status(tmp_path, Status("training", 3, 1.5))
    assert read_status(tmp_path) == Status("training", 3, 1.5)


def test_whoever_looks_whether_a_lock_is_held_never_keeps_a_run_from_starting(tmp_path):
    stop = threading.Event()

    def look():
        while not stop.is_set():
            is_locked(tmp_path / LOCK)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for each in lookers:
        each.start()
    for _ in range(30):
        held = lock(tmp_path)
        assert is_locked(tmp_path / LOCK)
        held.close()
    stop.set()
    for each in lookers:
        each.join()
    assert not is_locked(tmp_path / LOCK)
    assert not is_locked(tmp_path / "none")


def test_a_look_that_takes_long_is_waited_for_and_a_run_is_not(tmp_path):
    with (tmp_path / LOCK).open("w") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        end = threading.Timer(0.5, fcntl.flock, (looked_at, fcntl.LOCK_UN))
        end.start()
        held = lock(tmp_path)
        end.join()
    with pytest.raises(UserError, match=f"in use by the run with PID {os.getpid()}"):
        lock(tmp_path)
    held.close()
