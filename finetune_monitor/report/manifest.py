"""The data of a page: the manifest, which it loads first, and the images' scores, which it loads on demand."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from finetune_monitor.base.text import caption, first_line
from finetune_monitor.record.alarms import alarms_by_column, levels_of, side_of_alarm
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.curve import points, smoothed
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.record.pareto import pareto_front
from finetune_monitor.record.sweep_directory import TrialState
from finetune_monitor.report.comparability import comparability
from finetune_monitor.report.page_runs import PageRun, Unreadable, photo_count
from finetune_monitor.report.thumbnails import Presence, Presences
from finetune_monitor.stats.estimate import MISSING, Estimate
from finetune_monitor.stats.intervals import WHAT_THEY_KNOW

FORMAT = 1

NOT_TRAINED = ("output_dir", "monitor.")
"""Settings, or prefixes of settings, that do not affect training."""


@dataclass(frozen=True)
class RunFiles:
    """A run's files in the page's folder, as paths relative to it.

    photos: one thumbnail per reference photo; None for those that are gone.
    sheet: the contact sheet of the training photos, if there is one.
    way: from the page's folder to the run directory.
    """

    photos: Sequence[str | None]
    sheet: str | None
    way: str


def manifest(
    runs: Sequence[PageRun],
    unreadable: Sequence[Unreadable],
    presences: Mapping[str, Presences],
    files: Mapping[str, RunFiles],
    sweep: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Everything that a page shows before images are loaded.

    Args:
        presences: by run id, as in `ThumbnailPlan.presences`.
        files: by run id.
        sweep: its trials name run directories as `folder`; the id of their `run` is added here.
    """
    cells = list(dict.fromkeys(key for run in runs for key in cell_keys(run)))
    positions = {key: index for index, key in enumerate(cells)}
    settings = differing_settings(runs)
    return {
        "format": FORMAT,
        "written": now(),
        "title": _title(runs, sweep),
        "live": _goes_on(runs, sweep),
        "metrics": metrics(runs),
        "cells": [_cell(*key) for key in cells],
        "notes": comparability(runs),
        "intervals": WHAT_THEY_KNOW,
        "unreadable": [{"folder": str(found.folder), "problem": found.problem} for found in unreadable],
        "runs": [
            {
                **_run(run, presences[run.id], files[run.id]),
                **_as_trial(run, sweep),
                "settings": settings[run.id],
                "cells": [positions[key] for key in cell_keys(run)],
            }
            for run in runs
        ],
        "sweep": None if sweep is None else _with_ids(sweep, runs),
    }


def _run(run: PageRun, presences: Presences, files: RunFiles) -> dict[str, Any]:
    """What the page knows of a run by itself."""
    return {
        **_facts(run, presences),
        "way": files.way,
        "references": _references(run, files.photos),
        "sheet": files.sheet,
        "survey": _survey(run),
        "nearest": [_nearest(run, name) for name in run.nearest],
        "alarms": _alarms(run),
        "weights": _weights(run),
        "reproducible": run.reproducible,
        "training": _training(run),
        "pareto": _pareto(run),
        **_curves(run),
    }


def on_demand(run: PageRun, presences: Presences, at_full_quality: Presences) -> dict[str, Any]:
    """What the page loads for a run that it shows: the scores of its images, and what it was made with.

    Args:
        at_full_quality: the presences of the images that were rendered at full quality, too.
    """
    full = {found.step: _full_quality(run, found, at_full_quality[found.step]) for found in run.full_quality}
    return {**scores_by_image(run, presences), "full": full, "about": run.about}


def _full_quality(run: PageRun, evaluation: Evaluation, presences: Sequence[Presence]) -> dict[str, Any]:
    """The means of a step at full quality, how it was sampled, and the positions of the cells without an image."""
    means = {name: asdict(found) for name, found in evaluation.scores.items() if run.columns[name].is_main}
    absent = [position for position, found in enumerate(presences) if found is not Presence.SHOWN]
    return {"sampling": run.full_sampling, "scores": means, "absent": absent}


def scores_by_image(run: PageRun, presences: Presences) -> dict[str, Any]:
    """One value per cell and step, None if there is none, and the positions of the cells without an image."""
    names = [*columns(run), *run.nearest]
    scores = {name: [_row(run, evaluation, name) for evaluation in run.evaluations] for name in names}
    absent = [
        [position for position, found in enumerate(presences[evaluation.step]) if found is not Presence.SHOWN]
        for evaluation in run.evaluations
    ]
    return {"scores": scores, "absent": absent}


def columns(run: PageRun) -> list[str]:
    """The names of all columns for which a run has scores or that are shown as metrics, metrics first."""
    main = [name for name, column in run.columns.items() if column.is_main]
    return list(dict.fromkeys([*main, *(name for found in run.evaluations for name in found.scores)]))


