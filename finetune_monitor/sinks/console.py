"""Terminal output: the scores in words, and the final table with the best step and where to find the results."""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from finetune_monitor.base.text import counted, some_of, spoken, visible
from finetune_monitor.record.columns import SIDE, ScoreColumn, stars_by_score
from finetune_monitor.record.curve import resolution
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.record.history import RunHistory
from finetune_monitor.record.kept_weights import BEST, kept_weights, step_of
from finetune_monitor.record.pareto import pareto_front
from finetune_monitor.record.verdict import verdict
from finetune_monitor.stats.estimate import NO_ESTIMATE, Estimate, shown, shown_value
from finetune_monitor.stats.intervals import WHAT_THEY_KNOW

STARS_FORM = ".2f"

MOST_ROWS, LAST_ROWS = 60, 20
"""Of a table of evaluations, and how many of them are the last ones."""

LOG_WIDTH = 80
"""Characters per line of the table if the output is not a terminal."""

TENSORBOARD = "tensorboard"
"""The folder of TensorBoard's files in the run directory."""


def scores_in_words(scores: Mapping[str, Estimate], columns: Mapping[str, ScoreColumn]) -> str:
    """Each mean with its interval, followed by its stars if it has any."""
    stars = stars_by_score(columns)
    names = [name for name in scores if name not in stars.values()]
    return ", ".join(f"{name} {_in_words(scores[name], scores.get(stars.get(name, '')))}" for name in names)


def shown_scores(scores: Mapping[str, Estimate], columns: Mapping[str, ScoreColumn]) -> dict[str, Estimate]:
    """The scores that a line or a table shows: all except side columns without a direction."""
    known = {name: columns.get(name, SIDE) for name in scores}
    return {name: score for name, score in scores.items() if not _only_explains(known[name])}


def _only_explains(column: ScoreColumn) -> bool:
    """Whether a column only explains another; one without a description does not, as its meaning is unknown."""
    return column.role == "side" and column.higher_is_better is None and math.isfinite(column.bounds[0])


def _in_words(estimate: Estimate, stars: Estimate | None) -> str:
    """A mean with its interval, plus the number of measured images if some are missing."""
    if not estimate.n:
        return "not measured"
    share = f" ({estimate.n} of {estimate.n + estimate.missing} images)" if estimate.missing else ""
    graded = f" = {shown(stars, STARS_FORM)} stars" if stars is not None and stars.n else ""
    return shown(estimate) + graded + share


def print_summary(history: RunHistory, console: Console | None = None, everything: bool = False) -> None:
    """Print the final table, the verdict, and where to find the results.

    Of many evaluations, the table has about `MOST_ROWS`; with `everything`, each has a line with all scores, and there
    is no table. If the terminal, or a log of `LOG_WIDTH` characters, is too narrow for one line per evaluation,
    intervals and stars get their own lines; if that does not fit either, the table has only the most important scores.
    """
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=LOG_WIDTH)
    console.print(f"{escape(str(history.output_dir))}: mean \\[95% interval]", soft_wrap=True, highlight=False)
    for notice in history.notices:
        console.print(f"[bold yellow]{escape(notice)}[/]", soft_wrap=True)
    if everything:
        _print_lines(history, console)
    else:
        shown = replace(history, evaluations=some_evaluations(history))
        names = _print_table(shown, console)
        if left_out := list(_left_out(history, shown, names)):
            command = f"finetune-monitor show --all {shlex.quote(str(history.output_dir))}"
            said = f"Not in the table: {' and '.join(left_out)}; print all with {command}"
            console.print(escape(said), soft_wrap=True, highlight=False)
    if history.evaluations:
        console.print(escape(WHAT_THEY_KNOW), soft_wrap=True, highlight=False)
    for sentence in verdict(history).sentences:
        console.print(escape(sentence), soft_wrap=not console.is_terminal, highlight=False, style="bold")
    for line in _closing_lines(history):
        console.print(escape(line), soft_wrap=True, highlight=False)


