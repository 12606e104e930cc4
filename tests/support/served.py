"""An application behind its real server, in a thread of the test's process, which is up sooner than a process."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Thread

from flask import Flask
from waitress import create_server, wasyncore


@contextmanager
def served_app(app: Flask) -> Iterator[int]:
    """The port at which it is served."""
    server = create_server(app, host="127.0.0.1", port=0, threads=8)
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server.effective_port
    finally:
        # By its own thread: another one may not close the sockets that it waits for.
        server.trigger.pull_trigger(partial(wasyncore.close_all, server._map, ignore_all=True))
        thread.join(20)
        assert not thread.is_alive()
        server.task_dispatcher.set_thread_count(0)  # its threads would wait until the tests end
