"""Commands and webhooks: what they are told, and that nothing that becomes of it reaches the training."""

import json
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune_monitor import FinetuneMonitor, PromptGrid, RunCommand, Webhook
from finetune_monitor.monitor.hooks import webhook
from finetune_monitor.monitor.hooks.deliveries import MOST, Deliveries
from finetune_monitor.monitor.hooks.events import EVENTS, Events, check_events
from finetune_monitor.record.alarms import alarms_of
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Decision, Evaluation, RunSummary, ScoredImage, StopReason
from finetune_monitor.stats.intervals import t_interval
from support.hooked import receiving
from support.runs import ALARMED, evaluation, run_info
from support.scripted import GRID, Scripted


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(webhook, "PAUSES", (0.05, 0.05))


def watched(pipeline, folder: Path, *hooks, scores=(0.1, 0.5, 0.3)) -> list[float]:
    """A run of three evaluations; the seconds that each step took."""
    monitor = FinetuneMonitor(pipeline, GRID, [Scripted(scores)], folder, every=1, hooks=hooks).start()
    seconds = []
    for step in (1, 2):
        start = time.monotonic()
        monitor.on_step_end(step)
        seconds.append(time.monotonic() - start)
    monitor.close(StopReason.MAX_STEPS)
    return seconds


def writing(folder: Path, *, then: str = "") -> list[str]:
    """A command that keeps what it is told in a file of its own."""
    program = "import json, sys, time; event = json.load(sys.stdin); name = event['event'] + '-' + event['id']\n"
    program += f"open({str(folder)!r} + '/' + name, 'w').write(json.dumps(event))\n{then}"
    return [sys.executable, "-c", program]


def kept(folder: Path) -> list[dict]:
    return sorted((json.loads(path.read_text()) for path in folder.iterdir()), key=lambda event: event["time"])


@pytest.mark.slow
def test_a_command_is_told_of_each_event_as_json(pipeline, run_folder, tmp_path):
    (tmp_path / "told").mkdir()
    watched(pipeline, run_folder, RunCommand(writing(tmp_path / "told"), EVENTS))
    told = kept(tmp_path / "told")
    expected = [("evaluation", 0), ("evaluation", 1), ("best", 1), ("evaluation", 2), ("end", 2)]
    assert [(event["event"], event["step"]) for event in told] == expected
    best, end = told[2], told[-1]
    assert best["text"] == "run: step 1 is the best so far: scripted 0.500"
    assert best["scores"]["scripted"] == {"mean": 0.5, "low": None, "high": None, "n": 2, "missing": 0}
    assert best["output_dir"] == str(run_folder)
    assert (end["reason"], end["why"]) == ("max_steps", "the last step was reached")
    assert end["text"] == "run: " + " ".join(end["verdict"])
    assert len({event["id"] for event in told}) == 5
    assert "photo" not in json.dumps(told)  # no prompt


def test_a_webhook_is_told_the_same(pipeline, run_folder):
    with receiving(200) as server:
        watched(pipeline, run_folder, Webhook(server.url))
    assert [event["event"] for event in server.received] == ["best", "end"]
    assert set(server.paths) == {"/services/T0/S3CRET?x=1"}


def test_what_fails_for_a_moment_is_sent_again(pipeline, run_folder, caplog):
    with receiving(500, 429, 200) as server:
        watched(pipeline, run_folder, Webhook(server.url))
    assert [event["event"] for event in server.received] == ["best"] * 3 + ["end"]
    assert len({event["id"] for event in server.received}) == 2
    assert "delivered" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "attempts", "said"), [(404, 2, "the answer was 404"), (302, 2, "the answer was 302"), (503, 6, "503")]
)
def test_what_is_refused_is_said_once_without_the_secret(pipeline, run_folder, caplog, status, attempts, said):
    with receiving(status) as server:
        watched(pipeline, run_folder, Webhook(server.url))
    assert len(server.received) == attempts
    assert caplog.text.count("an event was not delivered") == 1
    assert said in caplog.text
    assert "2 of 2 events were not delivered" in caplog.text
    assert f"hook webhook http://127.0.0.1:{server.server_port}/<redacted>" in caplog.text
    assert "S3CRET" not in caplog.text


