"""A user's rule, sink, hook, or metric raises, exits, or returns something else: training continues."""

import asyncio
import math
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from threading import Lock

import numpy as np
import pytest
import torch

from finetune_monitor.metrics import Description
from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.monitor.stopping import Stop
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.history import read_run
from finetune_monitor.stats.estimate import Estimate
from support.loops import Brightness, steps_of

GRID = PromptGrid(["a photo of sks person"], seeds=(0, 1, 2), steps=2, size=(32, 32))


class UnfriendlyError(Exception):
    """An error that cannot be shown."""

    def __repr__(self):
        raise RuntimeError("no text")

    __str__ = __repr__


class Foreign(BaseException):
    """An error that no `except Exception` catches."""


def unchecked(kind: type, **fields):
    """What a class holds where nothing checks the types of its fields."""
    found = object.__new__(kind)
    vars(found).update(fields)
    return found


def raises(error: BaseException) -> Callable[..., None]:
    def action(*arguments, **named):
        raise error

    return action


ERRORS = {
    "exception": RuntimeError("no network"),
    "exit": SystemExit(3),
    "exit in words": SystemExit("no license"),
    "base exception": Foreign("out"),
    "cancelled": asyncio.CancelledError(),
    "generator": GeneratorExit(),
    "stop": StopIteration(),
    "out of memory": MemoryError(),
    "recursion": RecursionError(),
    "unfriendly": UnfriendlyError(),
    "long": ValueError("x" * 1_000_000),
}


class Sink:
    """A sink whose name and methods can be replaced."""

    def __init__(self, **methods):
        self.name = "mine"
        self.start = self.write = self.close = lambda *arguments: None
        vars(self).update(methods)


class Rule:
    metric = "brightness"

    def __init__(self, decide):
        self.decide = decide


def rule_called(name: str, decide) -> Rule:
    """A rule of its own class, which warnings name."""
    return type(name, (Rule,), {})(decide)


def run(pipeline, folder, metrics=(), **options) -> FinetuneMonitor:
    """Three evaluations; none of them may ask for the end."""
    with FinetuneMonitor(pipeline, GRID, [Brightness(), *metrics], folder, every=1, **options) as monitor:
        assert not any(monitor.on_step_end(step) for step in (1, 2))
    assert steps_of(monitor) == [0, 1, 2]
    recorded = read_run(folder)
    assert [each.step for each in recorded.evaluations] == [0, 1, 2]
    assert all(math.isfinite(each.scores["brightness"].mean) for each in recorded.evaluations)
    return monitor


def warned(caplog, text: str) -> int:
    """The number of warnings with this text, all of bounded length."""
    found = [record.getMessage() for record in caplog.records if text in record.getMessage()]
    assert all(len(message) < 1000 for message in found)
    return len(found)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["start", "write", "close"])
def test_a_sink_is_turned_off(method, pipeline, run_folder, caplog):
    sinks = [Sink(name=name, **{method: raises(error)}) for name, error in ERRORS.items()]
    run(pipeline, run_folder, sinks=sinks)
    assert [warned(caplog, f"sink {name} failed and is turned off") for name in ERRORS] == [1] * len(ERRORS)


def test_a_hook_is_turned_off(pipeline, run_folder, caplog):
    run(pipeline, run_folder, hooks=[raises(error) for error in ERRORS.values()])
    assert warned(caplog, "action failed and is turned off") == len(ERRORS)


def test_a_rule_is_ignored(pipeline, run_folder, caplog):
    rules = [rule_called(name, raises(error)) for name, error in ERRORS.items()]
    run(pipeline, run_folder, stopping=rules)
    assert [warned(caplog, f"stopping rule {name} failed and is ignored") for name in ERRORS] == [1] * len(ERRORS)


