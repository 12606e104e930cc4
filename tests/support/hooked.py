"""A web server that takes events and answers as it is told."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Receiver(ThreadingHTTPServer):
    """Answers each request with the next status, and then always with the last one; None: never answers.

    Attributes:
        received: the JSON of every request.
        paths: where each was sent to.
    """

    daemon_threads = True

    def __init__(self, statuses: Sequence[int | None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses, self.received, self.paths = list(statuses), list[Any](), list[str]()
        self.is_over = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/T0/S3CRET?x=1"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(json.loads(content))
        self.server.paths.append(self.path)
        statuses = self.server.statuses
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        while status is None and not self.server.is_over:
            time.sleep(0.05)
        if status is not None:
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def receiving(*statuses: int | None) -> Iterator[Receiver]:
    server = Receiver(statuses)
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.is_over = True
        server.shutdown()
        thread.join()
        server.server_close()
