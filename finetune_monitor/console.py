"""The closing table: every evaluation, the best step, why the run ended, and where to look."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from finetune_monitor.evaluation import Estimate, StopReason
from finetune_monitor.record import RunHistory

REASONS = {
    StopReason.PATIENCE: "the score stopped improving",
    StopReason.NEVER_MEASURED: "the score could not be measured in any evaluation (no face found?)",
    StopReason.MAX_STEPS: "the last step was reached",
    StopReason.NOT_FINITE: "the loss was no longer a finite number; the last checkpoint before is kept",
    StopReason.INTERRUPTED: "it was interrupted; run the same command to resume",
}


def print_summary(history: RunHistory, console: Console | None = None) -> None:
    """Print the table and the hints.

    On a terminal too narrow for one line an evaluation, the intervals go on a line of their own; elsewhere lines are
    as long as they must be.
    """
    console = console or Console()
    table = _table(history, " ")
    needed = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    if needed > console.width and console.is_terminal:
        table = _table(history, "\n")
    elif needed > console.width:
        console = Console(file=console.file, width=needed)
    console.print(f"{escape(str(history.output_dir))}: mean \\[95 % interval]", soft_wrap=True, highlight=False)
    for notice in history.notices:
        console.print(f"[bold yellow]{escape(notice)}[/]", soft_wrap=True)
    console.print(table)
    for line in _closing_lines(history):
        console.print(escape(line), soft_wrap=True, highlight=False)


def _table(history: RunHistory, gap: str) -> Table:
    metrics = history.run.get("metrics", {})
    names = list(dict.fromkeys(name for evaluation in history.evaluations for name in evaluation.scores))
    table = Table()
    table.add_column("step", justify="right", no_wrap=True)
    for name in names:
        table.add_column(name.replace("_", " "), justify="right", no_wrap=name in metrics)
    table.add_column("", no_wrap=True)
    best = _best_step(history)
    for evaluation in history.evaluations:
        found = [_score(evaluation.scores.get(name), name in metrics, gap) for name in names]
        marks = [mark for mark, step in (("floor", 0), ("best", best)) if evaluation.step == step]
        style = "bold green" if evaluation.step == best else None
        table.add_row(str(evaluation.step), *found, ", ".join(marks), style=style)
    _add_ceiling(table, history, names, gap)
    return table


def _add_ceiling(table: Table, history: RunHistory, names: Sequence[str], gap: str) -> None:
    """The real photos against each other: what the scores can hope for."""
    if history.ceilings:
        table.add_section()
        found = [_score(history.ceilings.get(name), True, gap) for name in names]
        table.add_row("photos", *found, "ceiling", style="dim")


def _score(estimate: Estimate | None, interval: bool, gap: str) -> str:
    if estimate is None or math.isnan(estimate.mean):
        return "-"
    if not interval or math.isnan(estimate.low):
        return f"{estimate.mean:.3f}"
    return f"{estimate.mean:.3f}{gap}\\[{estimate.low:.3f}, {estimate.high:.3f}]"


def _best_step(history: RunHistory) -> int | None:
    if "ended" in history.run:
        return history.run["ended"]["best_step"]
    return history.evaluations[-1].decision.best_step if history.evaluations else None


def _closing_lines(history: RunHistory) -> list[str]:
    folder = history.output_dir
    tensorboard = f"tensorboard --logdir {folder / 'tensorboard'}"
    lines = [_end(history), _best(history)]
    if (folder / "tensorboard").is_dir():
        # TensorBoard keeps ten pictures a tag unless it is told otherwise.
        lines.append(f"curves and pictures: {tensorboard} --samples_per_plugin images=1000")
    if list((folder / "wandb").glob("offline-run-*")):
        lines.append(f"send to W&B:         wandb sync {folder / 'wandb' / 'offline-run-*'}")
    if (folder / "best").is_dir():
        lines.append(f"best weights:        {folder / 'best'}")
    return lines


def _end(history: RunHistory) -> str:
    if "ended" not in history.run:
        return "why it ended:        not recorded: it is running, or was killed"
    reason = history.run["ended"]["reason"]
    return f"why it ended:        {REASONS[StopReason(reason)] if reason else 'the training loop ended'}"


def _best(history: RunHistory) -> str:
    step, metric = _best_step(history), history.run.get("best_metric", "the first metric")
    return f"best step:           {f'{step}, by {metric}' if step is not None else 'none: nothing was measured'}"