def test_a_metric_is_missing(pipeline, run_folder, caplog):
    metrics = []
    for number, error in enumerate(ERRORS.values()):
        metrics.append(Brightness())
        metrics[-1].name, metrics[-1].score = f"mine_{number}", raises(error)
    run(pipeline, run_folder, metrics)
    assert [warned(caplog, f"metric {metric.name} failed") for metric in metrics] == [1] * len(ERRORS)


WRONG_STOPS = [
    unchecked(Stop, reason=3, detail=""),
    unchecked(Stop, reason=None, detail=""),
    unchecked(Stop, reason="enough", detail=3),
]


def test_what_a_rule_returns_is_no_decision(pipeline, run_folder, caplog):
    wrong = [True, False, 0, 1, "", b"stop", [], {}, object(), UnfriendlyError(), *WRONG_STOPS, sys]
    rules = [rule_called(f"Rule{number}", lambda watched, found=found: found) for number, found in enumerate(wrong)]
    run(pipeline, run_folder, stopping=rules)
    failed = [warned(caplog, f"stopping rule Rule{number} failed and is ignored") for number in range(len(wrong))]
    assert failed == [1] * len(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("found", ["enough", Stop("enough"), Stop("enough", "really")])
def test_a_rule_that_asks_for_the_end_gets_it(found, pipeline, run_folder):
    monitor = FinetuneMonitor(
        pipeline, GRID, [Brightness()], run_folder, stopping=[Rule(lambda watched: found)], every=1
    )
    assert monitor.on_step_end(1)
    monitor.close()
    assert read_run(run_folder).run["ended"]["reason"] == "enough"


def test_what_sinks_and_hooks_return_is_ignored(pipeline, run_folder, caplog):
    stop = Stop("enough")
    run(pipeline, run_folder, sinks=[Sink(write=lambda *arguments: stop)], hooks=[lambda *arguments: stop])
    assert not caplog.records


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["write", "close", "name"])
def test_a_sink_may_lose_its_own_attributes(lost, pipeline, run_folder, caplog):
    sink = Sink(name="mine", start=lambda info: setattr(sink, lost, 0), write=raises(RuntimeError()))
    run(pipeline, run_folder, sinks=[sink])
    assert warned(caplog, "is turned off for the rest of the run") == 1


def test_what_they_change_changes_nothing(pipeline, run_folder):
    def empties(evaluation, more):
        evaluation.scores.clear()
        for image in evaluation.images:
            image.scores.clear()

    def draws(evaluation, images):
        empties(evaluation, images)
        for image in images:
            image.paste("red", (0, 0, *image.size))
            image.close()
        images.clear()

    seen = []
    after = Sink(write=lambda evaluation, images: seen.append((len(evaluation.scores), len(images))))
    run(pipeline, run_folder, sinks=[Sink(write=draws), after], hooks=[empties])
    assert seen == [(1, 3)] * 3


def test_what_they_change_at_the_start_and_at_the_end_changes_nothing(pipeline, run_folder):
    def begins(info):
        info.columns.clear(), info.hparams.clear()

    def ends(summary):
        for evaluation in summary.evaluations:
            evaluation.scores.clear()

    seen = []
    after = Sink(
        start=lambda info: seen.append((len(info.columns), len(info.hparams))),
        close=lambda summary: seen.append(len(summary.evaluations[-1].scores)),
    )
    monitor = run(pipeline, run_folder, sinks=[Sink(start=begins, close=ends), after], hparams={"lock": Lock()})
    assert (seen, len(monitor.evaluations[-1].scores)) == ([(1, 1), 1], 1)


def seeds(*arguments):
    random.seed(0), np.random.seed(0), torch.manual_seed(0)