@pytest.mark.slow
def test_a_closed_port_and_a_name_that_there_is_not_are_said(pipeline, run_folder, caplog):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    watched(pipeline, run_folder, Webhook(f"http://127.0.0.1:{port}/S3CRET"), Webhook("http://none.invalid/S3CRET"))
    assert "no answer (Connection refused)" in caplog.text
    assert "hook webhook http://none.invalid/<redacted>: an event was not delivered: no answer (" in caplog.text
    assert "S3CRET" not in caplog.text


@pytest.mark.slow
def test_a_server_that_hangs_holds_up_no_step_and_the_end_for_a_moment(pipeline, run_folder, caplog):
    with receiving(None) as server:
        start = time.monotonic()
        seconds = watched(pipeline, run_folder, Webhook(server.url, EVENTS, timeout=0.4))
        spent = time.monotonic() - start
    assert max(seconds) < 1.5
    assert spent < 6
    assert "no answer (timed out)" in caplog.text
    assert "5 of 5 events were not delivered" in caplog.text


@pytest.mark.slow
def test_a_command_that_hangs_is_killed_with_its_children(pipeline, run_folder, tmp_path, caplog):
    (tmp_path / "told").mkdir()
    late = f"import time; time.sleep(3); open({str(tmp_path / 'late')!r}, 'w')"
    then = f"import subprocess, time; subprocess.Popen([sys.executable, '-c', {late!r}]); time.sleep(60)"
    start = time.monotonic()
    watched(pipeline, run_folder, RunCommand(writing(tmp_path / "told", then=then), ["end"], timeout=1.5))
    assert time.monotonic() - start < 8
    assert "it took longer than 1.5 s and was killed" in caplog.text
    time.sleep(2.5)
    assert not (tmp_path / "late").exists()


def test_a_command_that_fails_is_said_with_its_last_words(pipeline, run_folder, caplog):
    failing = [sys.executable, "-c", "import sys; print('x' * 9**6); sys.exit('token=abcdefgh12345 is wrong')"]
    watched(pipeline, run_folder, RunCommand(failing))
    assert "it ended with status 1: token=<redacted> is wrong; training continues" in caplog.text


def test_a_hook_that_cannot_even_be_asked_is_off_and_training_continues(pipeline, run_folder, caplog, monkeypatch):
    def broken(self, evaluation):
        raise ValueError("no such event")

    monkeypatch.setattr(Events, "of_evaluation", broken)
    with receiving(200) as server:
        watched(pipeline, run_folder, Webhook(server.url))
    assert "hook webhook failed and is turned off" in caplog.text
    assert server.received == []


def test_events_that_pile_up_are_dropped_and_counted(caplog):
    slow = Deliveries("hook x", lambda event: time.sleep(30), 0.2)
    for _ in range(MOST + 10):
        slow.give({"event": "evaluation"})
    slow.close()
    assert f"{MOST} events are waiting already" in caplog.text
    assert f"{MOST + 10} of {MOST + 10} events were not delivered" in caplog.text


def test_what_was_told_before_an_interruption_is_not_told_again(tmp_path):
    def at(step, alarms, best):
        return replace(evaluation(step), alarms=alarms, decision=Decision(best_step=best))

    first = [at(0, (), 0), at(10, ("aesthetic",), 10), at(20, ("aesthetic", "faces_found"), 10)]
    run = run_info(tmp_path, columns=ALARMED)
    new = Events(run, ["alarm", "best"])
    told = [(event["event"], event["step"]) for each in first for event in new.of_evaluation(each)]
    assert told == [("alarm", 10), ("best", 10), ("alarm", 20)]
    resumed = replace(run, evaluations=tuple(first[:1]), repeated=tuple(first[1:]))
    again = Events(resumed, ["alarm", "best"])
    later = [*first[1:], at(30, ("aesthetic",), 30), at(40, ("faces_found",), 30)]
    told = [(event["event"], event["step"]) for each in later for event in again.of_evaluation(each)]
    assert told == [("best", 30), ("alarm", 40)]


