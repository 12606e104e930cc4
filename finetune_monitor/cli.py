"""The command `finetune-monitor`; each subcommand is a file in commands/."""

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from finetune_monitor.base.errors import UserError, disk_problem
from finetune_monitor.base.interrupts import end_quietly, interruptible_work
from finetune_monitor.base.output import output_may_be_closed, print_any_text
from finetune_monitor.base.version import __version__
from finetune_monitor.base.warnings_in_words import plain_warnings
from finetune_monitor.commands.aesthetic import add_aesthetic
from finetune_monitor.commands.agree import add_agree
from finetune_monitor.commands.compare import add_compare
from finetune_monitor.commands.config import add_config
from finetune_monitor.commands.demo import add_demo
from finetune_monitor.commands.export import add_export
from finetune_monitor.commands.label import add_label
from finetune_monitor.commands.photos import add_photos
from finetune_monitor.commands.purge import add_purge
from finetune_monitor.commands.push import add_push
from finetune_monitor.commands.render import add_render
from finetune_monitor.commands.report import add_report
from finetune_monitor.commands.score import add_score
from finetune_monitor.commands.steer import add_steering
from finetune_monitor.commands.sweep import add_sweep
from finetune_monitor.commands.train import add_train
from finetune_monitor.commands.watch import add_watch

UNREAD = 128 + signal.SIGPIPE
"""The exit status, as in shells, if the reader of the output is gone before a command that can be continued is done."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, 2 for a problem that the user can fix."""
    print_any_text()
    chosen = make_parser().parse_args(arguments)
    status = UNREAD if chosen.kept else None
    try:
        with plain_warnings(), interruptible_work(), output_may_be_closed():
            status = chosen.run(chosen)
    except UserError as error:
        print(f"finetune-monitor: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if (problem := disk_problem(error)) is None:
            raise
        print(f"finetune-monitor: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"finetune-monitor: interrupted{chosen.kept}", file=sys.stderr)
        return 130
    if status == UNREAD:
        with suppress(OSError):  # errors may have had the same reader
            print(f"finetune-monitor: ended, because the reader of its output is gone{chosen.kept}", file=sys.stderr)
    return status or 0


@cache
def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        "finetune-monitor",
        description="Train, inspect runs, score files of other trainers, fit aesthetic heads, and compare scores with "
        "people's ratings.",
    )
    parser.set_defaults(kept="")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    show = commands.add_parser("show", help="print a run's scores, its best step, and why it ended")
    show.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the run's output_dir, even while it is running")
    show.add_argument("--all", action="store_true", dest="everything", help="print every evaluation, one per line")
    show.set_defaults(run=_show)
    add_config(commands)
    add_train(commands)
    add_demo(commands)
    add_watch(commands)
    add_steering(commands)
    add_photos(commands)
    add_aesthetic(commands)
    add_label(commands)
    add_agree(commands)
    add_compare(commands)
    add_render(commands)
    add_report(commands)
    add_score(commands)
    add_export(commands)
    add_push(commands)
    add_purge(commands)
    add_sweep(commands)
    return parser


def _show(chosen: argparse.Namespace) -> None:
    from finetune_monitor.record.history import read_run
    from finetune_monitor.sinks.console import print_summary

    print_summary(read_run(chosen.run_dir), everything=chosen.everything)


if __name__ == "__main__":
    end_quietly()
    sys.exit(main())
