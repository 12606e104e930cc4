"""What a run is doing, as seen from outside: in progress, held, ended, or interrupted."""

from dataclasses import dataclass
from pathlib import Path

from finetune_monitor.base.locks import is_locked
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.history import RunHistory
from finetune_monitor.record.live import TRAINING, Status, read_status
from finetune_monitor.record.run_directory import LOCK

FINISHED, INTERRUPTED, FAILED = "finished", "interrupted", "failed"

BROKE = (StopReason.FAILED, StopReason.NOT_FINITE)


@dataclass(frozen=True)
class RunState:
    """The state of a run.

    name: training, evaluating, paused, finished, interrupted, or failed.
    why: why a run that is not in progress ended, in words; "" for a run in progress.
    status: what a run in progress says about itself, if anything.
    """

    name: str
    why: str = ""
    status: Status | None = None

    @property
    def is_in_progress(self) -> bool:
        return not self.why


def state_of(history: RunHistory) -> RunState:
    """The state of a run, by its lock and its record; nothing is changed."""
    run_dir: Path = history.output_dir
    if is_locked(run_dir / LOCK) and not history.has_ended:
        status = read_status(run_dir)
        return RunState(status.state if status else TRAINING, status=status)
    if not history.has_ended:
        return RunState(INTERRUPTED, "it was killed; run the same command to resume")
    reason = history.reason
    name = INTERRUPTED if reason == StopReason.INTERRUPTED else FAILED if reason in BROKE else FINISHED
    return RunState(name, history.why)
