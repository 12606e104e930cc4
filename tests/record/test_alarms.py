"""An alarm sounds where something is wrong, and chance alone sounds none."""

from dataclasses import replace

import numpy as np
import pytest

from finetune_monitor.record.alarms import alarms, alarms_by_column, alarms_of, side_of_alarm
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Evaluation, ScoredImage, summarize
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.stats.estimate import MISSING, Estimate
from finetune_monitor.stats.intervals import t_interval

LEAKS = {"leakage": ScoreColumn(False, over="run", alarm=0.5, says="it leaks")}
MARGIN = {"margin": ScoreColumn(True, alarm=0.0, says="the prompt is ignored")}


def history(name: str, *scores: tuple[float, float]) -> list[Evaluation]:
    """Evaluations with these means and half widths."""
    found = [{name: Estimate(mean, mean - half, mean + half, 16, 0)} for mean, half in scores]
    return [Evaluation(100 * index, None, 0.0, each) for index, each in enumerate(found)]


@pytest.mark.parametrize(
    ("scores", "sounds"),
    [
        ([(0.9, 0.1)], False),  # step 0
        ([(0.0, 0.1), (0.4, 0.3)], False),
        ([(0.0, 0.1), (0.9, 0.3)], True),  # the whole interval is beyond
        ([(0.0, 0.1), (0.6, 0.3)], False),  # once, and within the noise
        ([(0.0, 0.1), (0.6, 0.3), (0.55, 0.3)], True),
        ([(0.0, 0.1), (0.6, 0.3), (0.4, 0.3)], False),
        ([(0.0, 0.1), (MISSING, MISSING)], False),
        ([(0.0, 0.1), (0.6, MISSING)], False),  # of one draw nobody knows the noise
    ],
)
def test_above_is_wrong_where_lower_is_better(scores, sounds):
    assert alarms(history("leakage", *scores), LEAKS) == (("leakage",) if sounds else ())


COPIES = {"copies": ScoreColumn(False, (0.0, 1.0), is_share=True, alarm=0.2, says="it copies")}


def copies(*measured: list[float], images: int = 8) -> list[Evaluation]:
    """Step 0, and evaluations of a share; the remaining images could not be measured."""
    cells = PromptGrid(["a"], images_per_prompt=images).cells
    rows = [[0.0] * images, *([*row, *[MISSING] * (images - len(row))] for row in measured)]
    scored = [
        tuple(ScoredImage(cell, None, {"copies": score}) for cell, score in zip(cells, row, strict=True))
        for row in rows
    ]
    return [Evaluation(100 * i, None, 0.0, summarize(own, COPIES), own) for i, own in enumerate(scored)]


@pytest.mark.parametrize(
    ("measured", "images", "sounds"),
    [
        ([[1.0]], 8, False),  # one lucky image of eight
        ([[1.0], [1.0]], 8, False),
        ([[1.0]], 1, False),
        ([[1.0] * 3], 8, False),
        ([[1.0] * 3], 6, True),  # half of them
        ([[1.0] * 4], 64, True),  # where only some have something to measure
        ([[1.0] * 8], 8, True),
        ([[1.0] * 8, [1.0]], 8, False),
    ],
)
def test_an_alarm_needs_enough_measured_images(measured, images, sounds):
    assert alarms(copies(*measured, images=images), COPIES) == (("copies",) if sounds else ())


def test_a_score_of_the_run_that_is_one_value_can_sound():
    value = {"leakage": Estimate(0.9, 0.8, 1.0, 1, 0)}
    assert alarms([Evaluation(100, None, 0.0, value)], LEAKS) == ("leakage",)


def test_the_only_image_of_a_prompt_sounds_no_alarm_about_the_prompt():
    one = {"worst": Estimate(-0.1, MISSING, MISSING, 1, 0)}
    column = ScoreColumn(True, over="run", alarm=0.0, says="a prompt is ignored", worst_of="margin")
    assert alarms([Evaluation(step, None, 0.0, one) for step in (100, 200)], {"worst": column}) == ()


@pytest.mark.parametrize(
    ("asked", "sounded", "sounds"),
    [
        ((0.6, 0.3), (), False),  # the same images once more
        ((0.9, 0.3), (), True),
        ((0.6, 0.3), ("leakage",), True),  # the alarm goes on
        ((0.4, 0.3), ("leakage",), False),
    ],
)
def test_an_evaluation_on_request_confirms_no_other(asked, sounded, sounds):
    start, before, last = history("leakage", (0.0, 0.1), (0.6, 0.3), asked)
    found = alarms([start, replace(before, alarms=sounded), replace(last, on_request=True)], LEAKS)
    assert found == (("leakage",) if sounds else ())


def test_below_is_wrong_where_higher_is_better():
    assert alarms(history("margin", (0.1, 0.02), (-0.1, 0.05)), MARGIN) == ("margin",)
    assert alarms(history("margin", (0.1, 0.02), (0.1, 0.05)), MARGIN) == ()


def test_a_column_that_is_not_there_sounds_no_alarm():
    assert alarms(history("other", (0.0, 0.1), (9.0, 0.1)), LEAKS) == ()


def test_the_words_have_the_numbers():
    last = Evaluation(100, None, 0.0, {"leakage": Estimate(0.9, 0.7, 1.1, 16, 0)}, alarms=("leakage",))
    assert alarms_of(last, LEAKS) == ["leakage is 0.900 [0.700, 1.100], above 0.5: it leaks"]


def test_an_alarm_about_one_prompt_names_it():
    margins = {"a photo of sks person": 0.2, "sks person as an\nastronaut": -0.1}
    grid = PromptGrid(list(margins), seeds=(0, 7))
    images = tuple(ScoredImage(cell, None, {"margin": margins[cell.prompt] + cell.seed / 100}) for cell in grid.cells)
    worst = t_interval(np.array([-0.1, -0.03]))
    last = Evaluation(100, None, 0.0, {"worst": worst}, images, alarms=("worst",))
    column = ScoreColumn(True, over="run", alarm=0.0, says="a prompt is ignored", worst_of="margin")
    [said] = alarms_of(last, {"worst": column})
    assert 'for "sks person as an astronaut", below 0: a prompt is ignored' in said
    [unnamed] = alarms_of(replace(last, images=()), {"worst": column})  # nothing tells which prompt it is
    assert '"' not in unnamed


def test_a_recorded_alarm_of_a_column_without_a_level_says_nothing():
    last = Evaluation(100, None, 0.0, {"leakage": Estimate(0.9, 0.7, 1.1, 16, 0)}, alarms=("leakage", "gone"))
    assert alarms_by_column(last, {"leakage": ScoreColumn(False)}) == {}
    assert list(alarms_by_column(last, LEAKS)) == ["leakage"]


def test_a_column_without_a_direction_is_said_to_sound_on_the_side_on_which_it_sounds():
    column = ScoreColumn(None, alarm=0.5, says="it falls")
    assert alarms(history("score", (0.1, 0.01), (0.1, 0.01)), {"score": column}) == ("score",)
    assert side_of_alarm(column) == "below"
