"""What the monitor prints while it runs: the line of an evaluation, and what monitoring will cost."""

from collections.abc import Iterator, Mapping, Sequence

from finetune_monitor.monitor.budget import Budget
from finetune_monitor.record.alarms import alarms_of
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.curve import resolution, way_in_words, ways
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.sinks.console import scores_in_words, shown_scores
from finetune_monitor.stats.estimate import Estimate


def evaluation_lines(
    history: Sequence[Evaluation],
    columns: Mapping[str, ScoreColumn],
    ceilings: Mapping[str, Estimate],
    spent: float,
    waited: float,
) -> Iterator[str]:
    """The last evaluation's scores, its cost, its alarms, and whether training stops.

    Args:
        spent: seconds that the evaluation took, with sinks.
        waited: seconds of training before it.
    """
    last = history[-1]
    share = f", {100 * spent / (spent + waited):.0f}% of the time since the last one" if last.step else ""
    reached = ways(history, last.step, ceilings)
    far = "".join(f", {name}: {way_in_words(found)}" for name, found in reached.items())
    scores = scores_in_words(shown_scores(last.scores, columns), columns)
    yield f"step {last.step}: {scores}{far} ({spent:.1f} s{share})"
    for alarm in alarms_of(last, columns):
        yield f"step {last.step}: ALARM: {alarm}"
    if last.decision.stop:
        yield f"step {last.step}: stopping, {last.decision.why}"


def forecast(budget: Budget, history: Sequence[Evaluation], metric: str, seconds_a_step: float) -> str:
    """A sentence about the cost of monitoring, at this training speed, and the smallest change it can detect."""
    steps = budget.interval(seconds_a_step) if budget.warm else budget.every
    share = 100 * budget.share(steps, seconds_a_step)
    stretched = "" if steps == budget.every else f" (not every {budget.every}: max_overhead)"
    cost = f"about {budget.cost:.1f} s{'' if budget.warm else ' or less'}"
    shows = resolution(history, metric)
    told = f"; {metric}: {shows}" if shows is not None else ""
    return f"evaluation: {cost}, every {steps} steps{stretched}, {share:.1f}% of the time{told}"
