"""Cost does not grow faster with its input than was measured: CPU time of ten times the input over that of one."""

import subprocess
import sys

from support.places import ROOT


def test_cost_grows_as_recorded():
    words = [sys.executable, "benchmarks/scaling.py", "--check"]
    done = subprocess.run(words, env=None, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