def cell_keys(run: PageRun) -> list[tuple[str, str, int, str]]:
    """Keys that identify the same cell in different runs."""
    return [(cell.prompt, cell.negative_prompt, cell.seed, run.sampling) for cell in run.cells]


def _cell(prompt: str, negative_prompt: str, seed: int, sampling: str) -> dict[str, Any]:
    texts = {"prompt": caption(prompt), "negative_prompt": caption(negative_prompt)}
    return {**texts, "seed": seed, "sampling": sampling}


def metrics(runs: Sequence[PageRun]) -> list[dict[str, Any]]:
    """The page's description of every column, side columns last; if runs disagree, the first one counts."""
    known = {name: column for run in reversed(runs) for name, column in run.columns.items()}
    names = dict.fromkeys(name for run in runs for name in columns(run))
    return [_column(name, known[name]) for name in sorted(names, key=lambda name: not known[name].is_main)]


def _column(name: str, column: ScoreColumn) -> dict[str, Any]:
    return {
        "name": name,
        "higher_is_better": column.higher_is_better,
        "bounds": column.bounds if column.is_main else None,
        "main": column.is_main,
        "zero": column.zero,
        "unit": column.unit_in_words,
        "is_share": column.is_share,
        "is_stars": column.role == "stars",
        "over": column.over,
    }


def differing_settings(runs: Sequence[PageRun]) -> dict[str, dict[str, Any]]:
    """By run id, the settings that differ among the runs that recorded any."""
    known = [run for run in runs if run.hparams]
    keys = dict.fromkeys(key for run in known for key in run.hparams if not key.startswith(NOT_TRAINED))
    differing = [key for key in keys if len({repr(run.hparams.get(key)) for run in known}) > 1]
    return {run.id: {key: run.hparams.get(key) if run.hparams else "unknown" for key in differing} for run in runs}


def image_problems(presences: Presences) -> list[str]:
    """The problems with images, with consecutive steps grouped."""
    steps: dict[str, list[int]] = {}
    for step, found in presences.items():
        for presence in Presence:
            if presence is not Presence.SHOWN and presence in found:
                words = f"{found.count(presence)} of {len(found)} images {presence.value}"
                steps.setdefault(words, []).append(step)
    return [f"{_steps(which)}: {words}" for words, which in steps.items()]


def _steps(which: Sequence[int]) -> str:
    return f"step {which[0]}" if len(which) == 1 else f"{len(which)} steps from {which[0]} to {which[-1]}"


