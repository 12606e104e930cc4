"""What the monitor prints while it runs: the lines of an evaluation, and what monitoring will cost."""

import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence

from finetune_monitor.monitor.budget import Budget
from finetune_monitor.record.alarms import alarms_by_column, without_advice
from finetune_monitor.record.columns import SIDE, ScoreColumn
from finetune_monitor.record.curve import resolution, way_in_words, ways
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.sinks.console import scores_in_words
from finetune_monitor.stats.estimate import Estimate

SOLID = "\0"
"""A space at which no line is broken."""

LOG_WIDTH = 120
"""Characters per line if the output is not a terminal."""


def evaluation_lines(
    history: Sequence[Evaluation],
    columns: Mapping[str, ScoreColumn],
    ceilings: Mapping[str, Estimate],
    best_metric: str,
    spent: float,
    waited: float,
) -> Iterator[str]:
    """The last evaluation's scores, that of the best metric first, its cost, its alarms, and whether training stops.

    Args:
        spent: seconds that the evaluation took, with sinks.
        waited: seconds of training before it.
    """
    last = history[-1]
    start = f"step {last.step}: "
    first = [*_in_words(last, columns, lambda metric: metric == best_metric)]
    reached = ways(history, last.step, ceilings)
    first += [f"{way_in_words(reached[best_metric])}"] if best_metric in reached else []
    share = f", {100 * spent / (spent + waited):.0f}% of the time since the last one" if len(history) > 1 else ""
    others = [*_in_words(last, columns, lambda metric: metric != best_metric), f"evaluated in {spent:.1f} s{share}"]
    yield from _wrapped(start, first)
    yield from _wrapped(" " * len(start), others)
    before = history[-2].alarms if len(history) > 1 else ()
    for name, alarm in alarms_by_column(last, columns).items():
        again = name in before
        yield f"{start}ALARM{' again' if again else ''}: {without_advice(alarm, columns[name]) if again else alarm}"
    if last.decision.stop:
        yield f"{start}stopping, {last.decision.why}"


def _in_words(
    evaluation: Evaluation, columns: Mapping[str, ScoreColumn], chooses: Callable[[str], bool]
) -> Iterator[str]:
    """The main scores that are chosen, each with its stars; the side columns are in the record."""
    main = {name: score for name, score in evaluation.scores.items() if columns.get(name, SIDE).is_main}
    for name in main:
        graded = columns[name].of
        if not graded and chooses(name):
            yield scores_in_words({each: main[each] for each in main if name in (each, columns[each].of)}, columns)


def _wrapped(start: str, parts: Sequence[str]) -> list[str]:
    """The parts, separated by commas, in lines as wide as the terminal; later lines are indented, no part is broken."""
    if not parts:
        return []
    width = shutil.get_terminal_size((LOG_WIDTH, 0)).columns
    whole = ", ".join(part.replace(" ", SOLID) for part in parts)
    lines = textwrap.wrap(whole, max(40, width - len(start)), break_long_words=False, break_on_hyphens=False)
    indents = [start, *[" " * len(start)] * len(lines)]
    return [indent + line.replace(SOLID, " ") for indent, line in zip(indents, lines, strict=False)]


def forecast(budget: Budget, history: Sequence[Evaluation], metric: str, seconds_a_step: float) -> str:
    """A sentence about the cost of monitoring, at this training speed, and the smallest change it can detect."""
    steps = budget.interval(seconds_a_step) if budget.warm else budget.every
    share = 100 * budget.share(steps, seconds_a_step)
    stretched = "" if steps == budget.every else f" (not every {budget.every}: max_overhead)"
    cost = f"about {budget.cost:.1f} s{'' if budget.warm else ' or less'}"
    shows = resolution(history, metric)
    told = f"; {metric}: {shows}" if shows is not None else ""
    return f"evaluation: {cost}, every {steps} steps{stretched}, {share:.1f}% of the time{told}"
