"""Heavy imports run without the garbage collector, and only where they have not been made."""

import gc
import subprocess
import sys

import torch  # noqa: F401  (imported already, as in a program of the user's)

from finetune_monitor.base.imports import heavy_imports

FIRST = """
import atexit, gc, os
from finetune_monitor.base.imports import heavy_imports
atexit.register(lambda: os._exit(gc.get_freeze_count() > 0))
with heavy_imports():
    assert not gc.isenabled()
assert gc.isenabled()
assert gc.get_freeze_count() > 0
"""


def test_nothing_is_collected_while_torch_is_imported_and_all_of_it_in_the_end():
    assert subprocess.run([sys.executable, "-c", FIRST], check=False).returncode == 0


def test_a_process_that_has_torch_is_left_alone():
    before = gc.get_freeze_count()
    with heavy_imports():
        assert gc.isenabled()
    assert gc.get_freeze_count() == before
