"""What loops pass to the monitor: numbers of other libraries are taken, and anything else is named."""

import os
from argparse import Namespace
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from finetune_monitor import FinetuneMonitor, Plateau, PromptGrid, RunCommand, TensorBoardSink
from finetune_monitor.base.errors import UserError
from finetune_monitor.monitor.arguments import finite_or_none, number_of, step_of
from finetune_monitor.record.history import read_run
from finetune_monitor.record.training_log import read_training
from support.scripted import GRID, Scripted


@contextmanager
def swapped():
    """Swaps in the weights of an EMA."""
    yield


@pytest.mark.parametrize("step", [3, 3.0, np.int64(3), np.uint8(3), np.float64(3), torch.tensor(3), np.array(3)])
def test_a_step_of_any_type_is_taken(step):
    assert step_of(step) == 3
    assert type(step_of(step)) is int


@pytest.mark.parametrize("step", [3.5, "3", True, None, [3], torch.tensor([1, 2]), float("nan"), np.float32(0.5)])
def test_what_is_no_step_is_named(step):
    with pytest.raises(TypeError, match=r"step: found .*, expected a whole number of optimizer steps"):
        step_of(step)


@pytest.mark.parametrize(
    "number", [0.5, np.float32(0.5), np.array(0.5), np.array([0.5]), torch.tensor([[0.5]]), torch.tensor(0.5), [0.5]]
)
def test_a_number_of_any_type_is_taken(number):
    assert number_of(number, "loss") == 0.5
    assert type(number_of(number, "loss")) is float


@pytest.mark.parametrize("number", ["0.5", True, None, [], [1, 2], torch.zeros(2), np.zeros((2, 2)), 1j, {}])
def test_what_is_no_number_is_named(number):
    with pytest.raises(TypeError, match=r"loss: found .*, expected one number"):
        number_of(number, "loss")


def test_an_epoch_that_is_not_finite_is_unknown():
    assert [finite_or_none(value) for value in (0.5, float("nan"), float("inf"))] == [0.5, None, None]


@pytest.mark.slow
def test_a_loop_may_pass_numbers_of_numpy_and_torch(pipeline, run_folder):
    with FinetuneMonitor(pipeline, GRID, [Scripted([0.1, 0.2, 0.3])], run_folder, every=1) as monitor:
        monitor.on_step_end(np.int64(1), epoch=np.float32(0.5), loss=torch.tensor([0.25]), learning_rate=[1e-4])
        monitor.on_step_end(torch.tensor(2), epoch=float("nan"), loss=np.float16(0.5))
    history = read_run(run_folder)
    assert [(each.step, each.epoch) for each in history.evaluations] == [(0, None), (1, 0.5), (2, None)]
    assert [point.loss for point in read_training(run_folder)] == [0.375]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"grid": ["a photo"]}, r"grid: found \['a photo'\], expected a PromptGrid"),
        ({"metrics": Scripted([0.1])}, r"metrics: found an instance of Scripted, expected a list of metrics, such as"),
        ({"metrics": [Scripted]}, r"metrics: found the class Scripted, expected metrics"),
        ({"metrics": "face_similarity"}, r"metrics: found 'f', expected metrics"),
        ({"sinks": TensorBoardSink()}, r"sinks: found an instance of TensorBoardSink, expected a list of sinks"),
        ({"sinks": [TensorBoardSink]}, r"sinks: found the class TensorBoardSink"),
        ({"sinks": ["tensorboard"]}, r"sinks: found 'tensorboard'"),
        ({"stopping": Plateau}, r"stopping: found the class Plateau, expected rules"),
        ({"stopping": ["plateau"]}, r"stopping: found 'plateau', expected rules, such as Plateau"),
        ({"hooks": lambda evaluation, decision: None}, r"hooks: found an instance of function, expected a list of"),
        ({"hooks": [RunCommand]}, r"hooks: found the class RunCommand"),
        ({"hooks": ["echo"]}, r"hooks: found 'echo'"),
        ({"every": "3"}, r"every: found '3', expected a whole number of optimizer steps"),
        ({"every": 0.5}, r"every: found 0.5, expected a whole number of optimizer steps"),
        ({"max_overhead": "5%"}, r"max_overhead: found '5%', expected one number"),
        ({"evaluation_timeout": "60"}, r"evaluation_timeout: found '60', expected one number"),
        ({"autocast": "bf16"}, r"autocast: found 'bf16', expected a type such as torch.bfloat16"),
        (
            {"hparams": Namespace(rank=4)},
            r"hparams: found Namespace\(rank=4\), expected a dict of settings, such as vars",
        ),
        ({"live_weights": None}, r"live_weights: found None, expected a function that returns a context manager"),
        ({"live_weights": swapped()}, r"live_weights: found <contextlib.*; pass the function itself, without calling"),
    ],
)
def test_an_argument_of_another_type_is_named_before_anything_is_written(pipeline, run_folder, settings, said):
    with pytest.raises(TypeError, match=said):
        FinetuneMonitor(pipeline, **{"grid": GRID, "metrics": [Scripted([0.1])], "output_dir": run_folder, **settings})
    assert not run_folder.exists()


@pytest.mark.parametrize(
    ("attribute", "value", "said"),
    [
        ("name", 3, "name: found 3, expected a text"),
        ("name", "", "name: found '', expected a text"),
        ("higher_is_better", "yes", "higher_is_better: found 'yes', expected True or False"),
        ("bounds", None, "bounds: found None, expected the lowest and the highest score"),
        ("bounds", (None, None), r"bounds: found \(None, None\), expected"),
        ("bounds", (0, 1, 2), r"bounds: found \(0, 1, 2\), expected"),
        ("bounds", (1.0, 0.0), r"bounds: found \(1.0, 0.0\), expected"),
        ("bounds", (float("nan"), 1.0), r"bounds: found \(nan, 1.0\), expected"),
    ],
)
def test_a_metric_that_could_not_be_recorded_is_named(pipeline, run_folder, attribute, value, said):
    metric = Scripted([0.1])
    setattr(metric, attribute, value)
    with pytest.raises(ValueError, match=rf"metrics: Scripted\.{said}"):
        FinetuneMonitor(pipeline, GRID, [metric], run_folder)
    assert not run_folder.exists()