def test_no_event_holds_a_prompt_even_if_an_alarm_is_about_one(tmp_path):
    column = ScoreColumn(True, over="run", alarm=0.0, says="a prompt is ignored", worst_of="margin")
    grid = PromptGrid(["photo of Ana,\n'at sea'", f"photo {'of Ana ' * 30}", "photo --token hunter2"], seeds=[0])
    worst = [t_interval(np.array([-0.5, -0.4])), t_interval(np.array([-0.6, -0.4])), t_interval(np.array([-0.7, -0.4]))]
    history = [
        Evaluation(
            10 * (place + 1),
            None,
            0.0,
            {"worst": score},
            tuple(
                ScoredImage(cell, None, {"margin": score.mean if cell.index == place else 0.0}) for cell in grid.cells
            ),
            alarms=("worst",),
        )
        for place, score in enumerate(worst)
    ]
    events = Events(run_info(tmp_path, columns={"worst": column}, best_metric="worst"), EVENTS)
    words = tuple(f"Alarm at step {each.step}: {alarms_of(each, {'worst': column})[0]}." for each in history)
    assert all('for "photo' in each for each in words)  # so that this test can fail
    told = [event for each in history for event in events.of_evaluation(each)]
    told += events.of_end(RunSummary(tuple(history), "worst", 10, None, verdict=words))
    assert {event["event"] for event in told} == {"evaluation", "alarm", "end"}
    assert told[0]["alarms"] == {"worst": "worst is -0.450 [-1.085, 0.185], below 0: a prompt is ignored"}
    for each in ("photo", "Ana", "hunter2"):
        assert each not in json.dumps(told)


@pytest.mark.slow
def test_a_resumed_run_does_not_repeat_what_it_told(pipeline, run_folder):
    with receiving(200) as server:
        watched(pipeline, run_folder, Webhook(server.url, ["best"]), scores=(0.1, 0.5, 0.6))
        monitor = FinetuneMonitor(
            pipeline,
            GRID,
            [Scripted([0.6, 0.9])],
            run_folder,
            every=1,
            hooks=[Webhook(server.url, ["best"])],
            resume_step=1,
        )
        for step in (2, 3):
            monitor.on_step_end(step)
        monitor.close()
    assert [event["step"] for event in server.received] == [1, 2, 3]


def test_an_event_holds_no_secret(tmp_path):
    end = RunSummary((evaluation(10),), "face_similarity", 10, "hf_" + "a1" * 20)
    [event] = Events(run_info(tmp_path), ["end"]).of_end(end)
    assert "hf_" not in json.dumps(event)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Webhook("ftp://x.org/S3CRET"), "url: found ftp"),
        (lambda: Webhook("example.org/hook"), "expected an address such as https://example.org/hook"),
        (lambda: Webhook("http://x.org:99999/S3CRET"), "url: found http://x.org:99999/<redacted>"),
        (lambda: Webhook("http:///S3CRET"), "expected an address"),
        (lambda: Webhook("https://x.org/<redacted>"), "as records have it; write the complete address"),
        (lambda: Webhook("https://x.org/a b"), "expected an address"),
        (lambda: check_events(["ends"]), "events: found ends, expected some of evaluation, alarm, best, end"),
        (lambda: Webhook("https://x.org/", []), "events: found none"),
        (lambda: Webhook("https://x.org/", timeout=0), "timeout: found 0, expected a number of seconds above 0"),
        (lambda: RunCommand(["true"], timeout=float("nan")), "timeout: found nan"),
        (lambda: RunCommand("ls -l"), "expected a list: a program and its arguments"),
        (lambda: RunCommand([]), "expected a list"),
        (lambda: RunCommand(["no-such-program"]), "found no program 'no-such-program'"),
    ],
)
def test_what_cannot_be_a_hook_is_said(make, said):
    with pytest.raises(ValueError, match="found") as error:
        make()
    assert said in str(error.value)
    assert not str(error.value).startswith("url: found http://x.org") or "S3CRET" not in str(error.value)
