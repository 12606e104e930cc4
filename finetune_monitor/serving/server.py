"""Serve an application until Ctrl-C, whatever its visitors do."""

import logging
import socket
import sys
import webbrowser

from flask import Flask
from waitress import create_server

THREADS = 8

CONNECTIONS, SILENT = 800, 20
"""Open connections, below the usual limit of 1024 files, and seconds after which a silent one is closed."""


def serve(app: Flask, listening: socket.socket, largest: int) -> None:
    """Serve until Ctrl-C.

    Args:
        largest: bytes of a request's body.
    """
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a browser that preloads images is not an overload
    limits = {"connection_limit": CONNECTIONS, "channel_timeout": SILENT, "cleanup_interval": SILENT // 4}
    options = {"threads": THREADS, "max_request_body_size": largest, "ident": None, "asyncore_use_poll": True}
    create_server(app, sockets=[listening], **limits, **options).run()


def open_in_browser(link: str) -> None:
    """Open a link in a browser on this machine."""
    if not webbrowser.open(link):
        print("finetune-monitor: found no browser to open; open the link manually", file=sys.stderr)