def some_evaluations(history: RunHistory) -> tuple[Evaluation, ...]:
    """The evaluations of the table: all, or the first, the best, the last ones, and others at equal distances."""
    every = history.evaluations
    if len(every) <= MOST_ROWS:
        return every
    early = len(every) - LAST_ROWS
    spread = {early * index // (MOST_ROWS - LAST_ROWS - 1) for index in range(MOST_ROWS - LAST_ROWS - 1)}
    best = history.best_step
    return tuple(each for index, each in enumerate(every) if index in spread or index >= early or each.step == best)


def _print_lines(history: RunHistory, console: Console) -> None:
    """Print every evaluation on a line of its own, one after the other."""
    names = list(
        dict.fromkeys(name for each in history.evaluations for name in shown_scores(each.scores, history.columns))
    )
    best = history.best_step
    for evaluation in history.evaluations:
        marks = [mark for mark, step in (("floor", 0), ("best", best)) if evaluation.step == step]
        cells = [f"{name} {_cell(evaluation.scores, name, history.columns, narrow=False)}" for name in names]
        console.file.write(visible("  ".join([f"{evaluation.step:>7}", *cells, *marks])) + "\n")


def print_estimates(columns: Sequence[str], rows: Mapping[str, Sequence[Estimate]]) -> None:
    """Print values with their intervals as a table; intervals get their own line if the terminal is too narrow."""
    console = Console()
    wide, narrow = (_estimates_table(columns, rows, gap) for gap in (" ", "\n"))
    needed = width_of(console, wide)
    if not console.is_terminal:
        console = Console(width=needed)  # a log does not limit the width of lines
    console.print(wide if console.width >= needed else narrow)


def _estimates_table(columns: Sequence[str], rows: Mapping[str, Sequence[Estimate]], gap: str) -> Table:
    table = Table("", *(Column(title, justify="right", no_wrap=True) for title in columns))
    for name, found in rows.items():
        table.add_row(escape(name), *(escape(_broken(shown(estimate), gap)) for estimate in found))
    return table


def width_of(console: Console, table: Table) -> int:
    """The width of a table in characters without wrapping."""
    return console.measure(table, options=console.options.update(max_width=10_000)).maximum


def _print_table(history: RunHistory, console: Console) -> Sequence[str]:
    """Print a table with as many scores as fit, and return their names."""
    every = _measured(history)
    for count in range(len(every), 0, -1):
        chosen = set(_by_importance(history, every)[:count])
        names = [name for name in every if name in chosen]
        for narrow in (False, True):
            if _fits(console, table := _table(history, names, narrow)) or (count == 1 and narrow):
                console.print(table)
                return names
    console.print(_table(history, [], narrow=False))
    return []


def _by_importance(history: RunHistory, names: Sequence[str]) -> list[str]:
    """The score that decides, those with an alarm that sounded, the others, and side columns; stars follow theirs."""
    columns, best = history.columns, history.best_metric or ""
    decides = columns[best].of or best if best in columns else best
    sounded = {name for evaluation in history.evaluations for name in evaluation.alarms}

    def rank(name: str) -> tuple[int, int, bool]:
        score = columns[name].of or name
        kind = 0 if score == decides else 1 if score in sounded else 2 if columns[name].is_main else 3
        return kind, names.index(score) if score in names else 0, score != name

    return sorted(names, key=rank)


def _left_out(history: RunHistory, shown: RunHistory, names: Sequence[str]) -> Iterator[str]:
    """What of a run is not in its table."""
    if scores := len(_measured(history)) - len(names):
        yield counted(scores, "score")
    if evaluations := len(history.evaluations) - len(shown.evaluations):
        yield f"{evaluations:,} of {counted(len(history.evaluations), 'evaluation')}"


def _measured(history: RunHistory) -> list[str]:
    """The scores of any evaluation that are shown."""
    found = dict.fromkeys(name for each in history.evaluations for name in each.scores)
    return list(shown_scores(dict.fromkeys(found, NO_ESTIMATE), history.columns))


def _fits(console: Console, table: Table) -> bool:
    return width_of(console, table) <= console.width


def _table(history: RunHistory, measured: Sequence[str], narrow: bool) -> Table:
    columns, stars = history.columns, stars_by_score(history.columns)
    names = [name for name in measured if not (narrow and name in stars.values())]
    table = Table()
    table.add_column("step", justify="right", no_wrap=True)
    for name in names:
        heading = "stars" if name in stars.values() else spoken(name)
        table.add_column(heading, justify="right", no_wrap=columns[name].is_main)
    table.add_column("", no_wrap=True)
    best = history.best_step
    for evaluation in history.evaluations:
        cells = [escape(_cell(evaluation.scores, name, columns, narrow)) for name in names]
        marks = [mark for mark, step in (("floor", 0), ("best", best)) if evaluation.step == step]
        style = "bold green" if evaluation.step == best else None
        table.add_row(str(evaluation.step), *cells, ", ".join(marks), style=style)
    if history.ceilings:
        table.add_section()
        cells = [escape(_cell(history.ceilings, name, columns, narrow)) for name in names]
        table.add_row("photos", *cells, "ceiling", style="dim")
    return table


def _cell(scores: Mapping[str, Estimate], name: str, columns: Mapping[str, ScoreColumn], narrow: bool) -> str:
    """A score; in a narrow table, its interval and stars are below it."""
    estimate, stars = scores.get(name), scores.get(stars_by_score(columns).get(name, ""))
    form, gap = STARS_FORM if columns[name].role == "stars" else ".3f", "\n" if narrow else " "
    if estimate is None or math.isnan(estimate.mean):
        return "-"
    if not columns[name].is_main:
        return shown_value(estimate.mean, form)
    below = (
        f"{gap}{_broken(shown(stars, STARS_FORM, ' stars'), gap)}" if narrow and stars is not None and stars.n else ""
    )
    return _broken(shown(estimate, form), gap) + below


def _broken(text: str, gap: str) -> str:
    """An estimate, with its interval after the gap."""
    return text.replace(" [", f"{gap}[")


def tensorboard_command(output_dir: Path) -> str:
    """The command that shows a run in TensorBoard, which by default keeps only ten images per tag."""
    return f"tensorboard --logdir {shlex.quote(str(output_dir / TENSORBOARD))} --samples_per_plugin images=1000"


def page_of(output_dir: Path) -> Path:
    """The file of the run's page."""
    return output_dir / "page" / "index.html"


def _closing_lines(history: RunHistory) -> list[str]:
    folder, metric = history.output_dir, history.best_metric or ""
    lines = []
    if shows := resolution(history.evaluations, metric):
        lines.append(f"what it can detect:  {metric}: {shows}")
    if (page := page_of(folder)).is_file():
        lines.append(f"page:                {page.resolve().as_uri()}")
    if (folder / TENSORBOARD).is_dir():
        lines.append(f"curves and images:   {tensorboard_command(folder)}")
        lines.append("                     (set Smoothing to 0 there to see the measured values)")
    if list((folder / "wandb").glob("offline-run-*")):
        lines.append(f"send to W&B:         wandb sync {shlex.quote(str(folder / 'wandb'))}/offline-run-*")
    if front := pareto_front(history.evaluations, history.columns, metric):
        lines.append(f"Pareto steps:        {front}")
    if history.best_step and step_of(folder / BEST) == history.best_step:
        lines.append(f"best weights:        {folder / BEST}")
    if kept := kept_weights(folder):
        steps = some_of(list(map(str, kept)))
        lines.append(
            f"weights kept:        {steps}; finetune-monitor export {shlex.quote(str(folder))} --step STEP --to FILE"
        )
    return lines