def now() -> str:
    """The time in UTC, by which a page notices that it was written again."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _title(runs: Sequence[PageRun], sweep: Mapping[str, Any] | None) -> str:
    if sweep is not None:
        return str(sweep["name"])
    return str(runs[0].folder) if len(runs) == 1 else f"{len(runs)} runs"


def _facts(run: PageRun, presences: Presences) -> dict[str, Any]:
    ending = run.ending
    return {
        "id": run.id,
        "name": run.name,
        "folder": str(run.folder),
        "state": "ended" if ending.ended else "running",
        "last_step": ending.step,
        "reason": ending.reason,
        "why": ending.why,
        "best": {"metric": ending.best_metric, "step": ending.best_step, "score": ending.best_score},
        "verdict": run.verdict,
        "model": run.model,
        "notices": run.notices,
        "problems": [*run.problems, *image_problems(presences)],
        "photos": photo_count(run),
        "scales": run.scales,
        "ceilings": {
            name: {"mean": found.mean, "low": found.low, "high": found.high}
            for name, found in run.ceilings.items()
            if not math.isnan(found.mean)
        },
    }


def _goes_on(runs: Sequence[PageRun], sweep: Mapping[str, Any] | None) -> bool:
    if sweep is None:
        return not all(run.ending.ended for run in runs)
    return any(TrialState(trial["state"]).is_open for trial in sweep["trials"])


def _as_trial(run: PageRun, sweep: Mapping[str, Any] | None) -> dict[str, Any]:
    """How a run that is a trial of a sweep ended, if the sweep has more information than the run."""
    trials = {trial["folder"]: trial for trial in sweep["trials"]} if sweep else {}
    trial = trials.get(str(run.folder), {"state": None})
    if trial["state"] == TrialState.FAILED:
        return {"state": "ended", "why": f"it failed: {first_line(trial['error'] or 'unknown reason')}"}
    if trial["state"] == TrialState.STOPPED_EARLY:
        return {"state": "ended", "why": "the sweep stopped it early because others were better at the same step"}
    return {}


def _references(run: PageRun, thumbnails: Sequence[str | None]) -> list[dict[str, Any]]:
    return [
        {"kind": reference.kind, "name": Path(reference.file).name, "thumbnail": thumbnail}
        for reference, thumbnail in zip(run.references, thumbnails, strict=True)
    ]


def _nearest(run: PageRun, name: str) -> dict[str, Any]:
    """A column that names a photo for each image: the similarity column, and the alarm for such pairs."""
    column = run.columns[name]
    own = [other for other in levels_of(run.columns) if other == column.of]
    return {"column": name, "likeness": column.likeness, "references": run.nearest[name], "alarms": own}


def _alarms(run: PageRun) -> dict[str, dict[str, Any]]:
    """By column, its alarm level, the side on which the alarm sounds, its meaning, and its text where it sounds."""
    said = {found.step: alarms_by_column(found, run.columns) for found in run.evaluations}
    return {
        name: {
            "level": level,
            "side": side_of_alarm(run.columns[name]),
            "says": run.columns[name].says,
            "sounds": {step: words[name] for step, words in said.items() if name in words},
        }
        for name, level in levels_of(run.columns).items()
    }


def _weights(run: PageRun) -> dict[int, dict[str, Any]]:
    """By step, where in the run directory its weights are, and the same for ComfyUI and others."""

    def below(path: Path | None) -> str | None:
        return None if path is None else path.relative_to(run.folder).as_posix()

    return {
        step: {"place": below(found.place), "lora": found.is_lora, "kohya": below(found.kohya_file)}
        for step, found in run.weights.items()
    }


def _training(run: PageRun) -> dict[str, list[float]] | None:
    """The curves of loss and learning rate; None if there are none."""
    if not run.training:
        return None
    return {name: [getattr(row, name) for row in run.training] for name in ("step", "loss", "learning_rate")}


def _survey(run: PageRun) -> dict[str, Any] | None:
    """What was found out about the training photos; None if nobody has looked."""
    if run.survey is None:
        return None
    photos = [
        {"name": photo.name, "similarity": photo.similarity, "outlier": photo.is_outlier, "marks": photo.marks}
        for photo in run.survey.photos
    ]
    return {"photos": photos, "warnings": run.survey.warnings}


def _pareto(run: PageRun) -> dict[str, Any] | None:
    front = pareto_front(run.evaluations, run.columns, run.ending.best_metric or "")
    if front is None:
        return None
    return {
        "columns": front.columns,
        "points": [[step, *pair] for step, pair in front.points.items()],
        "steps": front.steps,
    }


def _curves(run: PageRun) -> dict[str, Any]:
    return {
        "ids": [cell.id for cell in run.cells],
        "probes": [position for position, cell in enumerate(run.cells) if cell.is_probe],
        "steps": [found.step for found in run.evaluations],
        "epochs": _epochs(run.evaluations),
        "scores": {name: _curve([found.scores.get(name) for found in run.evaluations]) for name in columns(run)},
        "smoothed": {name: _smoothed(run, name) for name, column in run.columns.items() if column.is_main},
    }


def _smoothed(run: PageRun, name: str) -> list[float | None]:
    """The curve that determines the best step; None for evaluations that do not count."""
    found = points(run.evaluations, name)
    by_step = dict(zip((point.step for point in found), smoothed(found), strict=True))
    return [by_step.get(evaluation.step) for evaluation in run.evaluations]


def _epochs(evaluations: Sequence[Evaluation]) -> list[float | None]:
    """The epochs, None if unknown; step 0 is epoch 0 if any epoch is known."""
    epochs = [float(found.epoch) if isinstance(found.epoch, (int, float)) else None for found in evaluations]
    if any(epoch is not None for epoch in epochs):
        return [0.0 if found.step == 0 else epoch for found, epoch in zip(evaluations, epochs, strict=True)]
    return epochs


def _curve(estimates: Sequence[Estimate | None]) -> dict[str, list[float | int | None]]:
    keys = ("mean", "low", "high", "n", "missing")
    return {key: [None if found is None else getattr(found, key) for found in estimates] for key in keys}


def _row(run: PageRun, evaluation: Evaluation, name: str) -> list[float]:
    found = [evaluation.by_cell.get(cell.id) for cell in run.cells]
    return [MISSING if image is None else image.scores.get(name, MISSING) for image in found]


def _with_ids(sweep: Mapping[str, Any], runs: Sequence[PageRun]) -> dict[str, Any]:
    ids = {str(run.folder): run.id for run in runs}
    trials = [
        {"run": ids.get(trial["folder"]), **{key: value for key, value in trial.items() if key != "folder"}}
        for trial in sweep["trials"]
    ]
    return {**sweep, "trials": trials}
