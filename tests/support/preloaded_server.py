"""Imports torch and the package once, and forks a process for each program that it is asked to run.

python preloaded_server.py SOCKET        (ends with its standard input)
"""

import atexit
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from importlib import import_module
from types import ModuleType

from finetune_monitor.base.imports import heavy_imports
from support.preloaded import NUMBER

MODULES = (
    "facenet_pytorch",
    "open_clip",
    "torch.utils.tensorboard",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "finetune_monitor.cli",
    "finetune_monitor.training.run",
)
"""What trainings and commands that read images import."""

SIZE = 1 << 20
"""Bytes of the largest request: arguments and environment."""


def serve(path: str) -> None:
    """Answer each request with the process id, and once it has ended, with its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that wait for programs need not be waited for
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.new")
        listener.listen()
        os.rename(f"{path}.new", path)  # now it can be connected to
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    _answer(connection)


def _answer(connection: socket.socket) -> None:
    """Start the program of one request and wait for it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, streams, *_ = socket.recv_fds(connection, SIZE, 3)
    if (pid := os.fork()) == 0:
        connection.close()
        _run(json.loads(request), streams)
    connection.sendall(NUMBER.pack(pid))
    program = os.pidfd_open(pid)
    if program not in select.select([program, connection], [], [])[0]:  # nobody is interested any longer
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):
        connection.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _run(request: dict, streams: list[int]) -> None:
    """Be the program: a session, streams, a folder, and an environment of its own."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.executable = request["executable"]
    sys.path[:0] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    status = _status_of(request["arguments"])
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _status_of(arguments: list[str]) -> int:
    """Execute what Python's command line names; the exit status."""
    try:
        _execute(*arguments)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _execute(what: str, *arguments: str) -> None:
    if what == "-u":
        _execute(*arguments)
    elif what == "-m":
        module, *rest = arguments
        sys.path.insert(0, os.getcwd())
        sys.argv = [module, *rest]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    elif what == "-c":
        code, *rest = arguments
        sys.path.insert(0, "")
        sys.argv, sys.modules["__main__"] = ["-c", *rest], ModuleType("__main__")
        exec(code, vars(sys.modules["__main__"]))
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(what)))
        sys.argv = [what, *arguments]
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    del sys.path[0]  # of this script
    with heavy_imports():
        for name in MODULES:
            import_module(name)
    serve(sys.argv[1])
