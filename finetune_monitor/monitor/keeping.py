"""Which steps keep their weights: all, the best, those on the Pareto front, or the newest."""

import re
from collections.abc import Collection, Mapping, Sequence

from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.curve import contenders
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.record.pareto import pareto_columns, pareto_contenders

AUTO, ALL, BEST, PARETO = "auto", "all", "best", "pareto"

KEEP_PATTERN = rf"{AUTO}|{ALL}|{BEST}|{PARETO}|last [1-9][0-9]*"


def checked_keep(keep: str) -> str:
    """The same text.

    Raises:
        ValueError: it is none of the choices.
    """
    if not isinstance(keep, str) or not re.fullmatch(KEEP_PATTERN, keep):
        raise ValueError(f"found {keep!r}, expected auto, all, best, pareto, or last N (such as last 3)")
    return keep


def resolved_keep(keep: str, is_lora: bool) -> str:
    """What `auto` means: a LoRA has a few MB, so all are kept; of complete pipelines, the best and the newest."""
    return (ALL if is_lora else BEST) if keep == AUTO else keep


def check_measured(keep: str, columns: Mapping[str, ScoreColumn], best_metric: str) -> None:
    """Check that there are two scores for a Pareto front.

    Raises:
        ValueError: names what is missing.
    """
    if keep == PARETO and pareto_columns(columns, best_metric) is None:
        raise ValueError(
            f"keep: found {PARETO}, but besides {best_metric} no metric has a score with a direction; measure a second "
            f"one, such as aesthetic, or choose {ALL} or {BEST}"
        )


def steps_to_keep(
    keep: str,
    history: Sequence[Evaluation],
    columns: Mapping[str, ScoreColumn],
    best_metric: str,
    rejectable_from: Collection[int] = (),
) -> set[int]:
    """The steps whose weights are kept after the last evaluation; always those that are or may become the best.

    Args:
        keep: a choice other than `auto`.
        rejectable_from: the first step that each guard may reject with the next evaluation.
    """
    steps = [evaluation.step for evaluation in history]
    higher = columns.get(best_metric, ScoreColumn()).more_is_better
    kept = set(contenders(history, best_metric, higher, rejectable_from))
    if keep == ALL:
        kept.update(steps)
    elif keep == PARETO:
        kept.update(pareto_contenders(history, columns, best_metric, rejectable_from))
    elif keep != BEST:
        kept.update(steps[-newest_count(keep) :])
    return kept


def newest_count(keep: str) -> int:
    """The number in `last N`."""
    return int(keep.split()[1])


def most_kept(keep: str, evaluations: int) -> int:
    """The largest number of steps kept at a time in a run with so many evaluations after step 0."""
    if keep in (ALL, PARETO):
        return evaluations
    return min(evaluations, 1 + (1 if keep == BEST else newest_count(keep)))
