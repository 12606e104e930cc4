"""Write the agreement report: a page, its tables as Markdown, all numbers, and all predictions."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from finetune_monitor.base.csv_files import csv_text
from finetune_monitor.base.files import write_atomic
from finetune_monitor.base.text import encoded
from finetune_monitor.metrics.thresholds import buckets_json
from finetune_monitor.stats.estimate import MISSING, Estimate, json_number
from finetune_monitor.studies.agreement.alternative import AlternativeTest
from finetune_monitor.studies.agreement.label_matrix import Labeler
from finetune_monitor.studies.agreement.study import ReportSection, Seat, StatisticTable
from finetune_monitor.studies.agreement_report import html, markdown
from finetune_monitor.studies.agreement_report.examples import seat_stars
from finetune_monitor.studies.agreement_report.verdicts import verdict

REPORT_FORMAT = 1

PREDICTION_COLUMNS = ("metric", "image_id", "person", "score", "stars", "held_out_stars", "mean_label")
"""The columns of `predictions.csv` before those of the labelers."""


def write_report(folder: Path, sections: Sequence[ReportSection], facts: Mapping[str, str]) -> None:
    """Write `report.html`, `report.md`, `report.json`, and `predictions.csv` to `folder`.

    facts: general facts by name, such as the files and the seed.
    """
    numbers = {"format": REPORT_FORMAT, "facts": dict(facts), "metrics": [to_json(section) for section in sections]}
    content = {
        "report.html": encoded(html.render(sections, facts)),
        "report.md": encoded(markdown.render(sections, facts)),
        "report.json": (json.dumps(numbers, indent=2, allow_nan=False) + "\n").encode(),
        "predictions.csv": encoded(_csv(sections)),
    }
    for name, found in content.items():
        write_atomic(folder / name, found)


def to_json(section: ReportSection) -> dict[str, Any]:
    """Every number of the study as plain values; missing values are None."""
    study, said = section.study, verdict(section)
    return {
        "metric": section.metric,
        "facts": section.facts,
        "verdict": {"tone": said.tone.value, "headline": said.headline, "sentences": said.sentences},
        "cautions": said.cautions,
        "notes": list(section.notes),
        "unit": study.sample.unit,
        "method": study.method,
        "power": study.power,
        "refused": study.refused,
        "overall": _row(study.overall),
        "mean": _seat(study.mean),
        "folds": [_seat(seat) for seat in study.seats],
        "over_people": study.over_people.to_value_json(),
        "over_constant": study.over_constant.to_value_json(),
        "alpha": study.alpha.to_value_json(),
        "confusions": {name: counts.astype(int).tolist() for name, counts in study.confusions.items()},
        "thresholds": {name: buckets_json(found) for name, found in study.buckets.items()},
        "alternative": _alternative(study.alternative),
        "constant_alternative": _alternative(study.constant_alternative),
        "labelers": [_labeler(labeler) for labeler in section.labelers],
    }


def _seat(seat: Seat) -> dict[str, Any]:
    sides = {"against_labeler": _table(seat.against_labeler), "against_others": _table(seat.against_others)}
    return {"labeler": seat.labeler, "n": seat.n, **sides}


def _table(rows: StatisticTable) -> dict[str, Any]:
    return {who: _row(row) for who, row in rows.items()}


def _row(row: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.to_value_json() for name, estimate in row.items()}


def _alternative(found: AlternativeTest | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "advantage": json_number(found.advantage),
        "advantages": [json_number(float(value)) for value in found.advantages],
        "winning_rates": {f"{epsilon:g}": rate for epsilon, rate in found.winning_rates.items()},
    }


def _labeler(found: Labeler) -> dict[str, Any]:
    return {name: json_number(value) if isinstance(value, float) else value for name, value in asdict(found).items()}


def _csv(sections: Sequence[ReportSection]) -> str:
    labelers = list(dict.fromkeys(name for section in sections for name in section.study.sample.table.labelers))
    rows = (row for section in sections for row in _predictions(section, labelers))
    return csv_text([*PREDICTION_COLUMNS, *(f"label_{name}" for name in labelers)], rows)


def _predictions(section: ReportSection, labelers: Sequence[str]) -> Iterator[list[str]]:
    """One row per image: stars by the final thresholds, and the mean of the stars by other labelers' thresholds."""
    study = section.study
    sample, table = study.sample, study.sample.table
    final = np.full(len(table.images), MISSING) if study.refused else study.buckets[study.method].steps(sample.scores)
    held_out, row = seat_stars(study), {name: place for place, name in enumerate(table.labelers)}
    for place, image in enumerate(table.images):
        person = sample.persons[place] if sample.persons is not None else ""
        numbers = _written(sample.scores[place], final[place], held_out[place], study.mean_labels[place])
        labels = [table.labels[row[name], place] if name in row else MISSING for name in labelers]
        yield [section.metric, image, person, *numbers, *_written(*labels)]


def _written(*values: float) -> list[str]:
    return ["" if np.isnan(value) else f"{value:.6g}" for value in values]
