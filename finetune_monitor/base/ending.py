"""The end of a program without the seconds in which Python frees, one by one, the objects of torch's modules."""

import atexit
import gc
import io
import os

FILE = io.IOBase.__mro__[1]
"""What all files inherit from; IOBase itself, an abstract class, would ask each object for its class."""

_status: int | None = None


def prepare_to_end() -> None:
    """Call this before anything else registers what is to happen at exit, because ours must come last.

    Where something has, such as a coverage tool, the program ends as any other.
    """
    if not atexit._ncallbacks():
        atexit.register(_end)


def ends_with(status: int) -> int:
    """The same exit status, noted as this program's."""
    global _status
    _status = status
    return status


def _end() -> None:
    """Write what open files hold back, and end.

    With an unknown status, as after an error, and where a file cannot be written, the rest is left to Python.
    """
    if _status is None:
        return
    try:
        for file in [each for each in gc.get_objects() if issubclass(type(each), FILE)]:
            if not file.closed:
                file.flush()
    except Exception:
        return
    os._exit(_status)
