"""The verdict on a run, in words: how good it is, which steps are as good, what went wrong, why it ended, what to do.

Every sentence states a fact of the record, or a comparison with its 95% interval. A step is called better or worse only
if that interval excludes zero. Nothing is corrected for the number of comparisons, or for the choice of the best step.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from finetune_monitor.record.alarms import alarms_by_column
from finetune_monitor.record.columns import SIDE, ScoreColumn
from finetune_monitor.record.curve import Point, change_between, points, rejected_steps, way, way_in_words
from finetune_monitor.record.evaluation import Evaluation, StopReason, has_failed
from finetune_monitor.record.history import RunHistory
from finetune_monitor.record.pareto import pareto_columns
from finetune_monitor.stats.estimate import NO_ESTIMATE, Estimate, direction, shown

MAX_STEPS = "train.max_steps"
"""The key of a training config that sets the length of the training."""

NO_RULES = (
    StopReason.MAX_STEPS,
    StopReason.REQUESTED,
    StopReason.FAILED,
    StopReason.INTERRUPTED,
    StopReason.NOT_FINITE,
)
"""Reasons why a run ends without a stopping rule."""

FEW_PHOTOS = 5
"""With fewer photos, the verdict suggests more."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on a run.

    outcome: "better" than the base model, "equal" (no significant change, or only that of a single step that its
        neighbors do not confirm), "worse", "unmeasured" (no step has a score), or "unjudged" (only the base model has a
        score, or only trained steps do).
    sentences: in reading order.
    """

    outcome: str
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.sentences)

    def to_json(self) -> dict[str, Any]:
        """The entry in run.json."""
        return {"outcome": self.outcome, "sentences": list(self.sentences)}


def verdict(history: RunHistory) -> Verdict:
    """The verdict on a run that has ended, or on what is recorded so far."""
    run = _Judged(history)
    outcome, reached = run.reached()
    more = [*run.at_full_quality(), *run.equal_steps(), *run.decline(), *run.alarms(), *run.unmeasured(), *run.failed()]
    return Verdict(outcome, (reached, *more, *run.ended(), *run.next_steps(outcome)))


@dataclass(frozen=True)
class _Judged:
    """A run and what its verdict is about."""

    history: RunHistory

    @property
    def metric(self) -> str:
        return self.history.best_metric or next(iter(self.history.columns), "the score")

    @property
    def sign(self) -> float:
        return 1.0 if self._column.more_is_better else -1.0

    @cached_property
    def points(self) -> dict[int, Point]:
        return {point.step: point for point in points(self.history.evaluations, self.metric)}

    @property
    def best(self) -> Point | None:
        """The best step, if it is one of training."""
        return self.points.get(self.history.best_step or 0) if self.history.best_step else None

    @property
    def last(self) -> Evaluation:
        return self.history.evaluations[-1]

    @cached_property
    def tried(self) -> list[Evaluation]:
        """The evaluations in which the metric did not fail."""
        return [each for each in self.history.evaluations if not has_failed(each, self.metric, self.history.columns)]

    def reached(self) -> tuple[str, str]:
        """The outcome, and a sentence on what the best step has reached."""
        if not self.history.evaluations:
            return "unjudged", "No evaluation has been recorded yet, so there is nothing to judge."
        if not self.points:
            how = "could not be measured in any" if self.tried else "failed in every"
            return "unmeasured", f"{self.metric} {how} evaluation, so there is no best step."
        if not any(self.points) and self.last.step == 0:
            return "unjudged", "Only the base model has been evaluated, so there is nothing to judge yet."
        if 0 not in self.points:
            return "unjudged", self._without_base()
        if self.best is None:
            return self._without_best()
        change = self._change_from_base(self.best)
        if direction(change) != self.sign:
            return "equal", (
                f"Step {self.best.step} has the best {self.metric}, but its change from the base model, "
                f"{shown(change)}, may be chance."
            )
        return "better", f"Step {self.best.step} is the best: {self._how_far(self.best, change)}."

    def _without_base(self) -> str:
        """For a run whose base model has no score to compare with."""
        is_evaluated = any(evaluation.step == 0 for evaluation in self.history.evaluations)
        why = f"could not be measured by {self.metric}" if is_evaluated else "was not evaluated"
        reached = f"Step {self.best.step} is the best, with {self._score(self.best)}; " if self.best else ""
        said = f"{reached}the base model {why}, so nothing says whether training has made it better."
        return said[0].upper() + said[1:]

    def _without_best(self) -> tuple[str, str]:
        """For a run in which no step is better than the base model."""
        rejected = rejected_steps(self.history.evaluations)
        last = next((point for step, point in reversed(self.points.items()) if step not in rejected), None)
        if last is None or (rejected and not last.step):
            return "unjudged", "The limit was crossed before any step could be the best."
        change = self._change_from_base(last) if last.step else None
        if change is not None and direction(change) == -self.sign:
            return "worse", (
                f"Training made the model worse: {self._worsened_by(change)} from the base model to step {last.step}."
            )
        if self._lost_its_subject():
            return "worse", "Training made the model worse: most of its images can no longer be measured."
        alone = [(step, self._change_from_base(found)) for step, found in self.points.items() if step not in rejected]
        if better := [pair for pair in alone if direction(pair[1]) == self.sign]:
            step, gain = max(better, key=lambda pair: self.sign * pair[1].mean)
            return "equal", (
                f"By the smoothed {self.metric}, no step is better than the base model, although step {step} alone is, "
                f"by {shown(_size(gain))}."
            )
        said = f"; step {last.step} {self._difference(change)}" if change is not None else ""
        return "equal", f"By {self.metric}, no step is better than the base model{said}."

    def _difference(self, change: Estimate) -> str:
        if change.low == change.high == 0:
            return "has the same scores"
        return f"differs by {shown(change)}, which may be chance"

    def _change_from_base(self, point: Point) -> Estimate:
        return self._change(self.points[0], point)

    def _change(self, first: Point, second: Point) -> Estimate:
        return change_between(first, second, self.metric, self._column)

    @property
    def _column(self) -> ScoreColumn:
        return self.history.columns.get(self.metric, SIDE)

    def _score(self, point: Point) -> str:
        return f"{self.metric} {shown(point.score)}"

    def _how_far(self, point: Point, change: Estimate) -> str:
        """How far a step has come: of the way to the photos, where they are the ceiling, or from the base model."""
        ceiling, by_step = self.history.ceilings.get(self.metric), {e.step: e for e in self.history.evaluations}
        share = way(by_step[0], by_step[point.step], self.metric, ceiling) if ceiling else NO_ESTIMATE
        if not math.isnan(share.mean):
            return f"{way_in_words(share)} ({self._score(point)})"
        return f"{self._score(point)}, a change of {shown(change)} from the base model"

    def at_full_quality(self) -> Iterator[str]:
        """What the best step scores at full quality, and how far that is from its score in a fast evaluation."""
        found = {point.step: point for point in points(self.history.full_quality, self.metric)}
        if self.best is None or self.best.step not in found:
            return
        full, grid = found[self.best.step], self.history.grid
        change = self._change(self.best, full)
        yield (
            f"At full quality ({grid.at_full_quality.steps} steps instead of {grid.steps}), step {full.step} has "
            f"{self._score(full)}, a difference of {shown(change)}."
        )

    def equal_steps(self) -> Iterator[str]:
        """Which steps do not differ significantly from the best one, and which of them is better by another score."""
        if self.best is None:
            return
        best, trained = self.best, [step for step in self.points if step]
        equal = [step for step in trained if step != best.step and not self._differs(self.points[step], best)]
        if not equal:
            return
        also = self._better_by_another(best, equal)
        noun, verb = ("Steps", "do") if len(equal) > 1 else ("Step", "does")
        yield f"{noun} {_ranges(equal, trained)} {verb} not differ significantly from it{also}."

    def _differs(self, point: Point, other: Point) -> bool:
        return direction(self._change(point, other)) in (1, -1)

    def _better_by_another(self, best: Point, equal: Sequence[int]) -> str:
        """The equal step that is best by a second score, if it is significantly better there than the best step.

        Not one that crossed the limit of a guard.
        """
        pair = pareto_columns(self.history.columns, self.metric)
        if pair is None:
            return ""
        second, name = {point.step: point for point in points(self.history.evaluations, pair[1])}, pair[1]
        column = self.history.columns[name]
        sign = 1.0 if column.more_is_better else -1.0
        rejected = rejected_steps(self.history.evaluations)
        known = [step for step in equal if step in second and step not in rejected] if best.step in second else []
        changes = {step: change_between(second[best.step], second[step], name, column) for step in known}
        better = {step: change for step, change in changes.items() if direction(change) == sign}
        if not better:
            return ""
        step = max(better, key=lambda each: sign * better[each].mean)
        which = f"; of these, step {step}" if len(equal) > 1 else ", and"
        return f"{which} has a better {name}, by {shown(_size(better[step]))}"

    def decline(self) -> Iterator[str]:
        """Whether the last step is worse than the best one."""
        last = next(reversed(self.points.values()), None)
        if self.best is None or last is None or last.step <= self.best.step:
            return
        change = self._change(self.best, last)
        if direction(change) == -self.sign:
            fall = f"{self._worsened_by(change)} until step {last.step}"
            yield f"After step {self.best.step}, {fall}: later weights are worse."

    def _worsened_by(self, change: Estimate) -> str:
        return f"{self.metric} {'fell' if self.sign > 0 else 'rose'} by {shown(_size(change))}"

    def alarms(self) -> Iterator[str]:
        """The alarms at the best step, and those at the last step that do not sound at the best one."""
        said: set[str] = set()
        steps = {each.step for each in (self.best, *self.history.evaluations[-1:]) if each is not None}
        for evaluation in (each for each in self.history.evaluations if each.step in steps):
            found = alarms_by_column(evaluation, self.history.columns)
            for name in [name for name in found if name not in said]:
                said.add(name)
                yield f"Alarm at step {evaluation.step}: {found[name]}."

    def unmeasured(self) -> Iterator[str]:
        """How many images could not be measured, if most of them could not be at the last step, or in no evaluation."""
        if self.tried and (not self.points or self._lost_its_subject()):
            first, last = self.tried[0], self.tried[-1]
            before = f", and in {_share(first, self.metric)} at step {first.step}" if first is not last else ""
            yield f"{self.metric} could be measured in {_share(last, self.metric)} images at step {last.step}{before}."

    def failed(self) -> Iterator[str]:
        """Which metrics failed at which steps, except the one that determines the best step if it never worked."""
        own, evaluations = self._column.metric or self.metric, self.history.evaluations
        names_at: dict[tuple[int, ...], list[str]] = {}
        for name in dict.fromkeys(name for each in evaluations for name in each.failed):
            if name != own or self.tried:
                steps = tuple(each.step for each in evaluations if name in each.failed)
                names_at.setdefault(steps, []).append(self.metric if name == own else name)
        for steps, names in names_at.items():
            yield f"At {_named(steps, [each.step for each in evaluations])}, {_joined(names)} failed: the log says why."

    def _lost_its_subject(self) -> bool:
        """Whether most images could be measured at the first evaluation, and can no longer be at the last."""
        return bool(self.tried) and self.tried[0].step in self.points and self.tried[-1].step not in self.points

    def ended(self) -> Iterator[str]:
        """Why the run ended, and how many steps that saved."""
        if not self.history.evaluations:
            return
        if not self.history.has_ended:
            yield f"Step {self.last.step} is the last one recorded; the run is in progress, or was killed."
            return
        most, reason = self._max_steps(), self.history.reason
        end = self.history.last_step or 0
        is_early = most > end and reason not in (None, *NO_RULES)
        yield f"The run ended at step {end}: {self.history.why}."
        if rejected := rejected_steps(self.history.evaluations):
            yield f"Because of that, {_named(rejected, list(self.points))} cannot be the best."
        if is_early:
            yield f"Ending early saved {most - end} of {most} steps."

    def _max_steps(self) -> int:
        found = self.history.hparams.get(MAX_STEPS)
        return found if isinstance(found, int) else 0

    def next_steps(self, outcome: str) -> Iterator[str]:
        """What to do next."""
        reason = self.history.reason
        has_diverged = reason in (StopReason.DIVERGENCE, StopReason.NOT_FINITE)
        if not self.tried and self.history.evaluations:
            yield f"Repair what the log names, and run again: without {self.metric}, there is nothing to judge by."
        elif outcome == "unmeasured":
            yield "Look at the images, and check that the prompts ask for what is measured, such as a large face."
        elif outcome == "worse" and not has_diverged:
            yield "Lower the learning rate, and check that the photos show one subject, large and sharp."
        elif reason == StopReason.MAX_STEPS and self.best is not None and self.best.step == self.last.step:
            more = f"raise {MAX_STEPS} and run the same command again" if self._max_steps() else "train longer"
            yield f"The best step is the last one, so more steps may help: {more}."
        if has_diverged:
            yield "Lower the learning rate before you resume."
        photos = self.history.weights.get(self._column.metric, {}).get("references")
        if isinstance(photos, list) and len(photos) < FEW_PHOTOS and outcome in ("equal", "worse"):
            count = f"{len(photos)} photo{'s' * (len(photos) > 1)}"
            yield f"The scores compare images with only {count} of the subject; use 5 to 20."


def _size(change: Estimate) -> Estimate:
    """A change without its direction."""
    if change.mean >= 0:
        return change
    return replace(change, mean=-change.mean, low=-change.high, high=-change.low)


def _share(evaluation: Evaluation, column: str) -> str:
    """How many images could be measured, such as `7 of 8`."""
    found = evaluation.scores.get(column, NO_ESTIMATE)
    return f"{found.n} of {found.n + found.missing}"


def _named(steps: Sequence[int], known: Sequence[int]) -> str:
    return f"{'steps' if len(steps) > 1 else 'step'} {_ranges(steps, known)}"


def _ranges(steps: Sequence[int], known: Sequence[int]) -> str:
    """Steps in words: three or more known ones in a row as `600 to 1200`."""
    groups: list[list[int]] = []
    for step in steps:
        is_next = groups and known.index(groups[-1][-1]) + 1 == known.index(step)
        groups[-1].append(step) if is_next else groups.append([step])
    words = [word for group in groups for word in _group_in_words(group)]
    return _joined(words)


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _group_in_words(group: Sequence[int]) -> list[str]:
    return [f"{group[0]} to {group[-1]}"] if len(group) > 2 else [str(step) for step in group]
