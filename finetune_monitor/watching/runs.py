"""The runs below a folder, and each at a glance: its state, its best step, its alarms, its evaluation in progress."""

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.paths import check_folder
from finetune_monitor.base.text import visible
from finetune_monitor.record.alarms import alarms_of
from finetune_monitor.record.history import RunHistory, read_noting
from finetune_monitor.record.live import ASKED, is_asked, previews
from finetune_monitor.record.run_directory import CONTROL, EVALUATIONS, RUN
from finetune_monitor.record.run_state import RunState, state_of
from finetune_monitor.record.verdict import MAX_STEPS
from finetune_monitor.report.page_runs import distinct_tails, run_id
from finetune_monitor.stats.estimate import shown

DEPTH, MOST = 6, 1000
"""How many folders below the watched one a run may be, and how many runs are listed."""

RESCAN = 3.0
"""Seconds between two searches for new runs."""

Version = tuple[tuple[int, int], ...]


@dataclass
class WatchedRun:
    """A run directory, read again when its record has changed.

    folder: its resolved path.
    """

    folder: Path
    version: Version = ()
    history: RunHistory | None = None
    problem: str = ""

    @property
    def id(self) -> str:
        return run_id(self.folder)

    def refresh(self) -> Version:
        """Read the record if it has changed; returns what identifies its content."""
        version = tuple(_stamp(self.folder / name) for name in (RUN, EVALUATIONS))
        if version != self.version:
            try:
                self.history, self.problem = read_noting(self.folder)[0], ""
            except UserError as error:
                self.history, self.problem = None, visible(str(error))
            self.version = version
        return version

    def glance(self) -> dict[str, Any]:
        """What the list and the strip show of the run, as JSON."""
        found = self._content()
        state = found["state"]
        return {**found, "label": "Cannot be read" if state == "unreadable" else state.capitalize()}

    def _content(self) -> dict[str, Any]:
        self.refresh()
        about: dict[str, Any] = {"id": self.id, "folder": visible(str(self.folder))}
        if self.history is None:
            return {**about, "state": "unreadable", "why": self.problem, "cannot": self.problem}
        try:
            return {**about, **_glance(self.history)}
        except UserError as error:
            return {**about, "state": "unreadable", "why": visible(str(error)), "cannot": visible(str(error))}


@dataclass
class Watched:
    """All runs at or below a folder, found again from time to time.

    Raises:
        UserError: there are none, or no such folder.
    """

    place: Path
    _runs: dict[str, WatchedRun] = field(default_factory=dict)
    _searched: float = -RESCAN

    def __post_init__(self) -> None:
        check_folder(self.place, "a run directory or a folder with some")
        if not self.runs():
            raise UserError(
                f"{self.place}: found no run in it, expected a run directory or a folder with some; start a run first"
            )

    @property
    def is_run(self) -> bool:
        """Whether the folder is itself a run directory."""
        return (self.place / RUN).is_file()

    def runs(self) -> dict[str, WatchedRun]:
        """The runs by id, in the order of their paths."""
        now = time.monotonic()
        if now - self._searched >= RESCAN:
            found = [WatchedRun(folder) for folder in _run_dirs(self.place)]
            self._runs = {each.id: self._runs.get(each.id, each) for each in found}
            self._searched = now
        return self._runs

    def names(self) -> dict[str, str]:
        """The shortest distinct tail of each run's path, by id."""
        tails = distinct_tails([run.folder for run in self._runs.values()])
        return {run_id(folder): visible(tail) for folder, tail in tails.items()}


def _run_dirs(place: Path) -> Iterator[Path]:
    """The resolved run directories at or below a folder; links to folders are not followed."""
    root, count = Path(os.path.realpath(place)), 0
    for folder, inner, names in os.walk(root):
        here = Path(folder)
        if RUN in names:
            yield here
            count += 1
        is_deep = len(here.relative_to(root).parts) >= DEPTH
        inner[:] = [] if RUN in names or is_deep else sorted(name for name in inner if not name.startswith("."))
        if count >= MOST:
            return


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size


def _glance(history: RunHistory) -> dict[str, Any]:
    state, last = state_of(history), history.evaluations[-1] if history.evaluations else None
    step = state.status.step if state.status else history.last_step or 0
    run_dir, most = history.output_dir, history.hparams.get(MAX_STEPS)
    return {
        "state": state.name,
        "why": visible(state.why),
        "since": state.status.since if state.status else None,
        "step": step,
        "max_steps": most if isinstance(most, int) else None,
        "evaluated": [each.step for each in history.evaluations],
        "evaluated_at": last.wall_time if last else None,
        "images": state.status.images if state.status else 0,
        "previews": [path.name for path in previews(run_dir, step)] if state.status and state.status.images else [],
        "best": _best(history),
        "alarms": [visible(alarm) for alarm in alarms_of(last, history.columns)] if last else [],
        "asked": sorted(name for name in ASKED if is_asked(run_dir, name)) if state.is_in_progress else [],
        "cannot": why_not_steered(history, state),
    }


def _best(history: RunHistory) -> dict[str, Any] | None:
    """The best step, with the score there as text; "" if it is missing."""
    metric, step = history.best_metric, history.best_step
    evaluation = history.at(step) if step is not None else None
    if metric is None or evaluation is None or metric not in evaluation.scores:
        return None
    score = evaluation.scores[metric]
    return {"metric": visible(metric), "step": step, "score": "" if math.isnan(score.mean) else shown(score)}


def why_not_steered(history: RunHistory, state: RunState) -> str:
    """Why the run takes no requests from this user, in words; "" if it does."""
    if not state.is_in_progress:
        return "It is not in progress, so there is nothing to steer."
    if history.is_score:
        return "It scores files of another trainer, and takes no requests."
    folder: Path = history.output_dir / CONTROL
    if not os.access(folder if folder.exists() else history.output_dir, os.W_OK | os.X_OK):
        return "You may read it but not write in its folder, so only its owner can steer it."
    return ""
