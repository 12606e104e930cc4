"""Progress: a bar where somebody sees it move, and few plain lines in a log."""

import subprocess
import sys

import pytest

from finetune_monitor.base.progress import MOST_LINES, Progress, _apart

WORK = """
from finetune_monitor.base.progress import Progress
with Progress(600, "training", "step", 100) as progress:
    for step in range(101, 601):
        progress.advance(1, {"loss": 0.123456} if step > 110 else None)
"""


def test_a_log_gets_few_plain_lines():
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("training: step 150 of 600, loss 0.123 (00:00 so far, about 00:0")
    assert lines[-1].startswith("training: step 600 of 600, loss 0.123 (")
    assert "\r" not in done.stderr
    assert done.stdout == ""


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress(4, "training", "step") as progress:
        progress.advance(4, {"loss": 0.5})
    said = capsys.readouterr().err
    assert "4/4" in said
    assert "training: step" not in said


def test_other_processes_say_nothing(capsys):
    with Progress(4, "training", "step", is_shown=False) as progress:
        progress.advance(4)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("total", "apart"), [(1, 1), (20, 1), (21, 2), (60, 5), (600, 50), (3000, 200)])
def test_lines_come_at_round_numbers(total, apart):
    assert _apart(total) == apart
    assert total / apart <= MOST_LINES
