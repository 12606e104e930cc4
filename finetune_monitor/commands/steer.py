"""The commands `finetune-monitor stop|evaluate|pause|resume`: ask something of a run in progress."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_monitor.base.errors import UserError

if TYPE_CHECKING:
    from finetune_monitor.record.run_state import RunState


def add_steering(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the four commands."""
    kinds = {
        "stop": (_stop, "end a run in progress after its current step, as if it were its last"),
        "evaluate": (_evaluate, "evaluate a run in progress after its current step; its schedule does not change"),
        "pause": (_pause, "hold a run in progress after its current step, until it is resumed or stopped"),
        "resume": (_resume, "end a run's pause"),
    }
    for name, (run, about) in kinds.items():
        parser = commands.add_parser(name, help=about)
        parser.add_argument("run_dir", type=Path, metavar="RUN", help="the run's output_dir")
        parser.set_defaults(run=run)


def _stop(chosen: argparse.Namespace) -> None:
    from finetune_monitor.record.live import STOP, request

    _in_progress(chosen.run_dir)
    request(chosen.run_dir, STOP)
    print(f"{chosen.run_dir}: stops after its current step")


def _evaluate(chosen: argparse.Namespace) -> None:
    from finetune_monitor.record.live import EVALUATE, request

    _in_progress(chosen.run_dir)
    request(chosen.run_dir, EVALUATE)
    print(f"{chosen.run_dir}: evaluates after its current step")


def _pause(chosen: argparse.Namespace) -> None:
    from finetune_monitor.record.live import PAUSE, PAUSED, request

    state = _in_progress(chosen.run_dir)
    request(chosen.run_dir, PAUSE)
    print(f"{chosen.run_dir}: {'is paused already' if state.name == PAUSED else 'pauses after its current step'}")


def _resume(chosen: argparse.Namespace) -> None:
    from finetune_monitor.record.live import PAUSE, withdraw

    _in_progress(chosen.run_dir)
    print(f"{chosen.run_dir}: {'continues' if withdraw(chosen.run_dir, PAUSE) else 'is not paused'}")


def _in_progress(run_dir: Path) -> "RunState":
    """The state of a run that takes requests.

    Raises:
        UserError: it is no run directory, or takes none.
    """
    from finetune_monitor.record.history import read_run
    from finetune_monitor.record.run_state import state_of

    history = read_run(run_dir)
    state = state_of(history)
    if not state.is_in_progress:
        raise UserError(f"{run_dir}: is not in progress ({state.name}: {state.why}), expected a run in progress")
    if history.is_score:
        raise UserError(f"{run_dir}: is written by `finetune-monitor score`, which takes no requests; use Ctrl-C there")
    return state
