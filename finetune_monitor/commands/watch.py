"""The command `finetune-monitor watch`: its options, and what it prints."""

import argparse
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_monitor.base.errors import UserError
from finetune_monitor.commands.options import port_number

if TYPE_CHECKING:
    import socket

HOST, PORT = "127.0.0.1", 8770
"""The only address on which runs can be watched and steered, and the first port to try."""


def add_watch(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `watch`."""
    parser = commands.add_parser("watch", help="serve a live page of runs on localhost, with buttons to steer them")
    parser.add_argument("place", type=Path, metavar="RUN", help="a run's output_dir, or a folder with many")
    parser.add_argument(
        "--port", type=port_number, metavar="N", help=f"0 for any free port; default: {PORT}, or any free one"
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser on this machine")
    parser.set_defaults(run=_watch)


def _watch(chosen: argparse.Namespace) -> None:
    import secrets

    from finetune_monitor.base.text import counted, visible
    from finetune_monitor.serving.access import Access
    from finetune_monitor.serving.server import open_in_browser, serve
    from finetune_monitor.watching.pages import live_pages
    from finetune_monitor.watching.runs import Watched
    from finetune_monitor.watching.serving import BODY, make_app

    watched = Watched(chosen.place)
    access = Access(("localhost", HOST), secrets.token_urlsafe(24))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # so that the temporary folder is removed
    with _listening(chosen.port) as listening, live_pages() as pages:
        port = listening.getsockname()[1]
        link = f"http://{HOST}:{port}/?key={access.key}"
        print(f"watch: {counted(len(watched.runs()), 'run')} in {visible(str(chosen.place))}")
        print(f"open:  {link}")
        print(f"       from elsewhere, first: ssh -L {port}:{HOST}:{port} THIS-MACHINE")
        print("stop:  Ctrl-C; the runs continue", flush=True)
        if chosen.open:
            open_in_browser(link)
        serve(make_app(watched, pages, access, port), listening, BODY)


def _listening(port: int | None) -> "socket.socket":
    """A socket on the chosen port; without a choice, on any free one if the usual one is taken."""
    from finetune_monitor.serving.addresses import listen

    if port is not None:
        return listen(HOST, port, f"--port {port}")
    try:
        return listen(HOST, PORT, f"--port {PORT}")
    except UserError:
        return listen(HOST, 0, "--port 0")
