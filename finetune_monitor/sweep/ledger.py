"""Keep a sweep's state while it runs: every change is on disk before anything else happens."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.progress import ended, read_quietly
from finetune_monitor.record.run_directory import RUN
from finetune_monitor.record.sweep_directory import (
    TRIALS,
    SweepState,
    TrialRecord,
    TrialState,
    without_secrets,
    write_state,
)


class Ledger:
    """The trials by name, in the order of the plan."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        trials: Sequence[TrialRecord],
        set_aside: Sequence[TrialRecord] = (),
    ):
        self._folder, self._config = folder, dict(config)
        self._trials = {trial.name: trial for trial in trials}
        self._set_aside = {trial.name: trial for trial in set_aside}
        self._begun: dict[str, float] = {}
        self._set_right()
        self._write()

    @property
    def state(self) -> SweepState:
        """The state without secrets, as on disk."""
        trials, aside = tuple(self._trials.values()), tuple(self._set_aside.values())
        return without_secrets(SweepState(self._folder, self._config, trials, aside))

    def __contains__(self, name: str) -> bool:
        return name in self._trials

    def __getitem__(self, name: str) -> TrialRecord:
        return self._trials[name]

    def __iter__(self) -> Iterator[TrialRecord]:
        return iter(tuple(self._trials.values()))

    def begin(self, trial: TrialRecord) -> None:
        """Record the start of an attempt; a trial of a search is new here, or was set aside earlier."""
        aside = self._set_aside.pop(trial.name, trial)
        known = self._trials.get(trial.name, replace(aside, settings=trial.settings))
        self._begun[trial.name] = time.monotonic()
        self._set(replace(known, state=TrialState.RUNNING, attempts=known.attempts + 1, error=None))

    def end(self, name: str, state: TrialState, error: str | None = None) -> None:
        """Record the end of an attempt, and of its trial unless the state is waiting."""
        trial = self._trials[name]
        spent = time.monotonic() - self._begun.pop(name, time.monotonic())
        self._set(replace(trial, state=state, error=error, seconds=trial.seconds + spent))

    def close(self) -> None:
        """Record that nothing is running: running trials resume with the next command."""
        for name in list(self._begun):
            self.end(name, TrialState.WAITING)
        self._set_right()
        self._write()

    def _set_right(self) -> None:
        """Update states from the runs' records, which are right if an earlier command was killed or told to stop."""
        for trial in self:
            run_dir = self._folder / TRIALS / trial.name
            if trial.state.is_over:
                state = trial.state if (run_dir / RUN).exists() else TrialState.WAITING
            elif ended(read_quietly(run_dir)) not in (None, StopReason.NOT_FINITE.value):
                state = TrialState.FINISHED
            else:
                state = TrialState.FAILED if trial.state == TrialState.FAILED else TrialState.WAITING
            error = trial.error if state == TrialState.FAILED else None
            self._trials[trial.name] = replace(trial, state=state, error=error)

    def _set(self, trial: TrialRecord) -> None:
        self._trials[trial.name] = trial
        self._write()

    def _write(self) -> None:
        write_state(self.state)