def configures(*arguments):
    """Changes what torch uses everywhere, as code that needs other numbers does."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.use_deterministic_algorithms(True, warn_only=True)


def shared_state():
    """What all code of the process shares."""
    generators = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    return generators, torch.get_default_dtype(), torch.get_num_threads(), algorithms


class Describing(Brightness):
    """A metric with an action in `describe`, which the monitor calls before it starts."""

    def __init__(self, name, action):
        self.name, self.action = name, action

    def describe(self):
        self.action()
        return Description()


@pytest.mark.parametrize("changes", [seeds, configures])
def test_what_they_set_for_the_process_is_restored(changes, pipeline, run_folder):
    metrics, sink = [Describing("mine", changes)], Sink(start=changes, write=changes, close=changes)
    before = shared_state()
    run(pipeline, run_folder, metrics, sinks=[sink], hooks=[changes])
    assert shared_state() == before


@pytest.mark.slow
def test_a_metric_that_closes_its_images_closes_no_others(pipeline, run_folder):
    class Closing(Brightness):
        name = "mine"

        def score(self, images, cells):
            for image in images:
                image.paste("black", (0, 0, *image.size))
                image.close()
            return {self.name: [0.5] * len(images)}

    run(pipeline, run_folder / "alone")
    run(pipeline, run_folder / "both", [Closing()])
    files = [sorted((run_folder / name / "images").rglob("*.png")) for name in ("alone", "both")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


class Deriving(Brightness):
    """A metric whose results are replaced."""

    def __init__(self, name="mine", derived=None, measured=None, features=None):
        self.name = name
        self.derived, self.measured, self.given = derived, measured, features

    def derive(self, history):
        return self.derived or {}

    def measure(self, pipeline, size):
        return self.measured or {}

    def features(self, images, cells):
        return self.given or [None] * len(images)

    def compare(self, features, cells):
        return {}

    def score(self, images, cells):
        return {self.name: [0.5] * len(images)}


FINE = Estimate(0.5, 0.4, 0.6, 3, 0)


WRONG_RESULTS = [
    {"derived": {"mine_rise": 0.5}},
    {"derived": {"mine_rise": None}},
    {"derived": {3: FINE}},
    {"derived": [FINE]},
    {"derived": {"mine_rise": unchecked(Estimate, **{**vars(FINE), "mean": "half"})}},
    {"derived": {"mine_rise": unchecked(Estimate, **{**vars(FINE), "n": None})}},
    {"measured": {"mine_loss": 0.5}},
    {"measured": {"mine_loss": ["a"]}},
    {"measured": {None: [0.5]}},
    {"measured": "mine_loss"},
    {"features": [object()] * 3},
    {"features": [lambda: None] * 3},
    {"features": [None]},
]


def test_other_results_of_a_metric_are_missing(pipeline, run_folder, caplog):
    metrics = [Deriving(f"mine_{number}", **wrong) for number, wrong in enumerate(WRONG_RESULTS)]
    run(pipeline, run_folder, metrics)
    assert [warned(caplog, f"metric {metric.name} failed") for metric in metrics] == [1] * len(metrics)


def test_derived_numbers_that_are_not_finite_are_missing(pipeline, run_folder):
    run(pipeline, run_folder, [Deriving(derived={"mine_rise": replace(FINE, mean=math.inf, low=-math.inf)})])
    found = read_run(run_folder).evaluations[-1].scores["mine_rise"]
    assert (math.isnan(found.mean), math.isnan(found.low), found.high) == (True, True, 0.6)


@pytest.mark.parametrize("place", ["sink", "hook", "rule", "metric"])
def test_ctrl_c_in_code_of_the_users_is_not_its_failure(place, pipeline, run_folder):
    interrupted, metric = raises(KeyboardInterrupt()), Brightness()
    options = {
        "sink": {"sinks": [Sink(write=interrupted)]},
        "hook": {"hooks": [interrupted]},
        "rule": {"stopping": [Rule(interrupted)]},
        "metric": {},
    }
    if place == "metric":
        metric.score = interrupted
    with (
        pytest.raises(KeyboardInterrupt),
        FinetuneMonitor(pipeline, GRID, [metric], run_folder, every=1, **options[place]) as monitor,
    ):
        monitor.on_step_end(1)
