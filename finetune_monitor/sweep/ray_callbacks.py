"""Listen to Ray Tune in the driver: keep the ledger, update the board, and end the sweep on request."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from ray import tune

from finetune_monitor.base.interrupts import Interrupt
from finetune_monitor.record.sweep_directory import TrialRecord, TrialState
from finetune_monitor.sweep.ledger import Ledger
from finetune_monitor.sweep.plan import SweepPlan
from finetune_monitor.sweep.trials.supervisor import Outcome, cause_file
from finetune_monitor.sweep.trials.trial import TRIAL, name_of, settings_of

GRACE_SECONDS = 16.0
"""Seconds that trials have after an interrupt to report that they have stopped; then the sweep ends without them."""

STATES = {
    Outcome.FINISHED: TrialState.FINISHED,
    Outcome.FAILED: TrialState.FAILED,
    Outcome.INTERRUPTED: TrialState.WAITING,
}


@runtime_checkable
class Board(Protocol):
    """The display of a sweep's progress."""

    def begun(self, trial: TrialRecord) -> None: ...

    def evaluated(self, trial: TrialRecord, result: dict[str, Any]) -> None: ...

    def ended(self, trial: TrialRecord, error: str | None = None) -> None: ...

    def refresh(self) -> None: ...


class Watch(tune.Callback):
    """Tune's callbacks, which arrive one at a time in the driver's main thread."""

    def __init__(
        self, plan: SweepPlan, ledger: Ledger, board: Board, publish: Callable[[], None], interrupt: Interrupt
    ):
        self._plan, self._ledger, self._board = plan, ledger, board
        self._publish, self._interrupt = publish, interrupt
        self.running: set[str] = set()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write the config before the actor is asked for its first result."""
        record = self._record(trial)
        if self._interrupt.number is None:
            self._plan.write_config(record)
            self._ledger.begin(record)
            self.running.add(record.name)
            self._board.begun(self._ledger[record.name])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        name = name_of(trial.config)
        if name in self.running:
            self._board.evaluated(self._ledger[name], result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record the end of a trial; if its last result has no outcome, the scheduler has stopped it."""
        outcome = trial.last_result.get("outcome")
        state = STATES[Outcome(outcome)] if outcome else TrialState.STOPPED_EARLY
        self._end(name_of(trial.config), state, trial.last_result.get("error") if outcome else None)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(name_of(trial.config), TrialState.WAITING, self._cause(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a failure; a trial whose actor could not be created was never started."""
        record = self._record(trial)
        if record.name in self.running:
            self._end(record.name, TrialState.FAILED, self._cause(trial))
        elif self._interrupt.number is None:
            self._ledger.begin(record)
            self.running.add(record.name)
            self._end(record.name, TrialState.FAILED, _why_no_watcher(trial))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._board.refresh()

    def _cause(self, trial: Any) -> str:
        """Why an attempt failed."""
        path = cause_file(self._plan.folder, name_of(trial.config))
        if not path.exists():
            return "its machine, or its supervisor there, was lost"
        cause = path.read_text()
        path.unlink()
        return cause

    def _record(self, trial: Any) -> TrialRecord:
        if TRIAL in trial.config:
            return self._ledger[trial.config[TRIAL]]
        return self._plan.searched(settings_of(trial.config))

    def _end(self, name: str, state: TrialState, error: str | None) -> None:
        if name not in self.running:
            return
        self.running.remove(name)
        self._ledger.end(name, state, error if state == TrialState.FAILED else None)
        self._board.ended(self._ledger[name], error)
        if state != TrialState.WAITING:
            self._publish()


def _why_no_watcher(trial: Any) -> str:
    """The reason why a supervisor did not start: the last line of the error that Tune keeps."""
    lines = [line.strip() for line in (trial.get_error() or "").splitlines() if line.strip()]
    return f"its supervisor could not start: {lines[-1] if lines else 'Ray gives no reason'}"


class StopWhenAsked(tune.Stopper):
    """Ends the sweep after an interrupt, as soon as the running trials have saved their checkpoints."""

    def __init__(self, watch: Watch, interrupt: Interrupt):
        self._watch, self._interrupt = watch, interrupt

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its state from time to time, but sweeps resume from the trials' records."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._interrupt.number is not None and (
            not self._watch.running or self._interrupt.seconds > GRACE_SECONDS
        )
