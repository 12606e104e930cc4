"""The command `finetune-monitor compare`: what changed between two runs, or between two steps of a run."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_monitor.base.errors import UserError
from finetune_monitor.commands.options import whole_number

if TYPE_CHECKING:
    from rich.table import Table

    from finetune_monitor.record.history import RunHistory
    from finetune_monitor.report.comparison import Comparison, Moment

DIRECTIONS = {True: "higher", False: "lower", None: ""}


def add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `compare`."""
    parser = commands.add_parser("compare", help="print what changed between two runs, or between two steps of a run")
    parser.add_argument("first", type=Path, metavar="RUN", help="a run's output_dir, even while it is running")
    parser.add_argument("second", type=Path, metavar="RUN", help="the run to compare with; may be the same one")
    parser.add_argument(
        "--step",
        type=whole_number,
        nargs="+",
        metavar="S",
        help="one step for both runs, or one for each; default: compare the best steps, then the last steps",
    )
    parser.set_defaults(run=_compare)


def _compare(chosen: argparse.Namespace) -> None:
    from finetune_monitor.record.history import read_run
    from finetune_monitor.report.comparison import WHAT_INTERVALS_KNOW, compare

    first, second = (read_run(folder) for folder in (chosen.first, chosen.second))
    for history in (first, second):
        if not history.evaluations:
            raise UserError(f"{history.output_dir}: has no evaluation yet; wait for the first one")
    for heading, moments in _pairs(first, second, chosen.step).items():
        _print_comparison(heading, compare(*moments))
    print(WHAT_INTERVALS_KNOW)


def _pairs(first: "RunHistory", second: "RunHistory", steps: list[int] | None) -> "dict[str, tuple[Moment, Moment]]":
    """The pairs of evaluations to compare, by heading."""
    from finetune_monitor.report.comparison import at_step

    if steps is not None:
        if len(steps) > 2:
            raise UserError(f"--step: found {len(steps)} steps, expected one for both runs, or one each")
        return {"the requested steps": (at_step(first, steps[0]), at_step(second, steps[-1]))}
    if first.output_dir.resolve() == second.output_dir.resolve():
        raise UserError(f"{first.output_dir}: found twice; choose two of its steps: --step S S")
    found = {}
    best = first.best_step, second.best_step
    metrics = dict.fromkeys((first.best_metric, second.best_metric))
    by = f" (by {' and by '.join(map(str, metrics))})" if len(metrics) > 1 else ""
    if best[0] is not None and best[1] is not None:
        found[f"each run's best step{by}"] = (at_step(first, best[0]), at_step(second, best[1]))
    last = tuple(history.evaluations[-1].step for history in (first, second))
    heading = "each run's last step"
    if best == last:
        found, heading = {}, f"each run's best step{by}, which is its last"
    return {**found, heading: (at_step(first, last[0]), at_step(second, last[1]))}


def _print_comparison(heading: str, found: "Comparison") -> None:
    from rich.console import Console

    from finetune_monitor.base.text import visible
    from finetune_monitor.report.comparison import verdict
    from finetune_monitor.sinks.console import width_of

    print(f"At {visible(heading)}:")
    for name, moment in (("first", found.first), ("second", found.second)):
        evaluation = moment.evaluation
        where = f"{visible(str(moment.history.output_dir))}, step {evaluation.step}"
        print(f"{name + ':':9}{where}: {found.shared} of its {len(evaluation.images)} cells are in both")
        for alarm in moment.alarms:
            print(f"{'':9}ALARM: {visible(alarm)}")
    table, console = _table(found), Console()
    needed = width_of(console, table)
    if not console.is_terminal:  # a log does not limit the width of lines
        console = Console(width=needed)
    console.print(table if needed <= console.width else _table(found, narrow=True))
    for difference in found.differences:
        print(f"{visible(difference.name)}: {verdict(difference)}")
        if difference.caution:
            print(f"note: {visible(difference.name)}: {visible(difference.caution)}")
    if found.caution:
        print(f"note: {found.caution}")
    if found.only_in_one:
        print(f"note: measured in only one of the two: {visible(', '.join(found.only_in_one))}")
    if found.not_of_images:
        print(f"note: not compared, because no image has a score of its own: {visible(', '.join(found.not_of_images))}")
    print()


def _table(found: "Comparison", narrow: bool = False) -> "Table":
    """One row per score; a narrow table leaves out what the sentences below it also say."""
    from rich.markup import escape
    from rich.table import Column, Table

    from finetune_monitor.base.text import visible
    from finetune_monitor.stats.estimate import shown, shown_value

    titles = ["first", "second", "second - first", *([] if narrow else ["images", "better"])]
    table = Table(Column("", overflow="fold", min_width=10), *(Column(title, justify="right") for title in titles))
    for each in found.differences:
        cells = [visible(each.name), shown_value(each.first), shown_value(each.second), shown(each.change)]
        counts = [f"{each.change.n} of {each.change.n + each.change.missing}", DIRECTIONS[each.higher_is_better]]
        table.add_row(*(escape(cell) for cell in (cells if narrow else cells + counts)))
    return table
