"""Which weights are kept: the best step always has its own, whatever a guard rejects in the end."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from finetune_monitor import Guard
from finetune_monitor.monitor.keeping import steps_to_keep
from finetune_monitor.monitor.stopping import Watched, decide, rejectable_from
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.record.pareto import pareto_front
from finetune_monitor.stats.estimate import MISSING, Estimate

COLUMNS = {
    "face": ScoreColumn(True, (0.0, 1.0), metric="face"),
    "second": ScoreColumn(True, (0.0, 1.0), metric="second"),
    "leak": ScoreColumn(False, (0.0, 1.0), metric="leak", role="check"),
}
RULES = [Guard("leak", level=0.5), Guard("second", level=0.2)]


def evaluation(step: int, face: float, second: float, leak: float, on_request: bool) -> Evaluation:
    means = {"face": face, "second": second, "leak": leak}
    scores = {name: Estimate(m, 0.0, 1.0, 0 if m != m else 4, 4 if m != m else 0) for name, m in means.items()}
    return Evaluation(step, None, 0.0, scores, on_request=on_request)


def kept_to_the_end(keep: str, run: list[Evaluation]) -> tuple[list[Evaluation], set[int]]:
    """The history up to the guard's stop or the end, and the steps whose weights are left."""
    history: list[Evaluation] = []
    kept: set[int] = set()
    for each in run:
        decision = decide(Watched([*history, each], COLUMNS), RULES, "face")
        history.append(replace(each, decision=decision))
        rejectable = rejectable_from(RULES, history, COLUMNS)
        kept = (kept | {each.step}) & steps_to_keep(keep, history, COLUMNS, "face", rejectable)
        if decision.stop:
            break
    return history, kept


SCORES = st.sampled_from([0.1, 0.3, 0.6, 0.9, MISSING])
RUNS = st.lists(st.tuples(SCORES, SCORES, SCORES, st.booleans()), min_size=1, max_size=9)


@given(RUNS)
def test_the_best_step_has_its_weights_whatever_a_guard_rejects(rows):
    history, kept = kept_to_the_end("best", [evaluation(step, *row) for step, row in enumerate(rows)])
    best = history[-1].decision.best_step
    assert best is None or best in kept


@given(RUNS)
def test_every_step_on_the_front_has_its_weights_whatever_a_guard_rejects(rows):
    history, kept = kept_to_the_end("pareto", [evaluation(step, *row) for step, row in enumerate(rows)])
    front = pareto_front(history, COLUMNS, "face")
    assert set(front.steps if front else ()) <= kept


def test_a_guard_whose_score_was_missing_in_between_falls_back_to_weights_that_are_there():
    rows = [(0.3, 0.1), (0.6, 0.1), (0.6, 0.9), (0.9, MISSING), (0.9, MISSING), (0.9, 0.9)]
    run = [evaluation(step, face, 0.5, leak, on_request=False) for step, (face, leak) in enumerate(rows)]
    history, kept = kept_to_the_end("best", run)
    assert history[-1].decision.rejected_from == 2
    assert history[-1].decision.best_step == 1
    assert kept >= {1}


def test_no_more_weights_are_kept_than_the_best_the_newest_and_one_a_guard():
    run = [evaluation(step, step / 10, 0.5, 0.1, on_request=False) for step in range(9)]
    assert kept_to_the_end("best", run)[1] == {7, 8}
