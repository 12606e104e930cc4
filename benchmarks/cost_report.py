"""The report on what an evaluation must cost: tables, a plot, and the cheapest setting that decides alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.cheaper import REFERENCE
from benchmarks.measure import publish_section
from benchmarks.verdicts import (
    Compared,
    Record,
    bias,
    covers,
    deviation,
    interval_of,
    noise,
    other_seeds,
    rank_correlation,
    resampled,
)
from finetune_monitor.base.text import table
from finetune_monitor.stats.estimate import Estimate, shown
from finetune_monitor.stats.intervals import wilson
from finetune_monitor.training.config import Config

RESULTS = Path(__file__).with_name("COST.md")
PLOT = Path(__file__).with_name("cost.svg")
PREAMBLE = """# The cost of an evaluation, measured

Each section names the command that wrote it. Run the command again to replace the section.
"""

CRITERION = """**The rule, written before all but the first three trainings were measured.** A setting *agrees* with
the reference in a training if the rules stop it at the same evaluation and its best step is as good: the same, or one
that the reference cannot tell from its own best step, because the paired 95% interval of the difference over the
reference's images includes 0. `fast` is the cheapest of the settings measured in all trainings that agrees in at
least 95% of them; with fewer than 20 trainings, in all. If none does, `fast` stays as it is, and the documentation
says how often it agrees. Half the images are reported, but not chosen. `full` stays the default unless the lower end
of the 95% interval of `fast`'s share is at least 95%, which takes 73 trainings without a disagreement."""

AGREEING = 0.95
"""The least share of trainings in which `fast` agrees with the reference."""

ROUNDS = 20
"""Draws of images per training; each gives a decision for three beginnings of the curve."""

ENOUGH = 0.95
"""The least correlation of the deciding score with the reference, over the steps of a training."""

OTHER_SEEDS = "the reference, other seeds"

DECIDED = ["setting", "time", "trainings", "same stop", "same best", "stops, %", "best steps, %", "lost", "same alarms"]

DECISIONS = f"""**Decisions.** *Time* is that of rendering, as a share of the reference: the median of the ratios for
the same weights, which were rendered with all settings in turn. *Stops* and *best steps* are shares of resampled
decisions: {ROUNDS} draws of images with replacement per training, the same for both sides, each with the curve from the
first, second, and third evaluation on. They are not independent. *Lost* is by how much the best steps of these draws
are worse, on average, than that of the reference with all images, by the reference's smoothed curve.
*{OTHER_SEEDS.capitalize()}* compares two such draws of the reference with each other: this is how much decisions
vary by chance. *Same alarms* are those that sound in both, of those that sound in either."""

NOTES = """- Rules, smoothing, alarms, and metrics are those of demo.yaml; there is one class prompt. Weights are
  merged, and one thread is used.
- These are results of a small model at 64 px with a real face recognizer. They do not prove the same for Stable
  Diffusion v1.5, and they say nothing about the speed of a GPU.
- More trainings (`--runs`, up to six) and settings (`--others`: 20 and 12 steps, Karras noise levels, UniPC with 8 and
  5 steps, AYS timesteps, bf16) take more time. The package DeepCache was not used: its last release is from 2023."""

READING = """- None of the first three trainings stops within 320 steps, so it proves little that their stops agree. On
  resampled images, 5 to 10 steps agree with the reference about as often as the reference agrees with itself on other
  seeds: with 12 images, chance has more influence than the number of steps. But their best steps lose more than those
  of other seeds. So few trainings cannot show that 95% of decisions agree.
- Scores tell the settings apart. Eight steps do not change `face_similarity` significantly; five lower it. All
  settings except UniPC lower `aesthetic` and `clip_score` a little. From eight to five steps, the order of these two
  gets worse in the worst training, as it does where deep features are reused. Guidance on an interval saves little at
  eight steps, because only the first of them is outside.
- Therefore, `fast` is eight steps of DPM-Solver++, and it is not the default. At the end of a run, the best and the
  last step are scored at full quality, too."""

SCORED = """Spearman's correlation with the reference over the steps: the mean and (the worst training); the mean
difference from the reference with its 95% interval over images; the largest difference of a mean."""

Records = Mapping[str, Mapping[str, Record]]
"""By training and by the setting's name."""


