"""Where evaluations are shown: TensorBoard, W&B, any Accelerate tracker, the console, the model card."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from PIL.Image import Image

from finetune_monitor.record.alarms import alarms_by_column, levels_of
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Evaluation, RunSummary
from finetune_monitor.record.pareto import ParetoFront, pareto_front
from finetune_monitor.stats.estimate import Estimate


@dataclass(frozen=True)
class RunInfo:
    """The information that a sink gets before the first evaluation.

    hparams: flat, dotted keys (`train.rank`) with plain values.
    columns: the description of each column of `Evaluation.scores`.
    ceilings: scores of the real photos against each other.
    notices: sentences to show next to the scores.
    resume_step: the step from which an interrupted run resumes; None for a new run.
    best_metric: the column that determines the best step.
    evaluations: those so far, of a run that resumes.
    repeated: those that a resumed run repeats, as they were recorded before the interruption.
    """

    output_dir: Path
    hparams: Mapping[str, Any]
    columns: Mapping[str, ScoreColumn]
    ceilings: Mapping[str, Estimate]
    notices: tuple[str, ...] = ()
    resume_step: int | None = None
    best_metric: str = ""
    evaluations: tuple[Evaluation, ...] = ()
    repeated: tuple[Evaluation, ...] = ()

    @property
    def metrics(self) -> dict[str, ScoreColumn]:
        """The columns that are shown as metrics: scores and stars, but not side columns."""
        return {name: column for name, column in self.columns.items() if column.is_main}

    @property
    def sounding(self) -> tuple[str, ...]:
        """The alarms of the last evaluation so far."""
        return self.evaluations[-1].alarms if self.evaluations else ()

    def new_alarms(self, evaluation: Evaluation, sounding: Sequence[str]) -> dict[str, str]:
        """The texts, by column, of the alarms that start to sound and were not told before an interruption.

        Args:
            sounding: the alarms of the evaluation before.
        """
        told = {name for each in self.repeated if each.step == evaluation.step for name in each.alarms}
        found = alarms_by_column(evaluation, self.columns)
        return {name: words for name, words in found.items() if name not in sounding and name not in told}

    def was_told(self, evaluation: Evaluation) -> bool:
        """Whether its step was found to be the best before an interruption, too."""
        return any(each.step == evaluation.step == each.decision.best_step for each in self.repeated)

    @property
    def levels(self) -> dict[str, dict[str, float]]:
        """The levels to show with the curves, by kind and column: ceilings and alarm levels."""
        ceilings = {name: ceiling.mean for name, ceiling in self.ceilings.items()}
        return {"ceiling": ceilings, "alarm": levels_of(self.columns)}


@runtime_checkable
class Sink(Protocol):
    """A place where evaluations are shown. `start` and `close` are called once, on the main process only."""

    name: str

    def start(self, run: RunInfo) -> None: ...

    def write(self, evaluation: Evaluation, images: Sequence[Image | None]) -> None:
        """Show one evaluation; `images` are in the grid's order, with None for cells that could not be rendered."""
        ...

    def close(self, summary: RunSummary) -> None: ...


@runtime_checkable
class Tracked(Protocol):
    """A sink class that can share an Accelerate tracker, so that losses and scores appear side by side."""

    def tracker(self, output_dir: Path, options: Mapping[str, Any], resume_step: int | None) -> Any:
        """A started tracker for a run directory."""
        ...

    def on_tracker(self, tracker: Any, options: Mapping[str, Any]) -> Sink:
        """A sink that writes to the tracker's destination."""
        ...


def front_so_far(history: Sequence[Evaluation], run: RunInfo) -> ParetoFront | None:
    """The Pareto front of two scores; None as long as there are no two steps to compare."""
    front = pareto_front(history, run.columns, run.best_metric)
    return front if front is not None and len(front.points) > 1 else None


def scalars(evaluation: Evaluation, run: RunInfo) -> dict[str, float]:
    """The curves of one evaluation by tag: means, intervals, ceilings, alarm levels, costs; only what was measured."""
    found = {f"monitor/seconds_{key}": value for key, value in evaluation.seconds.items()}
    if evaluation.overhead is not None:
        found["monitor/overhead"] = evaluation.overhead
    for name, estimate in evaluation.scores.items():
        found[name] = estimate.mean
        if name in run.metrics:
            found |= {f"interval/{name}/low": estimate.low, f"interval/{name}/high": estimate.high}
        found |= {f"{kind}/{name}": levels[name] for kind, levels in run.levels.items() if name in levels}
    return {tag: value for tag, value in found.items() if not math.isnan(value)}
