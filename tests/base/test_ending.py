"""The end of a program: everything that is registered for it happens, files are written, and nothing is freed."""

import os
import subprocess
import sys

import pytest

from support.places import ROOT

PROGRAM = """
import sys
{before}
from finetune_monitor.base.ending import ends_with, prepare_to_end
prepare_to_end()
import atexit, gc, threading, time

class Left:
    def __del__(self):
        print("freed")

class Loop:
    '''Only a collection would free it.'''

loop, left = Loop(), Left()
loop.itself = loop
file = open({file!r}, "w")
file.write("held back")
gc.freeze()
atexit.register(gc.unfreeze)  # as heavy_imports does
atexit.register(print, "registered")
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
{end}
"""


def ended(tmp_path, end, before="", **streams):
    code = PROGRAM.format(before=before, end=end, file=str(tmp_path / "file"))
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, text=True, **streams)
    assert (tmp_path / "file").read_text() == "held back"
    return done.returncode, (done.stdout or "").split(), done.stderr


def test_all_that_is_registered_happens_and_nothing_is_freed(tmp_path):
    assert ended(tmp_path, "sys.exit(ends_with(3))") == (3, ["thread", "registered"], "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "before", "status"),
    [
        ("raise SystemExit(4)", "", 4),
        ("sys.exit(ends_with(3))", "import logging", 3),
    ],
    ids=["without a status", "after what somebody else has registered"],
)
def test_otherwise_it_is_that_of_any_program(tmp_path, end, before, status):
    assert ended(tmp_path, end, before) == (status, ["thread", "registered", "freed"], "")


def test_an_error_has_its_traceback(tmp_path):
    status, _, said = ended(tmp_path, "1 / 0")
    assert status == 1
    assert said.splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_what_cannot_be_written_is_no_success(tmp_path):
    with open("/dev/full", "w") as full:
        status, _, said = ended(tmp_path, "sys.exit(ends_with(0))", stdout=full)
    assert status == 120
    assert "No space left on device" in said
