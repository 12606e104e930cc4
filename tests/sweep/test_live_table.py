"""The sweep on the console: what is said, the time left, and a table that fits, however many trials there are."""

import re
from types import SimpleNamespace

import pytest

from finetune_monitor.record.sweep_directory import TrialRecord, TrialState, read_state
from finetune_monitor.sweep.ledger import Ledger
from finetune_monitor.sweep.live_table import Progress, SweepTable, counted, duration


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path, {}, tuple(TrialRecord(f"rank={n}", {"train.rank": n}) for n in range(100)))


@pytest.fixture
def terminal(monkeypatch, capsys):
    """Makes the console a terminal of this size; returns what shows a board's table, as a text."""

    def make(width=80, height=24):
        for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": width, "LINES": height}.items():
            monkeypatch.setenv(name, str(value))
        return table

    def table(board):
        capsys.readouterr()
        board.start()
        board.stop()
        return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", capsys.readouterr().out).strip()

    return make


def result(step, score=0.5, again=False, alarms=()):
    return {"step": step, "scores": {"face_similarity": score}, "again": again, "alarms": list(alarms)}


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
        "rank=1: started",
        "rank=1: step 50, face_similarity 0.500",
        "rank=1: step 100, face_similarity not measured",
    ]
    assert lines[3].startswith("rank=1: failed: no photo")
    assert "\x1b" not in lines[3]


def test_a_hundred_trials_fit(ledger, terminal):
    table = terminal(width=80, height=24)
    board = SweepTable(ledger, ["face_similarity"], 100, lambda trial: 200)
    for trial in list(ledger)[:60]:
        ledger.begin(trial)
        board.begun(trial)
        board.evaluated(trial, result(0, 0.1))
        board.evaluated(trial, result(100, 0.1))
    text = table(board)
    assert len(text.splitlines()) <= 24
    assert "0 of 100 finished, 60 running, 40 waiting; 44 more run" in text
    assert "100/200" in text


def test_an_alarm_stands_with_its_trial(ledger, terminal):
    table = terminal(width=80, height=24)
    board = SweepTable(ledger, ["face_similarity"], 100, lambda trial: 200)
    for trial in list(ledger)[:20]:
        ledger.begin(trial)
        board.begun(trial)
        board.evaluated(trial, result(100, alarms=("leakage", "copying")))
    lines = table(board).splitlines()
    assert len(lines) <= 24
    [place] = [place for place, line in enumerate(lines) if "rank=1 " in line]
    assert ["ALARM: leakage" in lines[place + 1], "ALARM: copying" in lines[place + 2]] == [True, True]


def test_an_alarm_is_said_line_by_line_without_a_terminal(ledger, capsys):
    board = SweepTable(ledger, ["face_similarity"], 100, lambda trial: 200)
    ledger.begin(ledger["rank=1"])
    board.begun(ledger["rank=1"])
    board.evaluated(ledger["rank=1"], result(100, alarms=("leakage", "copying")))
    ledger.end("rank=1", TrialState.FINISHED)
    board.ended(ledger["rank=1"])
    assert capsys.readouterr().out.splitlines()[1:] == [
        "rank=1: step 100, face_similarity 0.500; ALARM: leakage, copying",
        "rank=1: finished (face_similarity 0.500; ALARM: leakage, copying)",
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_trials_can_be_told_apart_in_a_narrow_terminal(tmp_path, terminal, width):
    table = terminal(width)
    names = [f"instance_count=5_learning_rate=0.0001_rank={rank}_ana_seed=0" for rank in (8, 16)]
    ledger = Ledger(tmp_path, {}, tuple(TrialRecord(name, {}) for name in names))
    scores = ["face_similarity_held_out", "face_similarity", "aesthetic"]
    board = SweepTable(ledger, scores, 2, lambda trial: 1500)
    for trial in ledger:
        ledger.begin(trial)
        board.begun(trial)
        board.evaluated(ledger[trial.name], {"step": 100, "scores": dict.fromkeys(scores, 0.5)})
    text = table(board)
    first = "".join(line.split("│")[1].strip() for line in text.splitlines() if "│" in line)
    assert first == "".join(names)
    assert "100/1500" in text
    assert text.count("0.500") == 2 * {60: 0, 80: 1, 120: 3}[width]


@pytest.fixture
def board(tmp_path, monkeypatch, terminal, capsys):
    """Three trials of 200 steps, and a clock that stands where each event sets it: lines printed, and the time left."""
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=0.0)
    monkeypatch.setattr("finetune_monitor.sweep.live_table.time", clock)
    table = terminal()
    states = {"a": TrialState.WAITING, "b": TrialState.WAITING, "c": TrialState.FAILED}
    ledger = Ledger(tmp_path, {}, tuple(TrialRecord(name, {}, state=state) for name, state in states.items()))
    made = SweepTable(ledger, ["face_similarity"], 3, lambda trial: 200)

    def at(now, event, name, *given):
        clock.now = now
        if event == "begun":
            ledger.begin(ledger[name])
        if event == "ended":
            ledger.end(name, *given)
        getattr(made, event)(ledger[name], *(given if event == "evaluated" else ()))
        said = capsys.readouterr().out.splitlines()
        left = re.search(r"about (\S+) left", table(made))
        return said, left and left[1]

    return at


def test_what_was_recorded_before_is_no_news_and_no_speed(board):
    assert board(0, "begun", "a") == (["a: started"], None)
    assert board(1, "evaluated", "a", result(100, again=True)) == ([], None)
    assert board(30, "evaluated", "a", result(120)) == (["a: step 120, face_similarity 0.500"], None)
    # 60 more steps at a second each, then two trials as long as this one: 50 seconds gone by and 60 to come.
    assert board(50, "evaluated", "a", result(140))[1] == duration(60 + 2 * (50 + 60))


def test_a_trial_that_failed_before_counts_as_to_be_run_until_it_fails_again(board):
    board(0, "begun", "a")
    board(0, "evaluated", "a", result(0))
    board(200, "evaluated", "a", result(200))
    assert board(200, "ended", "a", TrialState.FINISHED)[1] == duration(200 + 2 * 200)
    board(200, "begun", "c")
    assert board(200, "ended", "c", TrialState.FAILED)[1] == duration(200 + 200)


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
