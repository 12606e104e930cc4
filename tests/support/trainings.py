"""Trainings in processes of their own: started as in a shell, watched from outside, and never left behind."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from support import preloaded
from support.places import ROOT


@dataclass
class Training:
    """A running program and what it has printed to the terminal."""

    process: subprocess.Popen | preloaded.Program
    output: Path

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def until(self, is_so: Callable[[], object], seconds: float = 60) -> None:
        """Wait for something; the program must not end before."""
        deadline = time.monotonic() + seconds
        while not is_so():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def ends(self, seconds: float = 20) -> int:
        """Wait for its end; the exit status, as Python reports it. No process of its group may be left."""
        status = self.process.wait(seconds)
        assert gone(self.process.pid), "a process is left"
        return status


@contextmanager
def started(output: Path, command: Sequence[str], **environment: str) -> Iterator[Training]:
    """The command in a group of its own, which is killed in the end."""
    variables = {**os.environ, **environment}
    with output.open("w") as file, open(os.devnull) as nothing:
        if preloaded.starts(command):
            process = preloaded.Program(
                command, [each.fileno() for each in (nothing, file, file)], str(ROOT), variables
            )
        else:
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=nothing, stdout=file, stderr=file, start_new_session=True, env=variables
            )
    try:
        yield Training(process, output)
    finally:
        kill_group(process.pid)
        process.wait()


def train(config: Path, *overrides: str) -> list[str]:
    """The command of train.py."""
    return [preloaded.python(), "train.py", "--config", str(config), *overrides]


def kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def gone(group: int) -> bool:
    """Whether no process of the group is left, within the seconds that the system takes to clear away dead ones."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False
