"""A Python that has imported torch and the package already: a program starts in milliseconds, in a process of its own.

For programs that are tested for what they do, not for how they start. Imports nothing heavy, since every client does.
"""

import atexit
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]
NUMBER = struct.Struct("i")
"""The server's answers: a process id, and in the end an exit status, below 0 for a signal."""

CLIENT = """#!{python} -IS
import sys
sys.path.insert(0, {tests!r})
from support.preloaded import be_python
be_python(__file__, sys.argv[1:])
"""


SHARED = "PRELOADED_PYTHON"
"""The environment variable that names the one of the process that started this one."""

PATIENCE = 120
"""Seconds until a server must have imported everything."""


@cache
def python() -> str:
    """An executable that takes the arguments of Python: a script, -m, or -c. Of its options it takes -u.

    Its program has a session of its own, gets the signals for it, and is killed with it.
    """
    client = os.environ.get(SHARED) or _start()
    end = time.monotonic() + PATIENCE
    while not starts([client]):
        assert time.monotonic() < end, "the server has ended; it says why above"
        time.sleep(0.05)
    return client


def share() -> None:
    """Start a server for the processes that this one starts."""
    os.environ[SHARED] = _start()


def _start() -> str:
    """Start a server; returns its client, which can be used as soon as the server has imported everything."""
    folder = Path(tempfile.mkdtemp(prefix="python"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    client = folder / "python"
    client.write_text(CLIENT.format(python=sys.executable, tests=str(TESTS)))
    client.chmod(0o700)
    server = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("preloaded_server.py"), _socket(str(client))],
        stdin=subprocess.PIPE,  # the server ends with it
        stdout=subprocess.DEVNULL,  # some imports print
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS)))},
    )
    atexit.register(server.kill)
    return str(client)


def _socket(client: str) -> str:
    return f"{client}.socket"


def starts(command: Sequence[str]) -> bool:
    """Whether a command is one of the preloaded Python."""
    return Path(_socket(command[0])).exists()


class Program:
    """A program in a session of its own, with what a test needs of `subprocess.Popen`.

    Args:
        command: `python()` and its arguments.
        streams: file descriptors of its input, output, and errors.
    """

    def __init__(self, command: Sequence[str], streams: Sequence[int], folder: str, environment: Mapping[str, str]):
        executable, *arguments = command
        request = {
            "executable": executable,
            "arguments": arguments,
            "folder": folder,
            "environment": dict(environment),
        }
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_socket(executable))
        socket.send_fds(self._connection, [json.dumps(request).encode()], streams)
        self.pid = self._number()
        self._status: int | None = None

    def _number(self) -> int:
        return int(NUMBER.unpack(self._connection.recv(NUMBER.size))[0])

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self._status

    def wait(self, seconds: float | None = None) -> int:
        """The exit status, as `subprocess` has it."""
        if self._status is None:
            if not select.select([self._connection], [], [], seconds)[0]:
                raise subprocess.TimeoutExpired("the program", seconds or 0)
            self._status = self._number()
            self._connection.close()
        return self._status


def be_python(executable: str, arguments: Sequence[str]) -> None:
    """Start a program, pass on signals, and end as it does."""
    program = Program([executable, *arguments], (0, 1, 2), os.getcwd(), os.environ)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: program.send_signal(number))
    if (status := program.wait()) < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)
