"""The command `finetune-monitor agree`: its options, and what it prints."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.extras import require
from finetune_monitor.commands.options import share, whole_number
from finetune_monitor.studies.agreement.settings import METHOD_NAMES, StudyInputs, StudySettings

if TYPE_CHECKING:
    from finetune_monitor.studies.agreement.study import ReportSection
    from finetune_monitor.studies.agreement_report.agree import AgreementOutcome

BUCKETS = {method.replace("_", "-"): method for method in METHOD_NAMES}
"""The names of the methods in the option."""

GREATEST_POWER = 4.0


def add_agree(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `agree`."""
    parser = commands.add_parser("agree", help="compare scores with people's ratings, and turn scores into stars")
    parser.add_argument(
        "ratings",
        type=Path,
        nargs="+",
        metavar="RATINGS",
        help="a plan's folder, and rating files: CSV or Label Studio's JSON",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder for the report and the thresholds"
    )
    parser.add_argument(
        "--scores", type=Path, metavar="CSV", help="the images' scores; default: those recorded by the plan's runs"
    )
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="the metric to compare, and the metric of ratings in files that do not name one",
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="folder with the images, if there is no plan")
    parser.add_argument(
        "--buckets",
        choices=list(BUCKETS),
        default=StudySettings.method.replace("_", "-"),
        help="choose stars that are closest to people's labels, or that have the same distribution",
    )
    parser.add_argument(
        "--power",
        type=_power,
        default=StudySettings.power,
        metavar="P",
        help=f"exponent of the distance between stars and labels; default: {StudySettings.power:g}",
    )
    parser.add_argument(
        "--standardize",
        action="store_true",
        help="rescale each labeler's labels to the same mean and spread before averaging and correlating",
    )
    parser.add_argument(
        "--min-coverage",
        type=share,
        default=StudyInputs.min_coverage,
        metavar="X",
        help="leave out labelers who rated less than this share of the images",
    )
    parser.add_argument(
        "--seed",
        type=whole_number,
        default=StudySettings.seed,
        metavar="N",
        help="seed of the bootstrap and the shuffle",
    )
    parser.set_defaults(run=_agree)


def _power(text: str) -> float:
    try:
        power = float(text)
    except ValueError:
        power = 0.0
    if not 0 < power <= GREATEST_POWER:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number above 0 and up to {GREATEST_POWER:g}")
    return power


def _agree(chosen: argparse.Namespace) -> None:
    require("jinja2", "agree: its report")
    from finetune_monitor.studies.agreement_report.agree import agree

    inputs = StudyInputs(tuple(chosen.ratings), chosen.scores, chosen.metric, chosen.min_coverage)
    settings = StudySettings(BUCKETS[chosen.buckets], chosen.power, chosen.seed, chosen.standardize)
    outcome = agree(inputs, settings, chosen.output, chosen.images)
    for section in outcome.sections:
        _print_section(section)
    _print_closing(outcome, chosen.output)
    refused = {section.metric: section.study.refused for section in outcome.sections if section.study.refused}
    if refused:
        raise UserError("\n".join(f"{metric}: no thresholds: {why}" for metric, why in refused.items()))


def _print_section(section: "ReportSection") -> None:
    """Print how well each evaluator agrees with a held-out labeler, averaged over labelers, and the verdict."""
    from finetune_monitor.base.text import visible
    from finetune_monitor.sinks.console import print_estimates
    from finetune_monitor.studies.agreement.evaluators import CONSTANT, MODEL, PEOPLE, SHUFFLE
    from finetune_monitor.studies.agreement_report.tables import OF_STARS
    from finetune_monitor.studies.agreement_report.verdicts import verdict

    study, said = section.study, verdict(section)
    print(f"{visible(section.metric)}: agreement with a held-out labeler, mean [95% interval]")
    against = study.mean.against_labeler
    columns = {"kappa": "kappa", "MAE": "mae", "exact": "exact", "within one": "within_one"}
    names = [name for name in (PEOPLE, MODEL, CONSTANT, SHUFFLE) if not (study.refused and name in OF_STARS)]
    print_estimates(list(columns), {name: [against[name][key] for key in columns.values()] for name in names})
    print(f"verdict:      {said.headline}")
    for note in (*said.cautions, *section.notes):
        print(f"note:         {visible(note)}")


def _print_closing(outcome: "AgreementOutcome", output: Path) -> None:
    from finetune_monitor.studies.agreement_report.agree import REPORTS, THRESHOLDS
    from finetune_monitor.studies.agreement_report.verdicts import Tone, verdict

    print(f"left out:     {outcome.left_out}")
    print(f"report:       {output / REPORTS[0]}")
    if not (output / THRESHOLDS).exists():
        return
    tones = {section.metric: verdict(section).tone for section in outcome.sections if not section.study.refused}
    good = [metric for metric, tone in tones.items() if tone in (Tone.GOOD, Tone.FAIR)]
    if good:
        found = shlex.quote(f"monitor.thresholds={output / THRESHOLDS}")
        print(f"stars:        in a run that measures {_listed(good)}: finetune-monitor train ... {found}")
    if doubtful := [metric for metric in tones if metric not in good]:
        print(f"note:         {output / THRESHOLDS} also has stars of {_listed(doubtful)}, despite the verdict")


def _listed(metrics: list[str]) -> str:
    from finetune_monitor.base.text import visible

    return visible(", ".join(metrics))
