"""Whether runs on one page can be compared, in sentences."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from finetune_monitor.record.grid import MAY_DIFFER, SAMPLED_ELSEWHERE
from finetune_monitor.report.page_runs import USED, PageRun

RUNS_NAMED = 3
"""How many runs a sentence names at most."""


def comparability(runs: Sequence[PageRun]) -> list[str]:
    """Sentences for the reader of a page with several runs; none if they are fully comparable."""
    if len(runs) < 2:
        return []
    elsewhere = [run for run in runs if run.sampling == SAMPLED_ELSEWHERE]
    return [*_grids(runs), *([MAY_DIFFER] if len(elsewhere) > 1 else []), *_models(runs), *_metrics(runs)]


def _grids(runs: Sequence[PageRun]) -> list[str]:
    cells = [{(cell.prompt, cell.negative_prompt, cell.seed, run.sampling) for cell in run.cells} for run in runs]
    shared, every = set.intersection(*cells), set.union(*cells)
    if len(shared) == len(every):
        return []
    means = "their means are over different images"
    if not shared:
        return [f"the runs have different grids: none of the {len(every)} cells are in all of them, so {means}"]
    found = f"{len(shared)} of {len(every)} cells are in all of them"
    return [f"the runs have different grids: {found}; images are compared on shared cells, but {means}"]


def _models(runs: Sequence[PageRun]) -> list[str]:
    groups = _grouped(runs, lambda run: run.model or "an unknown model")
    return [f"the runs start from different models: {_listed(groups)}"] if len(groups) > 1 else []


def _metrics(runs: Sequence[PageRun]) -> list[str]:
    notes = []
    for metric in dict.fromkeys(name for run in runs for name, column in run.columns.items() if column.is_main):
        having = [run for run in runs if metric in run.columns]
        if len(having) < len(runs):
            notes.append(f"{metric} was measured in {len(having)} of {len(runs)} runs: {_names(having)}")
        groups = _grouped(having, partial(_measured_with, metric))
        if len(groups) > 1:
            notes.append(
                f"scores of {metric} are not comparable between runs because they differ in: {_listed(groups)}"
            )
    photos = {frozenset(found.sha256 for found in run.references if found.kind == USED) for run in runs}
    if len(photos - {frozenset()}) > 1:  # a run without photos is compared with none
        notes.append("the runs have different reference photos: each run's images are compared with its own photos")
    return notes


def _measured_with(metric: str, run: PageRun) -> str:
    """A metric's models, direction, and bounds in words."""
    column = run.columns[metric]
    direction = {True: "higher is better", False: "lower is better", None: "no direction"}[column.higher_is_better]
    models = [_model(key, found) for key, found in run.measured_with.get(metric, {}).items()]
    return ", ".join([*models, direction, f"from {column.bounds[0]:g} to {column.bounds[1]:g}"])


def _model(key: str, found: Any) -> str:
    if isinstance(found, Mapping) and "id" in found:
        digest = f" ({str(found['sha256'])[:8]})" if found.get("sha256") else ""
        return f"{key} {found['id']}{digest}"
    return f"{key} {found if isinstance(found, str) else json.dumps(found)}"


def _grouped(runs: Sequence[PageRun], key: Callable[[PageRun], str]) -> dict[str, list[PageRun]]:
    groups: dict[str, list[PageRun]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def _listed(groups: Mapping[str, Sequence[PageRun]]) -> str:
    return "; ".join(f"{words} ({_names(runs)})" for words, runs in groups.items())


def _names(runs: Sequence[PageRun]) -> str:
    named = ", ".join(run.name for run in runs[:RUNS_NAMED])
    return named if len(runs) <= RUNS_NAMED else f"{named} and {len(runs) - RUNS_NAMED} more"
