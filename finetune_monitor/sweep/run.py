"""Run a sweep from its config to its answer; the same command resumes it, however the previous one ended."""

import os
import secrets
import shutil
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import make_private, write_atomic
from finetune_monitor.base.interrupts import Interrupt, watched_signals
from finetune_monitor.base.text import visible
from finetune_monitor.record.run_directory import RUN, lock, taking
from finetune_monitor.record.sweep_directory import STATE, SweepState, TrialState, read_state
from finetune_monitor.sweep.ledger import Ledger
from finetune_monitor.sweep.live_table import SweepTable, counted
from finetune_monitor.sweep.plan import SweepPlan, make_plan
from finetune_monitor.sweep.publishing import PAGE, Publisher, publish
from finetune_monitor.sweep.ray_session import prepare_ray, ray_session, remove_temporary, resources_of
from finetune_monitor.sweep.spec import SweepConfig, load_sweep
from finetune_monitor.sweep.trials.supervisor import LOGS, SCRATCH, STOP, TOKEN, Site

PAGE_WITHIN = 600.0
"""Seconds to wait for a page that is being written when the last trial ends; then it is written one final time."""

ENDING = "stopping the trials, each with a checkpoint"


def run_sweep(path: Path, overrides: Sequence[str] = ()) -> int:
    """Run the remaining trials of a sweep, and print the answer.

    Returns:
        The exit status: 0, 1 if a trial has failed or could not be run, or 128 + the signal that ended the sweep.

    Raises:
        UserError: the config is not valid; the folder is in use, holds something else, or is not writable; or the
            trials cannot start.
    """
    spec = load_sweep(path, overrides)
    try:
        return _run_sweep(spec)
    except (BrokenPipeError, ConnectionError):
        raise
    except OSError as error:
        raise UserError(
            f"{error.filename or spec.output_dir}: cannot write or read it ({error.strerror or error}); fix that, "
            "for example by freeing disk space, and run the same command to resume"
        ) from error


def _run_sweep(spec: SweepConfig) -> int:
    folder = spec.output_dir
    if (folder / RUN).exists():
        raise UserError(f"{folder}: holds a single run; choose another output_dir for the sweep")
    known = _known(folder)
    plan = make_plan(spec, known)  # before locking, so that a sweep that cannot start leaves no folder
    if known is None:
        prepare_ray(spec.address)
    with _taken(folder):
        if (now := _known(folder)) != known:
            plan = make_plan(spec, now)
        ledger = Ledger(folder, spec.model_dump(mode="json"), plan.trials, plan.set_aside)
        status = _run(plan, ledger) if _is_work_left(plan, ledger) else 0
        if status:
            print(f"{folder}: {counted(ledger, _total(plan, ledger))}; run the same command to resume")
            return status
        return _conclude(plan, ledger.state)


def _known(folder: Path) -> SweepState | None:
    return read_state(folder) if (folder / STATE).exists() else None


def _taken(folder: Path) -> IO[str]:
    """The lock of the sweep's folder: one command at a time."""
    with taking(folder):
        make_private(folder)
        return lock(folder)


def _is_work_left(plan: SweepPlan, ledger: Ledger) -> bool:
    trials = list(ledger)
    return len(trials) < _total(plan, ledger) or not all(trial.state.is_over for trial in trials)


def _total(plan: SweepPlan, ledger: Ledger) -> int:
    known = len(list(ledger))
    return max(known, plan.spec.search.trials) if plan.spec.search else known


def _run(plan: SweepPlan, ledger: Ledger) -> int:
    """Start Ray, run the trials, and clean up after Ray; returns the exit status of an interrupt, or 0."""
    site = _prepare(plan)
    scratch = Path(site.folder) / SCRATCH
    asked = watched_signals(ENDING, tell=(scratch / STOP).touch)
    with warnings.catch_warnings(), asked as interrupt, ExitStack() as left:
        warnings.simplefilter("ignore")  # about rows that are being written; they would break the table
        left.callback(shutil.rmtree, scratch, ignore_errors=True)
        left.callback(ledger.close)
        left.enter_context(ray_session(plan.spec.address, scratch))
        publisher = Publisher(ledger)  # closed before Ray is, which a thread that is still at work could upset
        left.callback(lambda: publisher.close(PAGE_WITHIN if interrupt.number is None else 0))
        interrupt.listen()
        if interrupt.number is None:
            _tune(plan, ledger, site, publisher, interrupt)
    return interrupt.exit_status


def _prepare(plan: SweepPlan) -> Site:
    """A fresh folder for communication with the trials; leftovers of a killed command are removed."""
    folder = plan.folder.absolute()
    scratch = folder / SCRATCH
    remove_temporary(scratch)
    shutil.rmtree(scratch, ignore_errors=True)
    make_private(scratch)
    token = secrets.token_hex(16)
    write_atomic(scratch / TOKEN, token.encode())
    threads = max(1, int(plan.spec.resources.cpus))
    goals = tuple(dict.fromkeys(plan.goals.values()))
    modules = str(plan.spec.base.parent.absolute())
    return Site(str(folder), os.getcwd(), token, threads, goals, plan.spec.resources.gpus or 0, modules)


def _tune(plan: SweepPlan, ledger: Ledger, site: Site, publisher: Publisher, interrupt: Interrupt) -> None:
    from finetune_monitor.sweep.ray_callbacks import StopWhenAsked, Watch
    from finetune_monitor.sweep.ray_tuning import run_trials

    resources = resources_of(plan.spec.resources)
    site = replace(site, gpus=resources["gpu"])
    board = SweepTable(ledger, plan.shown_metrics, _total(plan, ledger), plan.max_steps)
    watch = Watch(plan, ledger, board, publisher, interrupt)
    board.start()
    try:
        run_trials(plan, ledger, site, resources, watch, StopWhenAsked(watch, interrupt))
    finally:
        board.stop()


def _conclude(plan: SweepPlan, state: SweepState) -> int:
    """Write the answer, and print the results and their location."""
    answer = publish(state)
    failed = [trial for trial in state.trials if trial.state == TrialState.FAILED]
    is_left = not all(trial.state.is_over for trial in state.trials)
    goes_on = "; run the same command to resume" if is_left else ""
    print(f"{state.folder}: {counted(state.trials, len(state.trials))}{goes_on}")
    for trial in failed:
        attempts = f"{trial.attempts} attempt{'s' if trial.attempts > 1 else ''}"
        print(visible(f"failed:  {trial.name} ({attempts}): {trial.error}"))
        if (log := state.folder / LOGS / f"{trial.name}.log").exists():
            print(f"         its log: {log}")
    if answer is not None:
        from finetune_monitor.report.sweep_answer.answer import print_answer

        print_answer(answer)
    from finetune_monitor.report.sweep_answer.table_csv import TABLE

    for label, found in (("table:", state.folder / TABLE), ("page:", state.folder / PAGE / "index.html")):
        if found.exists():
            print(f"{label:<8} {found}")
    return 1 if is_left else 0
