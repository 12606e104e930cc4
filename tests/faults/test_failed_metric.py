"""A metric that fails says nothing about the training: no rule acts on it, and no verdict blames the training."""

import pytest

from finetune_monitor import Divergence, FinetuneMonitor
from finetune_monitor.record.evaluation import Evaluation, has_failed
from finetune_monitor.record.history import read_run
from finetune_monitor.record.verdict import verdict
from support.scripted import GRID, Scripted

pytestmark = pytest.mark.slow


class Failing(Scripted):
    """Scores of two images, about as they are given; None fails, NaN measures nothing."""

    def score(self, images, cells):
        score = next(self._scores)
        if score is None:
            raise RuntimeError("CUDA error")
        return {self.name: [score, score * 1.01]}


def watched(pipeline, folder, scores, **options) -> FinetuneMonitor:
    monitor = FinetuneMonitor(pipeline, GRID, [Failing(scores)], folder, every=1, **options).start()
    for step in range(1, len(scores)):
        monitor.on_step_end(step)
    monitor.close()
    return monitor


NOTHING = float("nan")


@pytest.mark.parametrize(
    ("scores", "stops"),
    [
        ([0.1, 0.2, None, None, None], False),
        ([0.1, 0.2, NOTHING, NOTHING], True),
        ([0.1, 0.2, NOTHING, None, NOTHING], True),
        ([0.1, 0.2, NOTHING, None], False),
    ],
)
def test_divergence_counts_only_evaluations_in_which_the_metric_worked(pipeline, run_folder, scores, stops):
    monitor = watched(pipeline, run_folder, scores, stopping=Divergence("scripted"))
    assert monitor.decision.stop is stops
    failed = [each.failed for each in read_run(run_folder).evaluations]
    assert failed == [("scripted",) if score is None else () for score in scores]


def test_a_failure_at_the_end_does_not_make_the_model_worse(pipeline, run_folder):
    watched(pipeline, run_folder, [0.1, 0.5, None])
    found = verdict(read_run(run_folder))
    assert found.outcome == "better"
    assert "At step 2, scripted failed: the log says why." in found.sentences
    assert "learning rate" not in str(found)


def test_other_metrics_that_failed_are_named_in_the_verdict(pipeline, run_folder):
    def fails(images, cells):
        raise RuntimeError("no weights")

    others = [Scripted([0.5] * 3, name) for name in ("second", "third", "fourth")]
    others[0].score = others[1].score = fails
    with FinetuneMonitor(pipeline, GRID, [Scripted([0.1, 0.5, 0.6]), *others], run_folder, every=1) as monitor:
        for step in (1, 2):
            monitor.on_step_end(step)
    sentences = verdict(read_run(run_folder)).sentences
    assert "At steps 0 to 2, second and third failed: the log says why." in sentences


def test_a_metric_that_never_works_is_not_for_the_prompts_to_repair(pipeline, run_folder):
    watched(pipeline, run_folder, [None, None])
    found = verdict(read_run(run_folder))
    assert found.outcome == "unmeasured"
    assert found.sentences[0] == "scripted failed in every evaluation, so there is no best step."
    assert "prompts" not in str(found)
    assert found.sentences[-1] == (
        "Repair what the log names, and run again: without scripted, there is nothing to judge by."
    )


def test_a_rendering_that_fails_is_no_divergence(pipeline, run_folder, monkeypatch):
    monitor = FinetuneMonitor(
        pipeline, GRID, [Failing([0.1, 0.2])], run_folder, every=1, stopping=Divergence("scripted")
    )
    monitor.start()
    monitor.on_step_end(1)
    monkeypatch.setattr(type(pipeline.unet), "forward", lambda *_, **__: 1 / 0)
    for step in (2, 3, 4):
        assert monitor.on_step_end(step) is False
    monitor.close()
    last: Evaluation = read_run(run_folder).evaluations[-1]
    assert has_failed(last, "scripted", monitor._columns)
    assert verdict(read_run(run_folder)).outcome == "better"
