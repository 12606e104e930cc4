"""Import torch and packages built on it without the garbage collector, which takes a quarter of a short start."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """No garbage is collected inside the block, and later collections skip what was imported, since it stays.

    A process that has already imported torch is left alone, because not all of its objects stay.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # otherwise, triton reports leaks at exit
