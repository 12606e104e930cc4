"""The verdict in words: one case for each way in which a training can end, and no claim beyond the intervals."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune_monitor.record.alarms import alarms
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.curve import best_of
from finetune_monitor.record.evaluation import Decision, Evaluation, ScoredImage, StopReason, summarize
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.history import RunHistory
from finetune_monitor.record.verdict import verdict
from finetune_monitor.stats.estimate import Estimate

GRID = PromptGrid(["a photo of sks person"], images_per_prompt=8)
COLUMNS = {
    "likeness": ScoreColumn(True, (-1.0, 1.0), metric="likeness"),
    "beauty": ScoreColumn(True, (0.0, 10.0), metric="beauty"),
    "leakage": ScoreColumn(False, (-1.0, 1.0), metric="leakage", alarm=0.2, says="other people become the subject"),
}
CEILING = Estimate(0.8, 0.75, 0.85, 6, 0)
NOISE = np.random.default_rng(0).normal(0, 0.02, (12, 8))


def evaluation(place: int, step: int, means: Mapping[str, float], measured: int) -> Evaluation:
    """Eight images whose scores vary around the means; only some of them could be measured."""
    images = tuple(
        ScoredImage(
            cell,
            None,
            {
                name: mean + NOISE[place, cell.index] if cell.index < measured else math.nan
                for name, mean in means.items()
            },
        )
        for cell in GRID.cells
    )
    return Evaluation(step, None, 0.0, summarize(images, COLUMNS), images)


def history(
    curves: Mapping[str, Sequence[float]],
    reason: StopReason | str | None = StopReason.PLATEAU,
    measured: Sequence[int] = (),
    first: int = 0,
    ceiling: Estimate | None = CEILING,
    crossed: int = 0,
    **run: object,
) -> RunHistory:
    """A run with an evaluation every 300 steps.

    Args:
        crossed: how many evaluations before the last one had crossed the limit of the guard that stopped it.
    """
    found: list[Evaluation] = []
    for place in range(len(next(iter(curves.values())))):
        means = {name: curve[place] for name, curve in curves.items()}
        each = evaluation(place, first + 300 * place, means, measured[place] if measured else 8)
        found.append(replace(each, alarms=alarms([*found, each], COLUMNS)))
    if reason is StopReason.GUARD:
        found[-1] = replace(found[-1], decision=Decision(True, reason, rejected_from=found[-1].step - 300 * crossed))
    best = best_of(found, "likeness") or (None, None)
    ended = {"reason": str(reason) if reason else None, "detail": "", "best_metric": "likeness", "best_step": best[0]}
    found[-1] = replace(found[-1], decision=replace(found[-1].decision, best_step=best[0])) if found else found[-1]
    content = {
        "columns": {name: COLUMNS[name].to_json() for name in curves},
        "metrics": {name: COLUMNS[name].direction_json() for name in curves},
        "best_metric": "likeness",
        "baselines": {"likeness": ceiling.to_json()} if ceiling else {},
        "ended": ended,
        **run,
    }
    return RunHistory(Path("runs/ana"), content, tuple(found))


def likeness(*curve: float, **more: object) -> RunHistory:
    return history({"likeness": curve}, **more)


def running(run: RunHistory) -> RunHistory:
    """The same run before its end."""
    return replace(run, run={key: value for key, value in run.run.items() if key != "ended"})


PLANNED = {"hparams": {"train.max_steps": 3000}}

CASES = {
    "good": (
        likeness(0.1, 0.3, 0.5, 0.5, 0.5, **PLANNED),
        "better",
        [
            r"Step \d+ is the best: \d+% \[\d+%, \d+%\] of the way from the base model to your photos \(likeness 0",
            r"Steps? \d+.* do(es)? not differ significantly from it\.",
            r"The run ended at step 1200: the score no longer rises\.",
            r"Ending early saved 1800 of 3000 steps\.",
        ],
    ),
    "stopped by a guard": (
        likeness(0.1, 0.3, 0.5, 0.7, reason=StopReason.GUARD, **PLANNED),
        "better",
        [
            r"Step 600 is the best",
            r"The run ended at step 900: a score crossed its limit\.",
            r"Because of that, step 900 cannot be the best\.",
        ],
    ),
    "stopped by a guard after a second look": (
        likeness(0.1, 0.3, 0.5, 0.7, reason=StopReason.GUARD, crossed=1),
        "better",
        [r"Step 300 is the best", r"Because of that, steps 600 and 900 cannot be the best\."],
    ),
    "stopped by a guard at once": (
        likeness(0.1, 0.5, reason=StopReason.GUARD),
        "unjudged",
        [r"The limit was crossed before any step could be the best\.", "Because of that, step 300 cannot be the best"],
    ),
    "stopped by a guard, without the base model": (
        likeness(0.5, reason=StopReason.GUARD, first=300),
        "unjudged",
        ["The base model was not evaluated", "Because of that, step 300 cannot be the best"],
    ),
    "without photos to compare with": (
        likeness(0.1, 0.3, 0.5, ceiling=None),
        "better",
        [
            r"Step 600 is the best: likeness 0\.\d+ \[.*\], a change of 0\.\d+ \[.*\] from the base model\.",
            "The run ended",
        ],
    ),
    "equals with better looks": (
        history({"likeness": (0.1, 0.5, 0.5, 0.5), "beauty": (5.0, 5.0, 6.0, 5.0)}),
        "better",
        ["Step 900 is the best|Step 300 is the best", r"of these, step 600 has a better beauty, by 1\.\d+ \["],
    ),
    "one equal with better looks": (
        history({"likeness": (0.1, 0.515, 0.5), "beauty": (5.0, 6.0, 5.0)}),
        "better",
        [r"Step 300 does not differ significantly from it, and has a better beauty, by 0\.9\d+ \["],
    ),
    "failed": (
        likeness(0.5, 0.3, 0.2, reason=StopReason.MAX_STEPS),
        "worse",
        [
            r"Training made the model worse: likeness fell by 0\.\d+ \[.*\] from the base model to step 600\.",
            "The run ended at step 600: the last step was reached.",
            "Lower the learning rate, and check that the photos show one subject, large and sharp.",
        ],
    ),
    "failed until no face is left": (
        likeness(0.5, 0.3, 0.3, measured=(7, 3, 1)),
        "worse",
        [
            "Training made the model worse: most of its images can no longer be measured.",
            "likeness could be measured in 1 of 8 images at step 600, and in 7 of 8 at step 0.",
            "The run ended",
            "Lower the learning rate",
        ],
    ),
    "no effect": (
        likeness(0.5, 0.49, 0.495),
        "equal",
        [r"By likeness, no step is better than the base model; step 600 differs by .* \[-.*\], which may be chance\."],
    ),
    "a last step that is better, although its neighbor is worse": (
        likeness(0.4, 0.2, 0.48),
        "equal",
        [
            r"By the smoothed likeness, no step is better than the base model, although step 600 alone is, by "
            r"0\.\d+ \[0\.\d+, 0\.\d+\]\."
        ],
    ),
    "a step that is better, although its neighbor is worse": (
        likeness(0.4, 0.48, 0.2, 0.4, 0.4),
        "equal",
        [r"By the smoothed likeness, no step is better than the base model, although step 300 alone is, by 0\.\d+ \["],
    ),
    "a best step that may be chance": (
        likeness(0.5, 0.512, 0.512),
        "equal",
        [r"Step \d+ has the best likeness, but its change from the base model, 0\.\d+ \[-.*\], may be chance\."],
    ),
    "over-fitted": (
        likeness(0.1, 0.5, 0.7, 0.5, 0.3),
        "better",
        [
            "Step 600 is the best",
            r"After step 600, likeness fell by 0\.\d+ \[.*\] until step 1200: later weights are worse\.",
        ],
    ),
    "leaked": (
        history({"likeness": (0.1, 0.5, 0.6), "leakage": (0.0, 0.3, 0.4)}),
        "better",
        [r"Alarm at step 600: leakage is 0\.\d+ \[.*\], above 0\.2: other people become the subject\."],
    ),
    "leaked after the best step": (
        history({"likeness": (0.1, 0.6, 0.6, 0.2), "leakage": (0.0, 0.0, 0.0, 0.5)}),
        "better",
        ["Alarm at step 900: leakage"],
    ),
    "too short": (
        likeness(0.1, 0.3, 0.5, reason=StopReason.MAX_STEPS, hparams={"train.max_steps": 600}),
        "better",
        ["so more steps may help: raise train.max_steps and run the same command again."],
    ),
    "too short in a loop of the user's own": (
        likeness(0.1, 0.3, 0.5, reason=StopReason.MAX_STEPS),
        "better",
        ["The best step is the last one, so more steps may help: train longer."],
    ),
    "interrupted": (
        likeness(0.1, 0.3, reason=StopReason.INTERRUPTED, **PLANNED),
        "better",
        [r"The run ended at step 300: it was interrupted; run the same command to resume\."],
    ),
    "blind": (
        likeness(0.1, 0.1, 0.1, measured=(0, 1, 0), reason=StopReason.NEVER_MEASURED),
        "unmeasured",
        [
            "likeness could not be measured in any evaluation, so there is no best step.",
            "likeness could be measured in 0 of 8 images at step 600, and in 0 of 8 at step 0.",
            "Look at the images, and check that the prompts ask for what is measured, such as a large face.",
        ],
    ),
    "diverged": (
        likeness(0.5, 0.5, 0.1, reason=StopReason.NOT_FINITE, **PLANNED),
        "worse",
        ["the loss was no longer finite", "Lower the learning rate before you resume."],
    ),
    "running, or resumed": (
        running(likeness(0.1, 0.3)),
        "better",
        ["Step 300 is the last one recorded; the run is in progress, or was killed."],
    ),
    "only the base model": (likeness(0.1, reason=None), "unjudged", ["Only the base model has been evaluated"]),
    "nothing at all": (
        RunHistory(Path("runs/ana"), {"best_metric": "likeness"}, ()),
        "unjudged",
        ["No evaluation has been recorded yet, so there is nothing to judge."],
    ),
    "no base model": (
        likeness(0.3, 0.5, first=1),
        "unjudged",
        [
            r"Step 301 is the best, with likeness 0\.\d+ \[.*\]; the base model was not evaluated, so nothing says "
            r"whether training has made it better\."
        ],
    ),
    "no base model and no best step": (
        replace(likeness(0.3, 0.5, first=1), run=likeness(0.3).run | {"ended": {"reason": None}}),
        "unjudged",
        ["^The base model was not evaluated, so nothing says whether training has made it better"],
    ),
    "a base model without faces": (
        likeness(0.1, 0.5, 0.5, measured=(0, 8, 8)),
        "unjudged",
        [r"Step \d+ is the best, .*; the base model could not be measured by likeness, so nothing says whether"],
    ),
    "a rule of the user's own": (
        likeness(0.1, 0.3, reason="it is five o'clock", **PLANNED),
        "better",
        [r"The run ended at step 300: it is five o'clock\.", r"Ending early saved 2700 of 3000 steps\."],
    ),
    "no stopping rule": (
        likeness(0.1, 0.6, 0.4, reason=StopReason.MAX_STEPS, hparams={"train.max_steps": 600}),
        "better",
        [r"The run ended at step 600: the last step was reached\."],
    ),
    "few photos": (
        likeness(0.5, 0.5, 0.49, weights={"likeness": {"references": [{"sha256": "a"}, {"sha256": "b"}]}}),
        "equal",
        ["The scores compare images with only 2 photos of the subject; use 5 to 20."],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_gets_the_verdict_that_it_allows(case):
    run, outcome, wanted = CASES[case]
    found = verdict(run)
    assert found.outcome == outcome, str(found)
    for sentence in wanted:
        assert any(re.search(sentence, said) for said in found.sentences), (sentence, found.sentences)
    assert str(found).count("Lower the learning rate") <= 1
    assert all(said[0].isupper() or said.startswith("likeness") for said in found.sentences)
    assert all(said.endswith((".", "!")) and "nan" not in said and "—" not in said for said in found.sentences)


def test_no_step_that_a_guard_rejects_is_recommended_for_its_looks():
    found = verdict(history({"likeness": (0.1, 0.5, 0.5, 0.5), "beauty": (5.0, 5.0, 5.0, 6.0)}, StopReason.GUARD))
    assert "Step 900 does not differ significantly from it." in str(found)
    assert "step 900 cannot be the best" in str(found)
    assert "better beauty" not in str(found)


def test_a_lower_score_can_be_the_better_one():
    columns = {"loss": ScoreColumn(False, (0.0, 10.0), metric="loss")}
    run = likeness(5.0, 4.0, 3.0, 4.5, ceiling=None)
    renamed = tuple(
        replace(
            each,
            scores={"loss": each.scores["likeness"]},
            images=tuple(replace(image, scores={"loss": image.scores["likeness"]}) for image in each.images),
        )
        for each in run.evaluations
    )
    content = {"columns": {"loss": columns["loss"].to_json()}, "best_metric": "loss", "ended": {"best_step": 600}}
    found = str(verdict(RunHistory(Path("runs/ana"), content, renamed)))
    assert "Step 600 is the best: loss 3." in found
    assert "After step 600, loss rose by 1." in found


def test_identical_images_have_the_same_scores_and_no_interval_is_needed():
    run = history({"likeness": (0.5, 0.3)})
    same = replace(run.evaluations[0], step=300)
    found = verdict(replace(run, evaluations=(run.evaluations[0], same)))
    assert "By likeness, no step is better than the base model; step 300 has the same scores." in found.sentences


def test_steps_in_a_row_are_a_range():
    found = str(verdict(likeness(0.1, 0.5, 0.5, 0.5, 0.5, 0.5)))
    assert "Steps 600 to 1200 do not differ significantly from it." in found
    assert "Step 900 does not differ significantly from it." in str(verdict(likeness(0.1, 0.5, 0.3, 0.5, 0.3, 0.5)))


def test_of_random_curves_none_claims_an_improvement_much_more_often_than_the_intervals_allow():
    """Over three trained steps, the best of which is chosen, the share of false claims is bounded by their number."""
    draws = np.random.default_rng(1)
    false = 0
    for _ in range(200):
        NOISE[:] = draws.normal(0, 0.02, NOISE.shape)
        false += verdict(likeness(0.5, 0.5, 0.5, 0.5)).outcome in ("better", "worse")
    assert false <= 40