@dataclass(frozen=True)
class Agreement:
    """How a setting agrees with the reference, over the trainings in which it was measured.

    pairs: its record and that of the reference, by training.
    """

    name: str
    pairs: Mapping[str, tuple[Record, Record]]

    @property
    def is_reference(self) -> bool:
        return self.name == REFERENCE.name

    @cached_property
    def time(self) -> float:
        """Seconds of rendering as a share of the reference: the median of the ratios for the same weights."""
        return median(
            mine.seconds["render"] / theirs.seconds["render"]
            for found, reference in self.pairs.values()
            for mine, theirs in zip(found.evaluations, reference.evaluations, strict=True)
        )

    def correlations(self, column: str) -> list[float]:
        found = [rank_correlation(*pair, column) for pair in self.pairs.values()]
        return [each for each in found if not np.isnan(each)]

    def bias(self, column: str) -> Estimate:
        return interval_of([each for pair in self.pairs.values() for each in bias(*pair, column)])

    def deviation(self, column: str) -> float:
        return max(deviation(*pair, column) for pair in self.pairs.values())

    @cached_property
    def stops(self) -> list[bool]:
        return [found.verdict[0] == reference.verdict[0] for found, reference in self.pairs.values()]

    @cached_property
    def bests(self) -> list[bool]:
        return [found.verdict[1] == reference.verdict[1] for found, reference in self.pairs.values()]

    @cached_property
    def alarms(self) -> tuple[int, int]:
        """How many alarms sound in both, and how many in either."""
        both = [(found.alarms, reference.alarms) for found, reference in self.pairs.values()]
        return sum(len(mine & theirs) for mine, theirs in both), sum(len(mine | theirs) for mine, theirs in both)

    @cached_property
    def resampled(self) -> list[Compared]:
        return [each for pair in self.pairs.values() for each in resampled(*pair, ROUNDS)]

    @property
    def keeps_order(self) -> bool:
        """Whether the score that decides has the reference's order over the steps, in every training."""
        metric = next(iter(self.pairs.values()))[1].metric
        return min(self.correlations(metric), default=0.0) >= ENOUGH

    @property
    def decides_alike(self) -> bool:
        return self.keeps_order and all((*self.stops, *self.bests))


def agreements(records: Records) -> list[Agreement]:
    """Every setting, those with the least time last."""
    settings = dict.fromkeys(setting for own in records.values() for setting in own)
    found = [
        Agreement(each, {name: (own[each], own[REFERENCE.name]) for name, own in records.items() if each in own})
        for each in settings
    ]
    return sorted(found, key=lambda each: -each.time)


def chosen_of(found: Sequence[Agreement]) -> Agreement | None:
    """The cheapest setting that was measured in all trainings and decides alike; None if there is none."""
    most = max(len(each.pairs) for each in found)
    alike = [each for each in found if not each.is_reference and len(each.pairs) == most and each.decides_alike]
    return min(alike, key=lambda each: each.time, default=None)


def decision_rows(found: Sequence[Agreement], records: Records) -> list[list[str]]:
    rows = [
        [
            each.name,
            f"{each.time:.2f}",
            str(len(each.pairs)),
            f"{sum(each.stops)} of {len(each.stops)}",
            f"{sum(each.bests)} of {len(each.bests)}",
            *_shares(each.resampled),
            f"{each.alarms[0]} of {each.alarms[1]}",
        ]
        for each in found
    ]
    again = [each for own in records.values() for each in other_seeds(own[REFERENCE.name], ROUNDS)]
    return [*rows, [OTHER_SEEDS, "1.00", str(len(records)), "", "", *_shares(again), ""]]


def _shares(found: Sequence[Compared]) -> list[str]:
    """The shares in percent of the same stops and of the same best steps, and what other best steps cost."""
    stops, bests = ([getattr(each, name) for each in found] for name in ("same_stop", "same_best"))
    return [f"{100 * np.mean(stops):.0f}", f"{100 * np.mean(bests):.0f}", f"{np.mean([e.lost for e in found]):+.3f}"]


def score_rows(found: Sequence[Agreement], column: str) -> list[list[str]]:
    rows = []
    for each in found:
        if each.is_reference:
            continue
        order = each.correlations(column)
        spread = f"{np.mean(order):.2f} ({min(order):.2f})" if order else "—"
        rows.append([each.name, spread, shown(each.bias(column), ".3f"), f"{each.deviation(column):.3f}"])
    return rows


