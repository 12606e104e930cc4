"""Render the report as a single self-contained HTML page."""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from finetune_monitor.base.text import visible
from finetune_monitor.metrics.thresholds import STEPS
from finetune_monitor.stats.estimate import NO_ESTIMATE, Estimate, number, shown
from finetune_monitor.studies.agreement.evaluators import MODEL, PEOPLE
from finetune_monitor.studies.agreement.study import ReportSection, Study
from finetune_monitor.studies.agreement_report import explanations, figures, tables
from finetune_monitor.studies.agreement_report.examples import disagreements
from finetune_monitor.studies.agreement_report.tables import Cell, Column
from finetune_monitor.studies.agreement_report.verdicts import verdict

HERE = Path(__file__).parent
TEMPLATE, STYLE = "page.html.jinja", "page.css"

SHADES = 10
"""The number of shades of a confusion matrix, as in the style sheet."""


def render(sections: Sequence[ReportSection], facts: Mapping[str, str]) -> str:
    """The page, with all external text escaped."""
    style = (HERE / STYLE).read_text(encoding="utf-8")
    loader = FileSystemLoader(HERE)
    environment = Environment(
        loader=loader,
        autoescape=True,
        finalize=finalized,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": cell, "number": number, "groups": groups, "interval": interval}
    return environment.get_template(TEMPLATE).render(
        style=Markup(style),
        style_hash=Markup(base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()),
        words=explanations,
        sections=[describe(section) for section in sections],
        facts=facts,
    )


def describe(section: ReportSection) -> dict[str, Any]:
    """Everything that the template shows for one metric."""
    study, histograms = section.study, tables.histograms(section.study)
    return {
        "metric": section.metric,
        "facts": section.facts,
        "verdict": verdict(section),
        "refused": study.refused,
        "kappas": _dots("kappa", _kappas(study)),
        "folds": tables.folds_table(study),
        "sides": tables.side_by_side(study),
        "leakage": explanations.leakage(study),
        "grades": _grades(study),
        "scatter": _scatter(study),
        "scatter_note": _scatter_note(study),
        "scores": tables.score_table(study),
        "confusions": _confusions(study),
        "thresholds": None if study.refused else tables.thresholds_table(study),
        "histogram": Markup(figures.histogram(histograms)),
        "histogram_names": list(histograms),
        "squeeze": "" if study.refused else explanations.squeeze(study),
        "agreement": tables.agreement_table(study),
        "labelers": tables.labelers_table(section.labelers, study),
        "alternative": tables.alternative_table(study),
        "alternative_words": explanations.alternative(study),
        "examples": disagreements(section),
        "notes": section.notes,
    }


def finalized(value: Any) -> Any:
    """External text with its invisible characters replaced; anything else unchanged."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def cell(content: Cell, column: Column) -> Markup:
    """The content of a cell: words, a number, a number above its interval, or a bar of shares."""
    if isinstance(content, str):
        return Markup("{}").format(visible(content))
    if isinstance(content, tuple):
        return _shares(content, column.form)
    if isinstance(content, Estimate):
        return interval(content, column.form)
    return Markup("{}").format(number(content, column.form))


def interval(estimate: Estimate, form: str = ".2f") -> Markup:
    """A number with its interval, if there is one."""
    value, _, bounds = shown(estimate, form).partition(" ")
    return Markup("{}").format(value) + (Markup(' <span class="interval">{}</span>').format(bounds) if bounds else "")


def groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """The group heads of columns with their widths; empty if there are none."""
    found = [(name, len(list(members))) for name, members in groupby(columns, lambda column: column.group)]
    return found if any(name for name, _ in found) else []


def _shares(found: tables.Shares, form: str) -> Markup:
    if any(math.isnan(share) for share in found):
        return Markup("—")
    numbers = " · ".join(f"{100 * share:.0f}" for share in found)
    return Markup('{}<span class="interval">{}%</span>').format(Markup(figures.share_bar(found)), numbers)


def _dots(name: str, rows: Sequence[tuple[str, str, Estimate, Estimate | None]]) -> dict[str, Any]:
    """Rows with one strip each, all on the same axis; a line marks the model."""
    limits = figures.strip_limits([estimate for _, _, estimate, _ in rows])
    reference = next((estimate.mean for _, kind, estimate, _ in rows if kind == MODEL), math.nan)
    lines = [
        (who, kind, Markup(figures.strip(found, limits, kind, reference)), found, beside)
        for who, kind, found, beside in rows
    ]
    return {"name": name, "axis": Markup(figures.strip_axis(limits)), "lines": lines}


def _kappas(study: Study) -> list[tuple[str, str, Estimate, None]]:
    rows = study.mean.against_labeler
    used = [PEOPLE] if study.refused else [PEOPLE, MODEL]
    names = {PEOPLE: "another labeler", MODEL: "the model"}
    return [(names[who], who, rows[who].get("kappa", NO_ESTIMATE), None) for who in used]


def _grades(study: Study) -> dict[str, Any]:
    return _dots("G*", tables.grades(study))


def _scatter(study: Study) -> Markup:
    nothing = np.zeros(0)
    other = [found.thresholds for name, found in study.buckets.items() if name != study.method]
    chosen = nothing if study.refused else study.buckets[study.method].thresholds
    scores = study.sample.scores
    return Markup(figures.scatter(scores, study.mean_labels, chosen, other[0] if other else nothing))


def _scatter_note(study: Study) -> str:
    n = int((~np.isnan(study.sample.scores) & ~np.isnan(study.mean_labels)).sum())
    drawn = f"{figures.POINTS:,} of {n:,} images, chosen at random. " if n > figures.POINTS else ""
    lines = "" if study.refused else "Lines: the chosen thresholds; dotted: those of the other method; bars: the mean "
    return f"One dot per image. {drawn}{lines}{'label at each star.' if lines else ''}".strip()


def _confusions(study: Study) -> list[dict[str, Any]]:
    """The confusion matrices of people and, if it has stars, of the model."""
    captions = {PEOPLE: "People against people", MODEL: "Model against people"}
    used = [PEOPLE] if study.refused else [MODEL, PEOPLE]
    columns = {PEOPLE: "another labeler", MODEL: "stars"}
    return [{"caption": captions[who], "columns": columns[who], "rows": _shaded(study.confusions[who])} for who in used]


def _shaded(counts: Float[np.ndarray, "5 5"]) -> list[dict[str, Any]]:
    """Rows of counts with their share of the row and the shade for it."""
    found = []
    for step, row in zip(STEPS, counts, strict=True):
        shares = row / max(1.0, row.sum())
        cells = [
            (int(count), float(share), round(SHADES * float(share))) for count, share in zip(row, shares, strict=True)
        ]
        found.append({"label": int(step), "cells": cells, "n": int(row.sum())})
    return found
