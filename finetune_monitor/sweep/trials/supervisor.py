"""Supervise one trial wherever it runs: start its process, pass on its evaluations one by one, report how it ended."""

import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import write_atomic
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.progress import Progress, ended, read_quietly, rows
from finetune_monitor.record.run_directory import EVALUATIONS, RUN, lock
from finetune_monitor.record.sweep_directory import CONFIGS, TRIALS
from finetune_monitor.stats.estimate import MISSING
from finetune_monitor.sweep.trials.child import Child
from finetune_monitor.training.config import recorded_config
from finetune_monitor.training.main import USER_ERROR

LOGS = "logs"
"""The folder of the trials' logs."""

SCRATCH = ".ray"
"""The folder through which the sweep and its trials communicate; removed when the sweep ends."""

TOKEN, STOP = "token", "stop"
"""Files in it: one shows that a machine sees the sweep's folder; the other tells every trial to stop."""

POLL = 0.2
"""Seconds between two checks."""

FREE_WITHIN = 60.0
"""Seconds that an earlier attempt has to release the run directory."""

STOP_WITHIN = 12.0
"""Seconds for a checkpoint when the sweep is interrupted, while the user is waiting."""

CHECKPOINT_WITHIN = 60.0
"""Seconds for a checkpoint when only this trial is stopped."""


class Outcome(str, Enum):
    """The outcome of an attempt that is not retried immediately."""

    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class TrialDiedError(RuntimeError):
    """The process died for a reason that may not recur: the trial is retried."""


@dataclass(frozen=True)
class Site:
    """The location of the sweep, which every machine must share, and how its trials run.

    folder, cwd: absolute paths.
    token: the content of the file of that name.
    threads: the number of torch's CPU threads for each trial.
    goals: the metrics that trials are judged by.
    gpus: GPUs for each trial; with 0 it sees none.
    modules: the absolute path of the base config's folder, which may contain modules that it names.
    """

    folder: str
    cwd: str
    token: str
    threads: int
    goals: tuple[str, ...]
    gpus: float
    modules: str = ""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "goals": list(self.goals)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Site":
        return cls(**{**found, "goals": tuple(found["goals"])})


class Supervisor:
    """One attempt at a trial; each call of `next_result` waits for the next evaluation or the end."""

    def __init__(self, site: Site, name: str):
        self.site, self.name = site, name
        folder = Path(site.folder)
        self._run_dir, self._scratch = folder / TRIALS / name, folder / SCRATCH
        self._config, self._log = folder / CONFIGS / f"{name}.yaml", folder / LOGS / f"{name}.log"
        self._child: Child | None = None
        self._max_steps: int | None = None
        self._told = -1
        self._size = -1
        self._latest: Progress | None = None
        self._former: tuple[int, int] | None = None

    def next_result(self) -> dict[str, Any]:
        """The next result for Ray Tune: an evaluation, with `done` and `outcome` if it was the last.

        The first may be the newest one of an earlier attempt, marked `again`; its goal is the best value so far.

        Raises:
            TrialDiedError: the process failed in a way that may not happen in another attempt.
        """
        try:
            if self._max_steps is None:
                self._check_machine()
                self._max_steps = recorded_config(self._config)[0].train.max_steps
            return self._next_result()
        except UserError as error:
            return self._end(Outcome.FAILED, str(error))
        except Exception as error:
            write_atomic(cause_file(Path(self.site.folder), self.name), (str(error) or repr(error)).encode())
            raise

    def stop(self, seconds: float = CHECKPOINT_WITHIN) -> None:
        """Stop the process, with a checkpoint if it can save one in time."""
        if self._child is not None:
            self._child.stop(seconds)

    def _next_result(self) -> dict[str, Any]:
        while True:
            if self._is_interrupted():
                self.stop(STOP_WITHIN)
                return self._end(Outcome.INTERRUPTED)
            status = self._child.poll() if self._child is not None else None
            row = self._next_row()
            if row is not None and not row.is_last:
                return {**row.to_result(), "again": self._child is None, "done": False}
            if self._child is None:
                self._start()
            elif status is not None:
                return self._ended(status)
            time.sleep(POLL)

    def _check_machine(self) -> None:
        """Check that this machine of a cluster sees the same folders.

        Raises:
            UserError: it does not.
        """
        here = f"on {socket.gethostname()}"
        token = self._scratch / TOKEN
        if not token.is_file() or token.read_text() != self.site.token:
            raise UserError(
                f"{self.site.folder}: is a different folder {here} than where the sweep was started; choose an "
                "output_dir on storage that all machines of the cluster share"
            )
        if not Path(self.site.cwd).is_dir():
            raise UserError(
                f"{self.site.cwd}: found no such folder {here}, but the sweep was started in it; start it in a folder "
                "that all machines of the cluster share"
            )

    def _start(self) -> None:
        self._wait_until_free()
        if not self._is_interrupted():
            self._former = self._version()
            site = self.site
            self._child = Child(self._config, self._log, Path(site.cwd), site.threads, site.gpus, site.modules)

    def _wait_until_free(self) -> None:
        """Wait for the process of the earlier attempt, which may still be exiting."""
        deadline = time.monotonic() + FREE_WITHIN
        for folder in (self._run_dir / "checkpoints", self._run_dir):
            while folder.is_dir() and not self._is_interrupted():
                try:
                    lock(folder).close()
                    break
                except UserError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(POLL)

    def _is_interrupted(self) -> bool:
        return (self._scratch / STOP).exists()

    def _next_row(self) -> Progress | None:
        """The next unreported evaluation; the last one is returned repeatedly until the process has ended."""
        if self._latest is not None and self._latest.is_last:
            return self._latest
        path = self._run_dir / EVALUATIONS
        size = path.stat().st_size if path.exists() else 0
        if size == self._size:
            return None
        history = read_quietly(self._run_dir)
        found = rows(history, self.site.goals, self._max_steps) if history is not None else []
        new = [row for row in found if row.step > self._told]
        if not new:
            self._size = size if history is not None else -1
            return None
        row = new[-1 if self._child is None else 0]
        self._told, self._latest = row.step, row
        return row

    def _ended(self, status: int) -> dict[str, Any]:
        assert self._child is not None
        if status == USER_ERROR:
            return self._end(Outcome.FAILED, self._child.error())
        # Results of earlier attempts do not apply to this one, and a crash at exit does not affect a run that has
        # ended.
        reason = ended(read_quietly(self._run_dir)) if self._version() != self._former else None
        if reason == StopReason.NOT_FINITE.value:
            return self._end(Outcome.FAILED, "the loss was no longer finite; lower the learning rate")
        if status == 0 or reason is not None:
            return self._end(Outcome.FINISHED)
        raise TrialDiedError(self._child.error())

    def _version(self) -> tuple[int, int] | None:
        """A value that changes whenever `run.json` is written."""
        path = self._run_dir / RUN
        if not path.exists():
            return None
        found = path.stat()
        return found.st_ino, found.st_mtime_ns

    def _end(self, outcome: Outcome, error: str | None = None) -> dict[str, Any]:
        nothing = Progress(0, {}, dict.fromkeys(self.site.goals, MISSING), True)
        row = self._latest or nothing
        return {**row.to_result(), "done": True, "outcome": outcome.value, "error": error}


def cause_file(folder: Path, name: str) -> Path:
    """The file in which a supervisor records why its trial died; missing if the supervisor was lost too."""
    return folder / SCRATCH / f"{name}.died"
