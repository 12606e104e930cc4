"""The verdict names the best file, and claims no more than the paired intervals allow."""

import time

import numpy as np
import pytest

from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Evaluation, ScoredImage, summarize
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.history import RunHistory
from finetune_monitor.scoring.verdict import verdict

GRID = PromptGrid(["a", "b"], images_per_prompt=4)
NOISE = np.random.default_rng(0).normal(0, 0.1, 8)
"""Of the images; every file shares it, as they share the seeds."""


def history(tmp_path, levels, higher_is_better=True, alarms=(), noise=1e-3, missing=0):
    """A run with these mean scores by step, which differ by more than chance unless the noise is large."""
    column = ScoreColumn(higher_is_better, (0.0, 1.0), alarm=0.1 if alarms else None, says="something is wrong")
    rng = np.random.default_rng(1)
    evaluations = []
    for step, level in levels.items():
        values = np.clip(level + NOISE + rng.normal(0, noise, 8), 0, 1)
        values[:missing] = np.nan
        images = tuple(
            ScoredImage(cell, None, {"score": value}) for cell, value in zip(GRID.cells, values.tolist(), strict=True)
        )
        scores = summarize(images, {"score": column})
        evaluations.append(Evaluation(step, None, time.time(), scores, images, alarms=alarms))
    run = {
        "metrics": {"score": column.direction_json()},
        "columns": {"score": column.to_json()},
        "best_metric": "score",
    }
    return RunHistory(tmp_path, run, tuple(evaluations))


def said(*runs, has_base=True):
    names = [{each.step: f"file {each.step} of {place}" for each in run.evaluations} for place, run in enumerate(runs)]
    return verdict(list(zip(runs, names, strict=True)), has_base)


def test_a_clear_winner(tmp_path):
    lines = said(history(tmp_path, {0: 0.2, 1: 0.5}))
    assert lines[0].startswith("by score, file 1 of 0 is best (")
    assert "its lead over the base model, 0." in lines[0]
    assert "is significant" in lines[0]
    assert lines[1] == "all others are significantly worse"
    assert lines[2].startswith("it is better than the base model by 0.")


def test_a_winner_by_chance_is_not_called_better(tmp_path):
    lines = said(history(tmp_path, {0: 0.40, 1: 0.41}, noise=0.2))
    assert "is not significant" in lines[0]
    assert "it is not significantly better than" in lines[1]
    assert lines[2] in (
        "these images do not show that any file is better than the base model",
        "no file is better than the base model",
    )
    assert not any("it is better" in line for line in lines)


def test_the_base_model_may_be_the_best(tmp_path):
    lines = said(history(tmp_path, {0: 0.5, 1: 0.2}))
    assert lines[0].startswith("by score, the base model is best")
    assert "no file is better than the base model" in lines


@pytest.mark.parametrize("last", [0.48, 0.55])
def test_no_sentence_denies_a_file_that_is_better_than_the_base_model(tmp_path, last):
    lines = said(history(tmp_path, {0: 0.4, 1: 0.2, 2: last}))  # smoothed, 0.387 or 0.433
    assert not any("no file is better" in line or "do not show that any" in line for line in lines)
    assert any("is better than the base model by 0." in line for line in lines)


def test_a_file_other_than_the_best_may_be_the_one_that_is_surely_better(tmp_path):
    sure = history(tmp_path, {0: 0.4, 1: 0.45})
    unsure = history(tmp_path, {0: 0.4, 1: 0.5}, noise=0.3)
    lines = said(sure, unsure)
    assert lines[0].startswith("by score, file 1 of 1 is best")
    assert "file 1 of 0 is better than the base model by 0.0" in " ".join(lines)


def test_lower_may_be_better(tmp_path):
    lines = said(history(tmp_path, {0: 0.5, 1: 0.2}, higher_is_better=False))
    assert lines[0].startswith("by score, file 1 of 0 is best")
    assert "its lead over the base model, 0." in lines[0]


def test_strengths_are_compared_on_the_images_that_they_share(tmp_path):
    weak, strong = history(tmp_path, {0: 0.2, 1: 0.3}), history(tmp_path, {0: 0.2, 1: 0.5})
    lines = said(weak, strong)
    assert lines[0].startswith("by score, file 1 of 1 is best")
    assert sum("the base model" in line for line in lines) == 1
    assert any(line.startswith("each of these 2 paired intervals") for line in lines)


def test_many_that_cannot_be_told_apart_are_counted(tmp_path):
    lines = said(history(tmp_path, {0: 0.1, **dict.fromkeys(range(1, 10), 0.5)}, noise=0.05))
    [line] = [line for line in lines if line.startswith("it is not significantly better than")]
    assert line.count("file ") == 5
    assert " and " in line


@pytest.mark.parametrize("levels", [{1: 0.5}, {0: 0.5}])
def test_a_single_evaluation_has_nothing_to_be_compared_with(tmp_path, levels):
    [line] = said(history(tmp_path, levels))
    assert "there is nothing to compare it with" in line


def test_too_few_measured_images_are_no_verdict(tmp_path):
    assert said(history(tmp_path, {0: 0.5, 1: 0.6}, missing=5)) == [
        "score could not be measured in enough images, so there is no best file (was no face found?)"
    ]


def test_the_alarms_of_the_best_are_part_of_the_verdict(tmp_path):
    lines = said(history(tmp_path, {1: 0.5, 2: 0.6}, alarms=("score",)), has_base=False)
    assert lines[-1].startswith("ALARM: score is")
    assert not any("base model" in line for line in lines)
