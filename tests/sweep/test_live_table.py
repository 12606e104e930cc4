"""The sweep on the console: what is said, the time left, and a table that fits, however many trials there are."""

import pytest
from rich.console import Console

from finetune_monitor.record.sweep_directory import TrialRecord, TrialState, read_state
from finetune_monitor.sweep.ledger import Ledger
from finetune_monitor.sweep.live_table import Progress, SweepTable, counted, duration


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path, {}, tuple(TrialRecord(f"rank={n}", {"train.rank": n}) for n in range(100)))


def result(step, score):
    return {"step": step, "scores": {"face_similarity": score}}


def test_without_a_terminal_each_event_is_a_line(ledger, capsys):
    board = SweepTable(ledger, ["face_similarity"], 100, lambda trial: 200)
    ledger.begin(ledger["rank=1"])
    board.begun(ledger["rank=1"])
    board.evaluated(ledger["rank=1"], result(50, 0.5))
    board.evaluated(ledger["rank=1"], result(100, float("nan")))
    ledger.end("rank=1", TrialState.FAILED, "no photo \x1b[31m")
    board.ended(ledger["rank=1"], ledger["rank=1"].error)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "rank=1: begins",
        "rank=1: step 50, face_similarity 0.500",
        "rank=1: step 100, face_similarity not measured",
    ]
    assert lines[3].startswith("rank=1: failed: no photo")
    assert "\x1b" not in lines[3]


def test_a_hundred_trials_fit(ledger, capsys):
    board = SweepTable(ledger, ["face_similarity"], 100, lambda trial: 200)
    for trial in list(ledger)[:60]:
        ledger.begin(trial)
        board.begun(trial)
        board.evaluated(trial, result(0, 0.1))
        board.evaluated(trial, result(100, 0.1))
    console = Console(width=80, height=24, record=True)
    board._console = console
    capsys.readouterr()
    console.print(board._draw())
    text = console.export_text()
    assert len(text.splitlines()) <= 24
    assert "0 of 100 finished, 60 running, 40 waiting; 44 more run" in text
    assert "100/200" in text


def test_the_time_left_is_that_of_the_steps_since_this_attempt_began():
    assert Progress(0, 300).left(10) is None
    assert Progress(0, 300, first_step=100, step=100, first_at=20, at=20).left(25) is None
    assert Progress(0, 300, first_step=100, step=200, first_at=20, at=70).left(80) == pytest.approx(40)


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0, "0:00"), (59.6, "1:00"), (245, "4:05"), (3723, "1:02:03")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_what_was_running_is_to_go_on_and_what_is_gone_is_made_again(tmp_path):
    states = [TrialState.RUNNING, TrialState.FINISHED, TrialState.FAILED]
    trials = tuple(TrialRecord(state.value, {}, state=state, attempts=1) for state in states)
    ledger = Ledger(tmp_path, {}, trials)
    assert [trial.state for trial in ledger] == [TrialState.WAITING, TrialState.WAITING, TrialState.FAILED]
    assert counted(list(ledger), 5) == "0 of 5 finished, 1 failed, 4 waiting"
    ledger.begin(ledger["failed"])
    assert (ledger["failed"].attempts, ledger["failed"].error) == (2, None)
    ledger.close()
    assert read_state(tmp_path).trials == tuple(ledger)
