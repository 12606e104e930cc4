"""`finetune-monitor report`: what it writes, what it prints, and its errors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_monitor.cli import main
from finetune_monitor.record.sweep_directory import SweepState, TrialRecord, write_state
from support.runs import write_run


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    write_run(tmp_path / "runs/ana", {0: 0.1, 300: 0.4})
    monkeypatch.chdir(tmp_path)


def test_it_says_what_it_wrote_and_where(capsys):
    assert main(["report", "runs/ana", "-o", "page"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "shown:    1 run, 2 evaluations, 8 images"
    assert lines[1].startswith("page:     page (")
    assert lines[2] == f"open:     {Path('page/index.html').resolve().as_uri()}"


def test_it_says_what_it_left_out(capsys):
    assert main(["report", "runs/ana", "runs/gone", "-o", "page"]) == 0
    assert "left out: runs/gone: found no run.json, expected a run directory" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs/gone", "-o", "page"], "found no readable run, expected at least one:\n  - runs/gone: found no"),
        (["runs/ana", "-o", "runs/ana"], "runs/ana: is a run directory, expected a separate folder"),
        (["runs/ana", "-o", "runs"], "runs: found ana, expected a page or an empty folder; choose another one"),
    ],
)
def test_errors_of_the_user(capsys, arguments, message):
    assert main(["report", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(capsys, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("finetune_monitor.report.page.write_page", full)
    assert main(["report", "runs/ana", "-o", "page"]) == 2
    assert (
        "page: cannot write the page (No space left on device); fix that and run the same command"
        in capsys.readouterr().err
    )


def sweep(folder: Path, *trials: str) -> None:
    records = tuple(TrialRecord(name, {"train.rank": rank}) for rank, name in enumerate(trials, 1))
    folder.mkdir(parents=True)
    write_state(SweepState(folder, {}, records))


def test_several_sweeps_are_refused(capsys):
    sweep(Path("one"), "a")
    sweep(Path("two"), "a")
    assert main(["report", "one", "two", "-o", "page"]) == 2
    assert "found 2 sweeps (one, two), expected one per page" in capsys.readouterr().err


def test_a_sweep_of_which_nothing_has_begun(capsys):
    sweep(Path("one"), "a", "b")
    assert main(["report", "one", "-o", "page"]) == 2
    assert "one: no trial of the sweep has started" in capsys.readouterr().err


def test_a_folder_name_that_is_no_text(capsys):
    name = os.fsdecode(b"pa\xffge")
    assert main(["report", "runs/ana", "-o", name]) == 0
    assert "page:     pa\ufffdge (" in capsys.readouterr().out


def test_help_loads_nothing_heavy():
    code = (
        "import sys, finetune_monitor.commands.report\n"
        "sys.exit(any(name in sys.modules for name in ('numpy', 'PIL', 'torch', 'rich')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
