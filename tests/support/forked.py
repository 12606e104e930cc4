"""Forked processes: as real as those of a shell, but they need not import anything again."""

import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path


class Child:
    """A forked process that runs an action, with its output in a file; it is killed in the end."""

    def __init__(self, action: Callable[[], int], output: Path):
        self.output = output
        output.touch()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork with threads
            self.pid = os.fork()
        if self.pid == 0:
            stream = output.open("a", buffering=1)
            for number in (1, 2):
                os.dup2(stream.fileno(), number)
            sys.stdout = sys.stderr = stream
            logging.basicConfig(force=True)  # and not pytest's
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os._exit(action())

    def until(self, is_so: Callable[[], object], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.01)

    def ends(self, seconds: float) -> int:
        """The exit status as in shells."""
        found = []
        self.until(lambda: found.append(os.waitpid(self.pid, os.WNOHANG)) or found[-1][0], seconds)
        status = os.waitstatus_to_exitcode(found[-1][1])
        self.pid = 0
        return status if status >= 0 else 128 - status

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
