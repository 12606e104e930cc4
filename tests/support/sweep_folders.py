"""Whole sweep folders from a function of value, person, seed and step, without a training."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from finetune_monitor.record.evaluation import Evaluation, RunSummary, StopReason, summarize
from finetune_monitor.record.run_directory import EVALUATIONS
from finetune_monitor.record.run_record import RunRecord
from finetune_monitor.record.sweep_directory import SweepState, TrialRecord, TrialState, write_state
from support import runs

Score = Callable[[Any, str | None, int | None, int], float]
"""Score of a value, a person, a seed and a step; NaN where there is none."""

STEPS = (0, 50, 100)


def write_sweep(
    folder: Path,
    score: Score,
    values: Sequence[Any] = (1, 2, 4),
    people: Sequence[str | None] = (None,),
    seeds: Sequence[int | None] = (0, 1, 2),
    key: str = "data.instance_count",
    steps: Sequence[int] = STEPS,
    spread: float = 0.02,
    images: bool = True,
) -> SweepState:
    """A finished sweep over one axis; every trial has the grid of `runs.GRID`, whose cells differ by `spread`."""
    trials = []
    for value in values:
        for person in people:
            for seed in seeds:
                name = "-".join(str(part) for part in (value, person, seed) if part is not None)
                trials.append(TrialRecord(name, {key: value}, person, seed, TrialState.FINISHED, 1))
                by_step = {step: score(value, person, seed, step) for step in steps}
                write_trial(folder / "trials" / name, by_step, spread, images=images)
    config = {"base": "base.yaml", "output_dir": str(folder), "axes": {key: list(values)}, "search": None}
    state = SweepState(folder, config, tuple(trials))
    write_state(state)
    return state


def write_trial(
    folder: Path,
    scores: Mapping[int, float],
    spread: float = 0.02,
    reason: StopReason | None = StopReason.MAX_STEPS,
    images: bool = True,
) -> None:
    """One run directory: step to mean score; without a reason it has not ended."""
    record = RunRecord(folder, runs.GRID)
    record.begin(runs.RUN, None, None)
    for step, score in scores.items():
        if images:
            record.write_images(step, runs.images())
        record.append(evaluation(step, score, spread))
    if reason is not None:
        best = max(scores, key=lambda step: scores[step] if step else -1.0)
        record.end(RunSummary(record.evaluations, "face_similarity", best, reason))
    record.close()


def evaluation(step: int, score: float, spread: float) -> Evaluation:
    """Four images whose mean similarity is the score, and which do not all change alike."""
    offsets = spread * (1 + score) * np.linspace(-1, 1, len(runs.GRID.cells))
    made = runs.evaluation(step)
    images = tuple(
        replace(image, scores={**image.scores, "face_similarity": score + float(offset)})
        for image, offset in zip(made.images, offsets, strict=True)
    )
    return replace(made, images=images, scores=summarize(images, {}))


def with_alarms(sweep: SweepState, name: str, alarms: Mapping[int, Sequence[str]]) -> SweepState:
    """The sweep with alarms in a trial's record, by step."""
    path = sweep.folder / "trials" / name / EVALUATIONS
    found = [json.loads(line) for line in path.read_text().splitlines()]
    changed = [{**row, "alarms": list(alarms.get(row["step"], ()))} for row in found]
    path.write_text("".join(json.dumps(row) + "\n" for row in changed))
    return sweep


def with_trial(sweep: SweepState, name: str, **changes: Any) -> SweepState:
    """The sweep with one trial changed, on disk too."""
    trials = tuple(replace(trial, **changes) if trial.name == name else trial for trial in sweep.trials)
    changed = replace(sweep, trials=trials)
    write_state(changed)
    return changed


def strict_json(value: Any) -> Any:
    """The value as a reader gets it; NaN is refused."""
    return json.loads(json.dumps(value, allow_nan=False))