def test_bounds_of_any_numbers_can_be_read_again(pipeline, run_folder):
    metric = Scripted([0.1])
    metric.bounds = np.array([0, 1], dtype=np.float32)
    FinetuneMonitor(pipeline, GRID, [metric], run_folder).close()
    assert read_run(run_folder).columns["scripted"].bounds == (0.0, 1.0)


def test_a_description_of_another_type_is_named(pipeline, run_folder):
    metric = Scripted([0.1])
    metric.describe = lambda: {"columns": {}}
    with pytest.raises(TypeError, match=r"metric scripted: describe returned .*, expected a Description"):
        FinetuneMonitor(pipeline, GRID, [metric], run_folder)


@dataclass
class Own:
    """A rule whose attributes mean something else than those of the shipped rules."""

    level: object = None
    score: object = None
    prompts: object = None
    metric: str = "scripted"

    def decide(self, watched):
        return None


@pytest.mark.parametrize("rule", [Own(level="strict"), Own(score=max), Own(prompts=5), Own(prompts=["a photo"])])
def test_attributes_of_an_own_rule_may_mean_something_else(pipeline, run_folder, rule):
    FinetuneMonitor(pipeline, GRID, [Scripted([])], run_folder, stopping=rule).close()


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Plateau("scripted", prompts=[1]), r"prompts: found 1, expected 0 to 0: the grid has 1 prompt, counted"),
        (Own(level=300), r"level: found 300, expected 0 to 1, the bounds of scripted"),
    ],
)
def test_attributes_that_cannot_be_right_are_named(pipeline, run_folder, rule, said):
    grid = PromptGrid(["a photo"], seeds=(0, 1), steps=2, size=(32, 32))
    with pytest.raises(ValueError, match=said):
        FinetuneMonitor(pipeline, grid, [Scripted([])], run_folder, stopping=rule)


@pytest.mark.parametrize("keep", [3, None, "last"])
def test_weights_to_keep_that_are_no_choice_are_named(pipeline, run_folder, keep):
    with pytest.raises(ValueError, match=rf"found {keep!r}, expected auto, all, best, pareto, or last N"):
        FinetuneMonitor(pipeline, GRID, [Scripted([0.1])], run_folder, keep=keep)


def test_settings_of_any_name_reach_the_sinks(pipeline, run_folder, caplog):
    FinetuneMonitor(
        pipeline, GRID, [Scripted([])], run_folder, [TensorBoardSink()], hparams={3: "x", "rank": 4}
    ).close()
    assert (read_run(run_folder).hparams, caplog.records) == ({"3": "x", "rank": 4}, [])


def test_parts_may_be_in_any_collection_and_a_single_rule_in_none(pipeline, run_folder):
    rule, sink = Plateau("scripted"), TensorBoardSink()
    monitor = FinetuneMonitor(pipeline, GRID, iter([Scripted([0.1])]), run_folder, (sink,), rule, np.int64(5))
    assert (monitor.rules, monitor.sinks, monitor.every) == ([rule], [sink], 5)
    monitor.close()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_output_dir_that_is_no_folder_is_named(pipeline, tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=f"{place}: cannot write to it .*; choose another output_dir"):
        FinetuneMonitor(pipeline, GRID, [Scripted([0.1])], tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(("resume_step", "error"), [(-1, ValueError), (True, TypeError), ("2", TypeError)])
@pytest.mark.slow
def test_a_step_to_resume_from_that_is_none_leaves_the_record_as_it_is(pipeline, run_folder, resume_step, error):
    with FinetuneMonitor(pipeline, GRID, [Scripted([0.1, 0.2])], run_folder, every=1) as monitor:
        monitor.on_step_end(1)
    before = {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()}
    with pytest.raises(error, match="resume_step: found"):
        FinetuneMonitor(pipeline, GRID, [Scripted([])], run_folder, resume_step=resume_step)
    assert {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_the_run_stays_in_one_place_when_the_working_directory_changes(pipeline, tmp_path, monkeypatch, capsys):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with FinetuneMonitor(pipeline, GRID, [Scripted([0.1, 0.2])], "runs/ana", every=1) as monitor:
        os.chdir("elsewhere")
        monitor.on_step_end(1)
        os.chdir("..")
    assert [each.step for each in read_run(tmp_path / "runs/ana").evaluations] == [0, 1]
    assert (tmp_path / "runs/ana/best").is_dir()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert "runs/ana: mean [95% interval]" in capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_a_home_folder_is_expanded(pipeline, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with FinetuneMonitor(pipeline, GRID, [Scripted([0.1])], "~/runs/ana") as monitor:
        assert monitor.output_dir == tmp_path / "home/runs/ana"
    assert not Path("~").exists()


@pytest.mark.parametrize("rule", [Plateau("mm"), Plateau()])
def test_a_rule_that_watches_what_no_metric_describes_is_refused(pipeline, run_folder, rule):
    expected = rf"stopping\.0\.metric: found '{rule.metric}', expected one of scripted"
    with pytest.raises(ValueError, match=expected):
        FinetuneMonitor(pipeline, GRID, [Scripted([])], run_folder, stopping=rule)
    assert not run_folder.exists()
