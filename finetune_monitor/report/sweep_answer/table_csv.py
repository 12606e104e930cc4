"""A sweep as a table: `sweep.csv` in its folder, with one row per evaluation of a trial."""

import math
from pathlib import Path
from typing import Any

from finetune_monitor.base.csv_files import csv_text
from finetune_monitor.base.files import write_atomic
from finetune_monitor.base.text import encoded
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.report.sweep_answer.results import Result, Results
from finetune_monitor.stats.estimate import Estimate, plain

TABLE = "sweep.csv"


def write_csv(results: Results, folder: Path) -> None:
    """Replace the table in the sweep's folder.

    Columns: `trial`, the settings by their dotted keys, `person`, `seed`, `state`, `step`, `epoch`, `best` (1 if the
        step is the best of its run by the run's best metric, after step 0), `alarms` (the columns whose alarm sounds);
        for each metric, its mean under its name, with `_low`, `_high`, `_n`, and `_missing`; for other columns, such as
        `faces_found`, the mean. Missing values are empty. A trial without an evaluation has one row.
    """
    rows = [row for result in results.all for row in _rows(results, result)]
    header = list(dict.fromkeys(key for row in rows for key in row)) or ["trial"]
    text = csv_text(header, ([row.get(key) for key in header] for row in rows))
    write_atomic(folder / TABLE, encoded(text))


def _rows(results: Results, result: Result) -> list[dict[str, Any]]:
    trial = result.trial
    whose = {"trial": trial.name, **plain(trial.settings)}
    whose |= {"person": trial.person, "seed": trial.seed, "state": trial.state.value}
    best = result.best_step
    return [{**whose, **_measured(results, found, best)} for found in result.evaluations] or [whose]


def _measured(results: Results, evaluation: Evaluation, best: int | None) -> dict[str, Any]:
    row: dict[str, Any] = {"step": evaluation.step, "epoch": evaluation.epoch, "best": int(evaluation.step == best)}
    row |= {"alarms": ", ".join(evaluation.alarms)}
    for name in {**results.metrics, **evaluation.scores}:
        if name in evaluation.scores:
            row |= _columns(name, evaluation.scores[name], name in results.metrics)
    return row


def _columns(name: str, estimate: Estimate, whole: bool) -> dict[str, float | int | None]:
    found = {name: estimate.mean, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    numbers = {key: None if math.isnan(value) else value for key, value in found.items()}
    counts = {f"{name}_n": estimate.n, f"{name}_missing": estimate.missing}
    return {**numbers, **counts} if whole else {name: numbers[name]}
