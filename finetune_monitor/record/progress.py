"""A trial's progress, from its record: the scores at each evaluation, and the best so far."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_monitor.base.errors import UserError
from finetune_monitor.record.columns import SIDE
from finetune_monitor.record.curve import best_of
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.history import RunHistory, read_noting
from finetune_monitor.stats.estimate import MISSING, shown_value

UNFINISHED = (None, StopReason.INTERRUPTED)
"""How a run ends that will be resumed."""


@dataclass(frozen=True)
class Progress:
    """One evaluation.

    scores: means by name; NaN if nothing was measured.
    goal: for each deciding metric, the best value of the smoothed curve up to this evaluation, excluding step 0, where
        nothing has been learned; NaN if none was measured; the sign is flipped where less is better, so more is always
        better.
    is_last: whether a stopping rule ended the run here, or the last step was reached.
    alarms: the columns whose alarm sounds.
    """

    step: int
    scores: dict[str, float]
    goal: dict[str, float]
    is_last: bool
    alarms: tuple[str, ...] = ()

    def to_result(self) -> dict[str, Any]:
        return {"step": self.step, "scores": self.scores, "goal": self.goal, "alarms": list(self.alarms)}


def read_quietly(run_dir: Path) -> RunHistory | None:
    """The current record; None if there is none yet, or while it is being repaired."""
    try:
        return read_noting(run_dir)[0]  # without warnings about a row that is being written
    except (UserError, OSError):
        return None


def rows(history: RunHistory, goals: Sequence[str] = (), max_steps: int | None = None) -> list[Progress]:
    """Every complete evaluation, by step; each has all `goals`, even those that were not measured."""
    return [_row(history, index, goals, max_steps) for index in range(len(history.evaluations))]


def ended(history: RunHistory | None) -> str | None:
    """Why the run ended; None if it has not, or if it will be resumed."""
    found = history.reason if history is not None else None
    return None if found in UNFINISHED else str(found)


def _row(history: RunHistory, index: int, goals: Sequence[str], max_steps: int | None) -> Progress:
    until = history.evaluations[: index + 1]
    evaluation = until[-1]
    scores = {name: estimate.mean for name, estimate in evaluation.scores.items()}
    goal = {}
    for name in goals:
        higher = history.columns.get(name, SIDE).more_is_better
        best = best_of([found for found in until if found.step > 0], name, higher)
        goal[name] = MISSING if best is None else best[1] if higher else -best[1]
    is_last = evaluation.decision.stop or (max_steps is not None and evaluation.step >= max_steps)
    return Progress(evaluation.step, scores, goal, is_last, evaluation.alarms)


def in_words(scores: dict[str, float], names: Sequence[str]) -> str:
    """The named scores that exist, such as `face_similarity 0.520`."""
    found = ((name, scores[name]) for name in names if name in scores)
    return ", ".join(f"{name} {'not measured' if math.isnan(value) else shown_value(value)}" for name, value in found)
