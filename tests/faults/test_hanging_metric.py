"""A metric, a rule, a sink, or a hook hangs: after the timeout it is missing, and training continues without it."""

import math
import os
import signal
import socket
import threading
import time

import pytest
import torch

from finetune_monitor.base.errors import UserError
from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.monitor.user_code import UserCode
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.history import read_run
from finetune_monitor.training.config import load_config
from support.loops import Brightness

GRID = PromptGrid(["a photo of sks person"], seeds=(0, 1), steps=2, size=(32, 32))
LIMIT = 0.5


def sleeps(*arguments):
    time.sleep(60)


def computes(*arguments):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        sum(range(1000))


def waits_for_the_network(*arguments):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.recv(1)


def waits_for_a_lock(*arguments):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=60)


def swallows(*arguments):
    """Catches everything once."""
    try:
        time.sleep(60)
    except:  # noqa: E722
        time.sleep(60)


HANGS = [sleeps, computes, waits_for_the_network, waits_for_a_lock, swallows]


class Sink:
    name = "mine"

    def __init__(self, write):
        self.write = write
        self.start = self.close = lambda *arguments: None


class Rule:
    metric = "brightness"

    def __init__(self, decide):
        self.decide = decide


def mine(score) -> Brightness:
    metric = Brightness()
    metric.name, metric.score = "mine", score
    return metric


@pytest.mark.slow
@pytest.mark.parametrize("hang", HANGS)
def test_a_metric_that_hangs_is_missing_and_the_others_are_not(hang, pipeline, run_folder, caplog):
    began = time.monotonic()
    metrics = [Brightness(), mine(hang)]
    with FinetuneMonitor(pipeline, GRID, metrics, run_folder, every=1, evaluation_timeout=LIMIT) as monitor:
        assert not monitor.on_step_end(1)
    assert time.monotonic() - began < 20
    for evaluation in read_run(run_folder).evaluations:
        assert math.isfinite(evaluation.scores["brightness"].mean)
        assert evaluation.scores["mine"].n == 0
    assert caplog.text.count("metric mine failed; its scores are recorded as missing: metrics, rules, sinks, and") == 1
    assert "took longer than 0.5 s (evaluation_timeout)" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("place", ["sinks", "hooks", "stopping"])
def test_a_sink_a_hook_or_a_rule_that_hangs_is_left_out(place, pipeline, run_folder, caplog):
    hanging = {"sinks": Sink(sleeps), "hooks": sleeps, "stopping": Rule(sleeps)}[place]
    options = {place: [hanging], "evaluation_timeout": LIMIT}
    with FinetuneMonitor(pipeline, GRID, [Brightness()], run_folder, every=1, **options) as monitor:
        assert not monitor.on_step_end(1)
    assert len(read_run(run_folder).evaluations) == 2
    assert "took longer than 0.5 s (evaluation_timeout)" in caplog.text


@pytest.mark.slow
def test_they_share_the_time_of_an_evaluation(pipeline, run_folder, caplog):
    metrics = [mine(lambda images, cells: time.sleep(0.8) or {"mine": [0.5] * len(images)}), Brightness()]
    metrics[1].score = lambda images, cells: time.sleep(0.8) or {"brightness": [0.5] * len(images)}
    with FinetuneMonitor(pipeline, GRID, metrics, run_folder, every=1, evaluation_timeout=1.2):
        pass
    assert "metric brightness failed" in caplog.text
    assert "metric mine failed" not in caplog.text


@pytest.mark.slow
def test_training_goes_on_bit_for_bit(pipeline, run_folder):
    def hangs(images, cells):
        torch.manual_seed(7)
        torch.rand(100)
        time.sleep(60)

    before, threads = torch.get_rng_state(), threading.active_count()
    with FinetuneMonitor(pipeline, GRID, [mine(hangs)], run_folder, every=1, evaluation_timeout=LIMIT):
        assert torch.equal(torch.get_rng_state(), before)
        assert threading.active_count() == threads
        assert torch.is_grad_enabled()


def test_the_alarm_of_others_is_left_alone():
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        failures = []
        assert UserCode(0.2).call(lambda: "found", failures.append) == "found"
        assert UserCode(0.2).call(sleeps, failures.append) is None
        assert len(failures) == 1
        assert signal.getsignal(signal.SIGALRM) == signal.SIG_IGN
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.signal(signal.SIGALRM, before)


class Watchdog(BaseException):
    """What a training raises by its own alarm."""


@pytest.fixture
def watchdog():
    """A training's own alarm: the times at which it has rung."""
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *arguments: rung.append(time.monotonic()))
    yield rung
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_the_timer_of_others_goes_on_with_the_time_it_has_left(watchdog):
    signal.setitimer(signal.ITIMER_REAL, 500, 70)
    UserCode(30).call(lambda: time.sleep(0.3), pytest.fail)
    UserCode(0.2).call(sleeps, lambda why: None)
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    assert 440 < left <= 499.5
    assert interval == 70
    assert watchdog == []


@pytest.mark.slow
def test_the_timer_of_others_outlives_an_evaluation(pipeline, run_folder, watchdog):
    signal.setitimer(signal.ITIMER_REAL, 5000)
    with FinetuneMonitor(pipeline, GRID, [Brightness()], run_folder, every=1, evaluation_timeout=60) as monitor:
        monitor.on_step_end(1)
    assert 4000 < signal.getitimer(signal.ITIMER_REAL)[0] < 5000


def test_a_timer_of_others_that_is_due_meanwhile_rings_right_after(watchdog):
    signal.setitimer(signal.ITIMER_REAL, 0.1, 300)
    ended = UserCode(30).call(lambda: time.sleep(0.3) or time.monotonic(), pytest.fail)
    until = time.monotonic() + 10
    while not watchdog and time.monotonic() < until:
        time.sleep(0.01)
    [rung] = watchdog
    assert rung >= ended
    assert 200 < signal.getitimer(signal.ITIMER_REAL)[0] <= 300


def test_what_the_alarm_of_others_raises_is_no_failure_of_a_metric(watchdog):
    def raises(*arguments):
        raise Watchdog

    def train():
        UserCode(30).call(lambda: time.sleep(0.2), pytest.fail)
        time.sleep(10)

    signal.signal(signal.SIGALRM, raises)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    with pytest.raises(Watchdog):
        train()


def test_ctrl_c_ends_a_metric_that_hangs(pipeline, run_folder):
    def hangs(images, cells):
        threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
        time.sleep(60)

    monitor = FinetuneMonitor(pipeline, GRID, [mine(hangs)], run_folder, every=1, evaluation_timeout=30)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        monitor.on_step_end(1)
    assert time.monotonic() - began < 20
    monitor.close()


@pytest.mark.parametrize("wrong", [0, -1, math.nan])
def test_a_limit_is_a_time(wrong, pipeline, run_folder, write_config):
    with pytest.raises(ValueError, match="evaluation_timeout: found"):
        FinetuneMonitor(pipeline, GRID, [Brightness()], run_folder, evaluation_timeout=wrong)
    with pytest.raises(UserError, match="evaluation_timeout"):
        load_config(write_config(), [f"monitor.evaluation_timeout={wrong}"])
    assert load_config(write_config(), ["monitor.evaluation_timeout=60"]).monitor.evaluation_timeout == 60
    assert load_config(write_config(), []).monitor.evaluation_timeout is None
