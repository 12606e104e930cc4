"""The state of a sweep: its trials and their states, as stored in `sweep.json` in its folder."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import write_atomic
from finetune_monitor.base.json_files import as_number, as_object, as_text, as_whole, damage_named, read_object
from finetune_monitor.base.paths import Containment
from finetune_monitor.base.redaction import redacted
from finetune_monitor.base.text import shortened

STATE = "sweep.json"
TRIALS = "trials"
"""The folder of the run directories, one per trial."""

CONFIGS = "configs"
"""The folder of the trials' configs."""

FORMAT = 1


class TrialState(str, Enum):
    """The state of a trial; the file holds the value."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED_EARLY = "stopped_early"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Whether rerunning the command skips the trial; a failed trial is retried."""
        return self in (TrialState.FINISHED, TrialState.STOPPED_EARLY)

    @property
    def is_open(self) -> bool:
        """Whether this command, or the next one, brings more evaluations, unless the trial fails."""
        return self in (TrialState.WAITING, TrialState.RUNNING)


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    name: unique in the sweep, and the name of its run directory below `trials/`.
    settings: the axes' (or the search's) dotted keys with this trial's values, in the order of the axes.
    person, seed: None if the sweep has none.
    attempts: how often it was started, over all commands.
    error: why the last attempt failed; None in every other state.
    seconds: total wall time of its attempts.
    """

    name: str
    settings: Mapping[str, Any]
    person: str | None = None
    seed: int | None = None
    state: TrialState = TrialState.WAITING
    attempts: int = 0
    error: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class SweepState:
    """A sweep's folder, its resolved config, and its trials in the order of the plan.

    set_aside: trials that were started but are no longer in the plan; their runs are kept in case they return.
    """

    folder: Path
    config: Mapping[str, Any]
    trials: tuple[TrialRecord, ...]
    set_aside: tuple[TrialRecord, ...] = ()

    @property
    def choices(self) -> Mapping[str, Any]:
        """The axes, or the space of the search."""
        search = self.config.get("search")
        return as_object((as_object(search)["space"] if search else self.config.get("axes")) or {})

    def run_dir(self, trial: TrialRecord) -> Path:
        """The trial's run directory, which may not exist yet."""
        return self.folder / TRIALS / trial.name


def without_secrets(state: SweepState) -> SweepState:
    """The state as it is written to disk: settings, errors, and config redacted."""
    trials, aside = (
        tuple(replace(trial, **redacted({"settings": trial.settings, "error": trial.error})) for trial in found)
        for found in (state.trials, state.set_aside)
    )
    return replace(state, config=redacted(state.config), trials=trials, set_aside=aside)


def write_state(state: SweepState) -> None:
    """Replace `sweep.json` atomically, without secrets."""
    state = without_secrets(state)
    content = {
        "format": FORMAT,
        "config": state.config,
        "trials": [asdict(trial) for trial in state.trials],
        "set_aside": [asdict(trial) for trial in state.set_aside],
    }
    write_atomic(state.folder / STATE, (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode())


def have_ended(states: Iterable[TrialState]) -> bool:
    """Whether there are trials, and none of them waits or runs."""
    found = [each.is_open for each in states]
    return bool(found) and not any(found)


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return os.path.lexists(folder / STATE)


def read_state(folder: Path) -> SweepState:
    """Read `sweep.json`, even while the sweep is running.

    Raises:
        UserError: the folder does not hold a sweep, or the file is damaged or has another format.
    """
    path = folder / STATE
    content = read_object(path, "a sweep's folder")
    with damage_named(path):
        if content["format"] != FORMAT:
            raise UserError(
                f"{path}: found format {content['format']!r}, expected {FORMAT}; use the version that wrote it"
            )
        trials, aside = (tuple(map(_trial, rows)) for rows in (content["trials"], content.get("set_aside", [])))
        state = SweepState(folder, as_object(content["config"]), trials, aside)
        _check_names(folder, [trial.name for trial in (*trials, *aside)])
        if not all(state.choices):
            raise ValueError("found an axis without a name")
        return state


def _trial(row: Any) -> TrialRecord:
    readers: dict[str, Callable[[Any], Any]] = {
        **dict.fromkeys(("name", "person", "error"), as_text),
        **dict.fromkeys(("seed", "attempts"), as_whole),
        "settings": _settings,
        "state": TrialState,
        "seconds": as_number,
    }
    optional = ("person", "seed", "error")
    found: Any = {key: None if value is None and key in optional else readers[key](value) for key, value in row.items()}
    return TrialRecord(**found)


def _settings(found: Any) -> dict[str, Any]:
    """A trial's settings; its numbers are positions on an axis."""
    settings = as_object(found)
    for value in settings.values():
        if type(value) in (int, float):
            as_number(value)
    return settings


def _check_names(folder: Path, names: Sequence[str]) -> None:
    """Raise UserError if a trial's run directory would not be inside the sweep's folder."""
    inside = Containment(folder)
    for name in names:
        if Path(name).name != name or inside.path(f"{TRIALS}/{name}") is None:
            raise UserError(
                f"{folder / STATE}: the trial {shortened(name)!r} leads out of the folder; expected its run directory "
                f"in {TRIALS}; name a run that lies elsewhere by its own path"
            )
