"""The command `finetune-monitor report`: its options, and what it prints."""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_monitor.base.errors import UserError

MOST_PROCESSES = 8
"""Maximum number of processes: each takes about 50 MB, and a container often reports more cores than it has."""


def add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `report`."""
    parser = commands.add_parser("report", help="write a page of runs: curves, and the images behind every point")
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="a run's output_dir, even while it is running, or a sweep's"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder for the page")
    parser.set_defaults(run=_report, kept="; the thumbnails made so far are kept; run the same command to continue")


def _report(chosen: argparse.Namespace) -> None:
    from finetune_monitor.base.text import visible
    from finetune_monitor.report.page import INDEX, write_page

    run_dirs, sweep = _with_trials(chosen.runs)
    try:
        written = write_page(chosen.output, run_dirs, sweep, min(os.cpu_count() or 1, MOST_PROCESSES))
    except OSError as error:
        raise UserError(
            f"{chosen.output}: cannot write the page ({error.strerror}); fix that and run the same command to continue"
        ) from error
    size = sum(path.stat().st_size for path in chosen.output.rglob("*") if path.is_file()) / 1e6
    counts = {"run": written.runs, "evaluation": written.evaluations, "image": written.images}
    for found in written.unreadable:
        print(f"left out: {visible(found.problem)}")
    print(f"shown:    {', '.join(f'{count} {word}' + 's' * (count != 1) for word, count in counts.items())}")
    print(f"page:     {visible(str(chosen.output))} ({size:.1f} MB)")
    print(f"open:     {(chosen.output / INDEX).resolve().as_uri()}")


def _with_trials(folders: Sequence[Path]) -> tuple[list[Path], Mapping[str, Any] | None]:
    """The run directories, with those of its trials in place of a sweep, and the sweep's answer.

    Raises:
        UserError: there are several sweeps.
    """
    from finetune_monitor.record.sweep_directory import is_sweep, read_state

    sweeps = [folder for folder in folders if is_sweep(folder)]
    if not sweeps:
        return list(folders), None
    if len(sweeps) > 1:
        named = ", ".join(map(str, sweeps))
        raise UserError(f"found {len(sweeps)} sweeps ({named}), expected one per page; write a page for each")
    from finetune_monitor.report.sweep_answer.answer import find_answer

    state = read_state(sweeps[0])
    trials = [place for place in map(state.run_dir, state.trials) if place.exists()]
    if not trials:
        raise UserError(f"{sweeps[0]}: no trial of the sweep has started, expected at least one; start the sweep first")
    run_dirs = [place for folder in folders for place in (trials if folder == sweeps[0] else [folder])]
    return run_dirs, find_answer(state).to_json()