def verdict_rows(records: Records) -> list[list[str]]:
    rows = []
    for name, own in records.items():
        record = own[REFERENCE.name]
        curve = record.curve(record.metric)
        stop, best = record.verdict
        sounding = sorted({column for _, column in record.alarms})
        rows.append(
            [
                name,
                ", ".join(_number(found) for found in (curve[0], np.fmax.reduce(curve[1:]), curve[-1])),
                "never" if stop is None else str(stop),
                str(best),
                ", ".join(f"`{column}`" for column in sounding) or "none",
            ]
        )
    return rows


def _number(found: float) -> str:
    return "no face" if np.isnan(found) else f"{found:.2f}"


def publish(records: Records, config: Config) -> None:
    """Write the section of COST.md, and the plot."""
    found = agreements(records)
    first = next(iter(records.values()))[REFERENCE.name]
    columns = [name for name in first.columns if first.columns[name].role == "score" and covers(first, name)]
    plot(found, chosen_of(found), PLOT)
    parts = [
        introduction(config, records),
        table(
            ["training", f"`{first.metric}`: step 0, highest, last", "stop", "best", "alarms"], verdict_rows(records)
        ),
        f"![Time and agreement of every setting]({PLOT.name})",
        DECISIONS,
        table(DECIDED, decision_rows(found, records), ["---", *["---:"] * 8]),
        conclusion(found, len(records)),
        READING,
        *(score_table(found, first, column) for column in columns),
    ]
    publish_section(RESULTS, PREAMBLE, "cost", "The same verdict for less: the demo's models", parts)


def introduction(config: Config, records: Records) -> str:
    grid, steps, trainings = config.prompt_grid, _steps(records), len(records)
    subjects = sum(not cell.is_probe for cell in grid.cells)
    return (
        f"- {trainings} trainings of the demo's model, evaluated at {len(steps)} steps up to {steps[-1]}. Each step's\n"
        f"  weights are rendered with every setting: {subjects} images of the subject and "
        f"{len(grid.cells) - subjects} of probes at {config.data.resolution} px, guidance {grid.guidance:g},\n"
        f"  DPM-Solver++ unless a setting says otherwise.\n{NOTES}"
    )


def _steps(records: Records) -> list[int]:
    return [found.step for found in next(iter(records.values()))[REFERENCE.name].evaluations]


def conclusion(found: Sequence[Agreement], trainings: int) -> str:
    """Which setting is the cheapest that decides alike, and how certain that is."""
    chosen, known = chosen_of(found), wilson(np.ones(trainings), np.arange(trainings))
    if chosen is None:
        return f"No setting decides alike in all trainings and has a correlation of at least {ENOUGH:g} in each."
    return (
        f"**{chosen.name}** is the cheapest setting that stops at the same step with the same best step in all\n"
        f"{trainings} trainings, and whose deciding score has a correlation of at least {ENOUGH:g} with the reference\n"
        f"in each. With so few trainings, the 95% interval of the share of trainings that agree is "
        f"[{known.low:.2f}, {known.high:.2f}]."
    )


def score_table(found: Sequence[Agreement], first: Record, column: str) -> str:
    noise_of = (
        "The noise of such a mean (half the width of its 95% interval, in the first training) is "
        f"{noise(first, column):.3f}."
    )
    head = ["setting", "Spearman", "difference", "largest"]
    rows = table(head, score_rows(found, column), ["---", *["---:"] * 3])
    return f"**`{column}`.** {SCORED} {noise_of}\n\n{rows}"


def plot(found: Sequence[Agreement], chosen: Agreement | None, file: Path) -> None:
    """How well the deciding score keeps its order, against time."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "cost"
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    metric = next(iter(found[0].pairs.values()))[1].metric
    for each in found:
        if not each.is_reference:
            worst = min(each.correlations(metric))
            axes.plot(each.time, worst, "o", color="C3" if each is chosen else "C0")
            axes.annotate(each.name, (each.time, worst), (5, 4), textcoords="offset points", fontsize=8)
    axes.axhline(ENOUGH, color="gray", linestyle=":")
    axes.set(xlabel="time of rendering, as a share of 50 steps", ylabel=f"{metric}: Spearman, worst training")
    axes.set_xlim(0, None)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
