"""Where evaluations are shown: TensorBoard, W&B, any Accelerate tracker, the console."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from PIL.Image import Image

from finetune_monitor.record.alarms import levels_of
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Evaluation, RunSummary
from finetune_monitor.stats.estimate import Estimate


@dataclass(frozen=True)
class RunInfo:
    """What a sink needs to know before the first evaluation.

    hparams: flat, dotted keys (`train.rank`) with plain values.
    columns: what is known of each column of `Evaluation.scores`.
    ceilings: scores of the real photos against each other.
    notices: sentences to show beside the scores.
    resume_step: the step from which an interrupted run goes on; None for a new run.
    sounding: the alarms of the last evaluation until then.
    """

    output_dir: Path
    hparams: Mapping[str, Any]
    columns: Mapping[str, ScoreColumn]
    ceilings: Mapping[str, Estimate]
    notices: tuple[str, ...] = ()
    resume_step: int | None = None
    sounding: tuple[str, ...] = ()

    @property
    def metrics(self) -> dict[str, ScoreColumn]:
        """The columns that are shown as metrics: scores and their stars, side columns apart."""
        return {name: column for name, column in self.columns.items() if column.is_main}

    @property
    def levels(self) -> dict[str, dict[str, float]]:
        """What stands beside the curves, by kind and column: ceilings, and levels beyond which an alarm sounds."""
        ceilings = {name: ceiling.mean for name, ceiling in self.ceilings.items()}
        return {"ceiling": ceilings, "alarm": levels_of(self.columns)}


@runtime_checkable
class Sink(Protocol):
    """A place where evaluations are shown. `start` and `close` are called once, on the main process alone."""

    name: str

    def start(self, run: RunInfo) -> None: ...

    def write(self, evaluation: Evaluation, images: Sequence[Image | None]) -> None:
        """Show one evaluation; `images` in the grid's order, None where a cell could not be rendered."""
        ...

    def close(self, summary: RunSummary) -> None: ...


@runtime_checkable
class Tracked(Protocol):
    """A class of sinks that can share a tracker of Accelerate: losses and scores then stand side by side."""

    def tracker(self, output_dir: Path, options: Mapping[str, Any], resume_step: int | None) -> Any:
        """A started tracker for a run directory."""
        ...

    def on_tracker(self, tracker: Any, options: Mapping[str, Any]) -> Sink:
        """A sink that writes to what the tracker writes to."""
        ...


def scalars(evaluation: Evaluation, run: RunInfo) -> dict[str, float]:
    """The curves of one evaluation by tag: means, intervals, ceilings, levels of alarms, costs; nothing unmeasured."""
    found = {f"monitor/seconds_{key}": value for key, value in evaluation.seconds.items()}
    if evaluation.overhead is not None:
        found["monitor/overhead"] = evaluation.overhead
    for name, estimate in evaluation.scores.items():
        found[name] = estimate.mean
        if name in run.metrics:
            found |= {f"interval/{name}/low": estimate.low, f"interval/{name}/high": estimate.high}
        found |= {f"{kind}/{name}": levels[name] for kind, levels in run.levels.items() if name in levels}
    return {tag: value for tag, value in found.items() if not math.isnan(value)}
