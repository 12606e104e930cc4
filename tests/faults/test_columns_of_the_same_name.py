"""Two metrics have a column of the same name: neither overwrites the other."""

import numpy as np
import pytest

from finetune_monitor.metrics import Description, Descriptions
from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.record.columns import SIDE
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.history import read_run
from finetune_monitor.stats.estimate import Estimate

GRID = PromptGrid(["a photo of sks person"], seeds=(0, 1), steps=2, size=(32, 32))


class Returns:
    """A metric that gives every image the same values."""

    higher_is_better = True
    bounds = (0.0, 1.0)

    def __init__(self, name, **values):
        self.name, self.values = name, values

    def score(self, images, cells):
        return {name: np.full(len(images), value) for name, value in self.values.items()}


class Describes(Returns):
    def describe(self):
        return Description({name: SIDE for name in self.values if name != self.name})


class Everywhere(Returns):
    """Also has a score of the model, one of the whole evaluation, and one from a comparison."""

    def measure(self, pipeline, size):
        return {"loss": np.array([self.values[self.name]])}

    def derive(self, history):
        value = self.values[self.name]
        return {"whole": Estimate(value, value, value, 1, 0)}

    def features(self, images, cells):
        return [np.zeros(1)] * len(images)

    def compare(self, features, cells):
        return {"compared": np.full(len(features), self.values[self.name])}


def means(pipeline, folder, metrics) -> dict[str, float]:
    with FinetuneMonitor(pipeline, GRID, metrics, folder, every=1) as monitor:
        monitor.on_step_end(1)
    return {name: found.mean for name, found in read_run(folder).evaluations[-1].scores.items()}


def left_out(caplog) -> list[str]:
    return [record.message for record in caplog.records if "is left out" in record.message]


def test_a_score_is_not_overwritten_by_the_column_of_another_metric(pipeline, run_folder, caplog):
    found = means(pipeline, run_folder, [Returns("b", b=0.9), Returns("a", a=0.5, b=0.1)])
    assert found == pytest.approx({"b": 0.9, "a": 0.5})
    assert left_out(caplog) == [
        "metric a: its column b is left out, because b has a column of that name; rename one of them"
    ]


def test_a_score_is_not_overwritten_by_a_metric_before_it(pipeline, run_folder, caplog):
    found = means(pipeline, run_folder, [Returns("a", a=0.5, b=7.0), Returns("b", b=0.9)])
    assert found == pytest.approx({"b": 0.9, "a": 0.5})
    assert len(left_out(caplog)) == 1
    assert "expected a finite number" not in caplog.text


def test_a_column_that_nobody_describes_belongs_to_the_first(pipeline, run_folder, caplog):
    found = means(pipeline, run_folder, [Returns("b", b=0.9, shared=0.3), Returns("a", a=0.5, shared=0.1)])
    assert found == pytest.approx({"b": 0.9, "a": 0.5, "shared": 0.3})
    assert len(left_out(caplog)) == 1


def test_every_kind_of_score_keeps_its_owner(pipeline, run_folder, caplog):
    found = means(pipeline, run_folder, [Everywhere("b", b=0.9), Everywhere("a", a=0.5)])
    assert found == pytest.approx({"b": 0.9, "a": 0.5, "loss": 0.9, "whole": 0.9, "compared": 0.9})
    assert len(left_out(caplog)) == 3


@pytest.mark.parametrize(
    "metrics",
    [
        [Returns("b", b=0.9), Describes("a", a=0.5, b=0.1)],
        [Describes("b", b=0.9, shared=0.3), Describes("a", a=0.5, shared=0.1)],
    ],
)
def test_described_columns_of_the_same_name_are_refused(metrics):
    with pytest.raises(ValueError, match=r"metrics: b and a both have a column (b|shared), expected one metric"):
        Descriptions.of(metrics)
