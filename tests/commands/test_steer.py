"""`stop`, `evaluate`, `pause`, and `resume`: what they ask, and what they say about runs that take no requests."""

import os
import subprocess
import sys
import tempfile

import pytest

from finetune_monitor.cli import main
from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.record.evaluation import StopReason
from support.places import ROOT
from support.runs import write_run
from support.scripted import GRID, Scripted

KINDS = ("stop", "evaluate", "pause", "resume")


@pytest.fixture
def monitor(pipeline, run_folder):
    with FinetuneMonitor(pipeline, GRID, [Scripted([0.1] * 9)], run_folder, every=10) as made:
        yield made


def test_each_command_says_what_the_run_will_do(monitor, run_folder, capsys):
    capsys.readouterr()

    def said(kind):
        assert main([kind, str(run_folder)]) == 0
        return capsys.readouterr().out.removeprefix(f"{run_folder}: ").strip()

    assert said("evaluate") == "evaluates after its current step"
    assert said("resume") == "is not paused"
    assert said("pause") == "pauses after its current step"
    assert said("resume") == "continues"  # before the training has seen it
    assert said("stop") == "stops after its current step"
    assert sorted(path.name for path in (run_folder / "control").iterdir()) == ["evaluate", "stop"]
    assert monitor.on_step_end(3)
    assert [each.step for each in monitor.evaluations] == [0, 3]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (StopReason.MAX_STEPS, "finished: the last step was reached"),
        (StopReason.INTERRUPTED, "interrupted: it was interrupted; run the same command to resume"),
        (StopReason.NOT_FINITE, "failed: the loss was no longer finite"),
        (StopReason.REQUESTED, "finished: it was stopped by request"),
    ],
)
def test_a_run_that_has_ended_is_said_to_have(kind, reason, said, tmp_path, capsys):
    write_run(tmp_path / "run", {0: 0.1, 10: 0.5}, reason)
    assert main([kind, str(tmp_path / "run")]) == 2
    assert f"run: is not in progress ({said}" in capsys.readouterr().err
    assert not (tmp_path / "run/control").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_run_is_said(kind, tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "none"):
        assert main([kind, str(folder)]) == 2
        assert "found no run.json, expected a run directory" in capsys.readouterr().err


def test_a_killed_run_is_interrupted(run_folder, capsys):
    write_run(run_folder, {0: 0.1})
    text = (run_folder / "run.json").read_text()
    (run_folder / "run.json").write_text(text.replace('"ended"', '"was"'))
    assert main(["pause", str(run_folder)]) == 2
    assert "interrupted: it was killed; run the same command to resume" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_somebody_without_permission_is_told_so():
    """As a user who may read the run but not write in it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        program = "import os; from pathlib import Path; from finetune_monitor.record.live import request\n"
        program += f"os.setuid(65534); request(Path({folder!r}), 'stop')"
        found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert "UserError" in found.stderr
    assert "cannot write there (Permission denied); requests need permission to write" in found.stderr
