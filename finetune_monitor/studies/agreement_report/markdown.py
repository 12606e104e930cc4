"""Render the report's verdicts and tables as Markdown, for a README or an issue."""

from collections.abc import Mapping, Sequence

from finetune_monitor.base.text import escaped, table
from finetune_monitor.stats.estimate import Estimate, number, shown
from finetune_monitor.studies.agreement.study import ReportSection, Study
from finetune_monitor.studies.agreement_report import explanations, tables
from finetune_monitor.studies.agreement_report.tables import Cell, Column, Table
from finetune_monitor.studies.agreement_report.verdicts import AgreementVerdict, verdict


def render(sections: Sequence[ReportSection], facts: Mapping[str, str]) -> str:
    """The report, with all external text escaped."""
    found = [(section, verdict(section)) for section in sections]
    parts = [
        f"# {explanations.TITLE}",
        "\n".join(f"- **{escaped(section.metric)}: {said.headline}.** {_said(said)}" for section, said in found),
        *(_section(section, said) for section, said in found),
        "## Facts",
        _pairs(facts),
        "## How to read this",
        "\n".join(f"- **{escaped(name)}**: {escaped(told)}" for name, told in explanations.READING.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _said(found: AgreementVerdict) -> str:
    return " ".join(map(escaped, found.sentences))


def _section(section: ReportSection, said: AgreementVerdict) -> str:
    study = section.study
    stars = f"{explanations.NO_STARS}{escaped(study.refused)}." if study.refused else ""
    parts = [
        f"## {escaped(section.metric)}",
        "\n".join(f"- {escaped(caution)}" for caution in said.cautions),
        _pairs(section.facts),
        _table(tables.folds_table(study)),
        escaped(explanations.FOLDS),
        stars,
        *map(_table, tables.side_by_side(study)),
        escaped(explanations.leakage(study)),
        _table(tables.score_table(study)),
        *_thresholds(study),
        _table(tables.agreement_table(study)),
        _table(tables.labelers_table(section.labelers, study)),
        _table(found) if (found := tables.alternative_table(study)) else "",
        "" if study.refused else escaped(explanations.alternative(study)),
        "\n".join(f"- {escaped(note)}" for note in section.notes),
    ]
    return "\n\n".join(part for part in parts if part)


def _thresholds(study: Study) -> list[str]:
    return [] if study.refused else [_table(tables.thresholds_table(study)), escaped(explanations.squeeze(study))]


def _pairs(facts: Mapping[str, str]) -> str:
    rows = [[escaped(name), escaped(value)] for name, value in facts.items()]
    return table(["fact", "value"], rows, ["---", "---"]) if rows else ""


def _table(found: Table) -> str:
    header = [escaped(f"{column.group}: {column.name}" if column.group else column.name) for column in found.columns]
    align = ["---" if column.words else "---:" for column in found.columns]
    rows = [[_cell(*pair) for pair in zip(row, found.columns, strict=True)] for row in found.rows]
    note = f"\n\n{escaped(found.note)}" if found.note else ""
    return f"### {escaped(found.caption)}\n\n{table(header, rows, align)}{note}"


def _cell(content: Cell, column: Column) -> str:
    if isinstance(content, str):
        return escaped(content)
    if isinstance(content, Estimate):
        return shown(content, column.form.replace(".2f", ".3f"))
    if isinstance(content, tuple):
        return " / ".join(number(100 * share, ".0f") for share in content) + " %"
    return number(content, column.form)
