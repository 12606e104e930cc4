"""Start a command on an event."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from finetune_monitor.base.redaction import without_secrets
from finetune_monitor.monitor.hooks.deliveries import DeliveryError, EventHook, check_timeout
from finetune_monitor.monitor.hooks.events import USUAL, EventName, check_events
from finetune_monitor.sinks import RunInfo

QUOTED = 2000
"""Bytes of what a failed command wrote last to its standard error."""


@dataclass(eq=False)
class RunCommand(EventHook):
    """Start a program on an event, with the event as JSON on its standard input.

    It runs beside the training, in its own process group, which is killed at the time-out. What it prints is discarded;
    if it fails, the warning ends with its last line of standard error.

    Args:
        run: the program and its arguments; no shell is involved.
        events: the events that start it: evaluation, alarm (one that did not sound before), best (a new best step), and
            end.
        timeout: seconds that it may take.

    Raises:
        ValueError: `run` is empty or names no program, an event is unknown, or `timeout` is not above 0.
    """

    name: ClassVar[str] = "command"

    run: Sequence[str]
    events: Sequence[EventName] = USUAL
    timeout: float = 60.0

    def __post_init__(self) -> None:
        if isinstance(self.run, str) or not self.run:
            raise ValueError(f"run: found {self.run!r}, expected a list: a program and its arguments")
        if shutil.which(self.run[0]) is None:
            raise ValueError(f"run: found no program {self.run[0]!r}; check its name, or give its path")
        check_events(self.events)
        check_timeout(self.timeout)

    def start(self, run: RunInfo) -> None:
        self._begin(run, self.events, f"hook command {self.run[0]}", self.timeout + 1)

    def _deliver(self, event: bytes) -> None:
        with tempfile.TemporaryFile() as errors:  # not a pipe, which a process left behind could keep open
            try:
                process = subprocess.Popen(
                    list(self.run),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                )
            except OSError as error:
                raise DeliveryError(f"cannot start it ({error.strerror})") from error
            try:
                process.communicate(event, timeout=self.timeout)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise DeliveryError(f"it took longer than {self.timeout:g} s and was killed") from None
            if process.returncode:
                errors.seek(max(0, errors.seek(0, os.SEEK_END) - QUOTED))
                last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
                status = f"it ended with status {process.returncode}"
                raise DeliveryError(without_secrets(f"{status}: {last}" if last else status))
