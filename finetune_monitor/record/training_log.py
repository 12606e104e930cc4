"""The loss and the learning rate during training, averaged over stretches of steps: `training.jsonl`."""

import json
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import private, write_atomic
from finetune_monitor.base.json_files import DAMAGE, as_object, as_whole, read_lines
from finetune_monitor.base.text import shortened
from finetune_monitor.record.rows import append, lines
from finetune_monitor.record.run_directory import TRAINING
from finetune_monitor.stats.estimate import MISSING, from_json_number, json_number

STRETCH = 10
"""Steps that one row covers at the beginning of a run."""

MOST = 1000
"""Rows; a run with more steps has rows that cover twice as many, and so on."""


@dataclass(frozen=True)
class TrainingRow:
    """One stretch, from the step after the row before to `step`.

    loss: the mean over the stretch; NaN if no loss in it was finite.
    learning_rate: that of `step`; NaN if unknown.
    """

    step: int
    loss: float
    learning_rate: float


class TrainingLog:
    """Writes the rows of one run.

    Args:
        output_dir: the run directory.
        resume_step: rows after it are dropped; None for a new run, which drops all of them. If the file cannot be
            rewritten now, it is rewritten with the next row.
    """

    def __init__(self, output_dir: Path, resume_step: int | None = None) -> None:
        self._file = output_dir / TRAINING
        self._rows = [] if resume_step is None else [row for row in _readable(output_dir) if row.step <= resume_step]
        self._losses: list[tuple[int, float]] = []
        self._newest = TrainingRow(resume_step or 0, MISSING, MISSING)
        self._is_stale = os.path.lexists(self._file)
        if self._is_stale:
            with suppress(OSError):
                self._rewrite()

    def add(self, step: int, loss: float, learning_rate: float | None = None) -> None:
        """Add the loss of a step, or the mean since the last call; a step that does not come after that is ignored.

        Raises:
            OSError: a row cannot be written; it is kept, and written when the file is next rewritten.
        """
        last = self._rows[-1].step if self._rows else 0
        if step <= self._newest.step:
            return
        self._losses.append((step - self._newest.step, float(loss)))
        rate = MISSING if learning_rate is None or not math.isfinite(learning_rate) else float(learning_rate)
        self._newest = TrainingRow(step, _weighted(self._losses), rate)
        stretch = stretch_at(step)
        if step // stretch > last // stretch:
            self.flush()

    def flush(self) -> None:
        """Write a row for what has been added since the last one.

        Raises:
            OSError: as for `add`.
        """
        if not self._losses:
            return
        self._losses.clear()
        self._rows.append(self._newest)
        if len(self._rows) > MOST:
            self._rows = merged(self._rows, stretch_at(self._newest.step))
            self._is_stale = True
        if self._is_stale:
            self._rewrite()
            return
        self._is_stale = True
        with private():
            append(self._file, [_to_json(self._newest)], to_disk=False)  # a curve may lose its end in a crash
        self._is_stale = False

    def _rewrite(self) -> None:
        write_atomic(self._file, lines(map(_to_json, self._rows)))
        self._is_stale = False


def stretch_at(step: int) -> int:
    """The number of steps that a row covers in a run that has come to this step."""
    return STRETCH << max(0, math.ceil(math.log2(max(1, step) / (STRETCH * MOST))))


def merged(rows: Sequence[TrainingRow], stretch: int) -> list[TrainingRow]:
    """One row for each stretch of this many steps, weighted by the steps that the rows cover."""
    groups: dict[int, list[tuple[int, TrainingRow]]] = {}
    for before, row in zip([0, *(row.step for row in rows)], rows, strict=False):
        groups.setdefault((row.step - 1) // stretch, []).append((row.step - before, row))
    return [_as_one(group) for group in groups.values()]


def _as_one(group: Sequence[tuple[int, TrainingRow]]) -> TrainingRow:
    last = group[-1][1]
    return TrainingRow(last.step, _weighted([(steps, row.loss) for steps, row in group]), last.learning_rate)


def read_training(output_dir: Path) -> list[TrainingRow]:
    """The rows of a run, by step; none if its training loop passed no loss. A truncated last line is left out.

    Raises:
        UserError: the file cannot be read, or a row before the last is damaged.
    """
    path = output_dir / TRAINING
    found = list(read_lines(path))
    rows = []
    for number, line in found:
        try:
            rows.append(_from_json(line))
        except DAMAGE as error:
            if number == found[-1][0]:
                break
            raise UserError(f"{path}:{number}: damaged row ({shortened(repr(error))}); delete the file") from error
    return sorted(rows, key=lambda row: row.step)


def _readable(output_dir: Path) -> list[TrainingRow]:
    """The rows, or none if they are damaged: no curve is worth refusing to resume a training."""
    try:
        return read_training(output_dir)
    except UserError:
        return []


def _from_json(line: bytes) -> TrainingRow:
    row = as_object(json.loads(line))
    return TrainingRow(as_whole(row["step"]), from_json_number(row["loss"]), from_json_number(row["learning_rate"]))


def _to_json(row: TrainingRow) -> dict[str, float | None]:
    return {"step": row.step, "loss": json_number(row.loss), "learning_rate": json_number(row.learning_rate)}


def _weighted(found: Sequence[tuple[int, float]]) -> float:
    """The weighted mean of the finite values; NaN if there are none."""
    finite = [(weight, value) for weight, value in found if math.isfinite(value)]
    total = sum(weight for weight, _ in finite)
    return sum(weight * value for weight, value in finite) / total if total else MISSING
