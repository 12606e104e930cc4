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

    A log that somebody has configured is left as it is.
    """
    log = logging.getLogger(PACKAGE)
    handler = _Lines()
    with warnings.catch_warnings():
        warnings.simplefilter("always", RuntimeWarning)
        warnings.showwarning = lambda message, *_, **__: _write("warning", str(message))
        if not logging.getLogger().handlers:
            log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)


class _Lines(logging.Handler):
    """Writes messages with their level in lower case."""

    def emit(self, record: logging.LogRecord) -> None:
        _write(record.levelname.lower(), record.getMessage())


def _write(level: str, text: str) -> None:
    from tqdm.auto import tqdm  # takes longer than all of `finetune-monitor --help`

    tqdm.write(f"{level}: {text}", file=sys.stderr)
