"""Warnings and log messages on one line each, without the place in the source, and past any progress bar."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

PACKAGE = __name__.partition(".")[0]


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Write every warning as `warning: TEXT`, and so every message of this package's log.

    A log that somebody has configured before is left as it is. One that a library configures later, as open_clip does,
    does not get this package's messages, too.
    """
    with warnings.catch_warnings(), _plain_log():
        warnings.simplefilter("always", RuntimeWarning)
        warnings.showwarning = lambda message, *_, **__: _write("warning", str(message))
        yield


@contextmanager
def _plain_log() -> Iterator[None]:
    log, handler = logging.getLogger(PACKAGE), _Lines()
    if log.hasHandlers():
        yield
        return
    before, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = before


@contextmanager
def warnings_as_they_are() -> Iterator[None]:
    """Let an import send no warnings to the log instead of showing them: without a handler, nobody would see them."""
    before = warnings.showwarning
    try:
        yield
    finally:
        if warnings.showwarning is not before:
            logging.captureWarnings(False)


class _Lines(logging.Handler):
    """Writes messages with their level in lower case."""

    def emit(self, record: logging.LogRecord) -> None:
        _write(record.levelname.lower(), record.getMessage())


def _write(level: str, text: str) -> None:
    from tqdm.auto import tqdm  # takes longer than all of `finetune-monitor --help`

    tqdm.write(f"{level}: {text}", file=sys.stderr)
