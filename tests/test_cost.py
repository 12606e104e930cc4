"""How the study of an evaluation's cost compares decisions, and which setting it chooses."""

import numpy as np
import pytest

from benchmarks.cheaper import CANDIDATES, EVERYWHERE, HALF_THE_IMAGES, REFERENCE
from benchmarks.cost_report import Agreement, agreements, chosen_of
from benchmarks.verdicts import Record, compared
from finetune_monitor.monitor.rules.plateau import Plateau
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Evaluation, ScoredImage, summarize
from finetune_monitor.record.grid import PromptGrid

METRIC = "face_similarity"
COLUMNS = {METRIC: ScoreColumn(bounds=(-1, 1))}
CELLS = PromptGrid(["a photo of sks person"], images_per_prompt=8).cells
SECONDS = {
    name: [1 / (1 + place)]
    for place, name in enumerate([REFERENCE.name, *(each.name for each in CANDIDATES), *HALF_THE_IMAGES])
}
"""Each setting is cheaper than the one before."""

NOISE = np.random.default_rng(0).normal(0, 0.08, (9, len(CELLS)))
RISES = (0.0, 0.2, 0.3, 0.4, 0.5, 0.51, 0.5, 0.3, 0.2)


def record(means, noise=NOISE):
    """A record whose rule stops where the last two means are no better than the two before."""
    found = []
    for place, mean in enumerate(means):
        values = mean + noise[place] - noise[place].mean()
        images = tuple(
            ScoredImage(cell, None, {METRIC: float(value)}) for cell, value in zip(CELLS, values, strict=True)
        )
        found.append(Evaluation(40 * place, None, 0.0, summarize(images, COLUMNS), images))
    return Record(tuple(found), COLUMNS, [Plateau(window=2)])


def test_the_same_scores_decide_alike():
    found = compared(record(RISES), record(RISES), record(RISES))
    assert record(RISES).verdict.stop == 280
    assert (found.strictly, found.agrees, found.lost) == (True, True, 0)


def test_a_best_step_that_the_reference_cannot_tell_from_its_own_is_as_good():
    other, reference = record([0.0, 0.46, 0.45, 0.48, 0.42]), record([0.0, 0.47, 0.44, 0.48, 0.42])
    found = compared(other, reference, reference)
    assert (other.verdict.best, reference.verdict.best) == (80, 40)
    assert (found.strictly, found.agrees) == (False, True)
    assert 0 < found.lost < 0.01


def test_a_best_step_that_is_worse_for_certain_is_not():
    other = record([0.0, 0.6, 0.5, 0.3, 0.2, *RISES[5:]])
    found = compared(other, record(RISES), record(RISES))
    assert other.verdict.best == 40
    assert not found.as_good
    assert found.lost > 0.1


def test_another_stop_is_another_decision():
    later = record([*RISES[:6], 0.55, 0.5, 0.3])
    found = compared(later, record(RISES), record(RISES))
    assert later.verdict.stop == 320
    assert (found.near_stop, found.same_stop, found.agrees) == (True, False, False)


def test_never_to_stop_is_not_near_a_stop_long_before():
    rising = record(np.linspace(0, 0.8, 9))
    found = compared(rising, record(RISES[:1] + RISES[:1] * 8), rising)
    assert rising.verdict.stop is None
    assert not found.near_stop


@pytest.fixture
def records():
    """Two trainings in which all settings decide alike."""
    return {training: {name: record(RISES) for name in SECONDS} for training in "ab"}


def test_the_cheapest_setting_measured_everywhere_is_chosen(records):
    assert chosen_of(agreements(records, SECONDS)).name == EVERYWHERE[-1].name


def test_a_setting_with_one_disagreement_is_not(records):
    records["b"][EVERYWHERE[-1].name] = record([0.0, 0.6, *RISES[2:]])
    assert chosen_of(agreements(records, SECONDS)).name == EVERYWHERE[-2].name
    for setting in EVERYWHERE:
        records["a"][setting.name] = record(np.linspace(0, 0.8, 9))
    assert chosen_of(agreements(records, SECONDS)) is None


def test_shares_have_the_interval_of_so_few_trainings():
    found = Agreement("8 steps", {str(n): (record(RISES), record(RISES)) for n in range(12)}, ([1], [1])).agreeing
    assert (found.mean, found.n, found.high) == (1, 12, 1)
    assert found.low == pytest.approx(12 / (12 + 1.96**2), abs=1e-3)
