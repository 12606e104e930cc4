"""The standard streams of a program: any text can be printed, and a reader that has seen enough is no error."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

ESCAPES = "backslashreplace"


def print_any_text() -> None:
    """From now on, a character that the terminal's encoding lacks is printed as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != ESCAPES:
            with suppress(OSError):  # where the stream has become a pipe after Python opened it
                stream.reconfigure(errors=ESCAPES)


@contextmanager
def output_may_be_closed() -> Iterator[None]:
    """In this block, the reader of the output, such as `head`, may close it; the rest is discarded.

    What is held back is written at the end of the block, where it may fail as well. Rich turns the error into an exit.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as error:
        if not isinstance(error, BrokenPipeError) and not isinstance(error.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
