"""A user's metric returns what is not a score: it is missing, one warning says so, and training continues."""

import math
import sys

import numpy as np
import pytest
import torch

from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.monitor.evaluator import score_of
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.history import read_run

GRID = PromptGrid(["a photo of sks person"], seeds=(0, 1, 2), steps=2, size=(32, 32))


class Returns:
    """A metric that gives the same values in every evaluation."""

    name = "mine"
    higher_is_better = True
    bounds = (0.0, 1.0)

    def __init__(self, values):
        self.values = values

    def score(self, images, cells):
        return {self.name: self.values() if callable(self.values) else self.values}


class Unfriendly:
    def __float__(self):
        raise RuntimeError("no number")

    def __repr__(self):
        return "x" * 10_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [math.inf, -math.inf, None, "0.5", b"0.5", 1j, np.complex128(1), object(), Unfriendly(), [0.5, 0.5], 1.5, -0.2],
)
def test_what_is_no_score_is_missing_and_named_once(wrong, pipeline, run_folder, caplog):
    monitor = FinetuneMonitor(pipeline, GRID, [Returns([0.25, wrong, 0.75])], run_folder, every=1).start()
    assert not monitor.on_step_end(1)
    monitor.close()
    for evaluation in read_run(run_folder).evaluations:
        assert [image.scores["mine"] for image in evaluation.images] == pytest.approx(
            [0.25, math.nan, 0.75], nan_ok=True
        )
        assert (evaluation.scores["mine"].n, evaluation.scores["mine"].missing) == (2, 1)
    warned = [record.message for record in caplog.records if "metric mine" in record.message]
    assert len(warned) == 1
    assert "mine of p00-s1 is " in warned[0]
    assert "expected a finite number from 0 to 1" in warned[0]
    assert len(warned[0]) < 300


@pytest.mark.slow
@pytest.mark.parametrize(
    "values", [[0.5], 0.5, None, np.zeros((2, 3)), lambda: sys.exit(3)], ids=["few", "number", "none", "shape", "exit"]
)
def test_what_is_no_column_is_missing_and_ends_nothing(values, pipeline, run_folder, caplog):
    monitor = FinetuneMonitor(pipeline, GRID, [Returns(values)], run_folder, every=1).start()
    assert not monitor.on_step_end(1)
    monitor.close()
    assert [each.scores["mine"].n for each in read_run(run_folder).evaluations] == [0, 0]
    assert caplog.text.count("metric mine failed") == 1


def test_ctrl_c_while_a_metric_works_is_not_its_failure(pipeline, run_folder):
    metric = Returns([0.1, 0.2, 0.3])
    monitor = FinetuneMonitor(pipeline, GRID, [metric], run_folder, every=1).start()

    def interrupt():
        raise KeyboardInterrupt

    metric.values = interrupt
    with pytest.raises(KeyboardInterrupt):
        monitor.on_step_end(1)
    monitor.close()


@pytest.mark.parametrize("value", [1, True, np.float32(0.5), np.int64(1), torch.tensor(0.5), np.array([0.5]), 1 + 1e-5])
def test_every_kind_of_number_is_a_score(value):
    assert score_of(value, (0.0, 1.0)) == pytest.approx(float(np.asarray(value).reshape(())))


def test_a_missing_score_is_missing_without_a_warning():
    assert math.isnan(score_of(math.nan, (0.0, 1.0)))
