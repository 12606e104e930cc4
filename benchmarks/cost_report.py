"""The report on what an evaluation must cost: the answer, a plot, and tables."""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.cheaper import EVERYWHERE, HALF_THE_IMAGES, REFERENCE
from benchmarks.cost_plot import plot
from benchmarks.measure import publish_section
from benchmarks.verdicts import (
    Compared,
    Record,
    Verdict,
    bias,
    compared,
    covers,
    deviation,
    noise,
    other_seeds,
    over_trainings,
    rank_correlation,
    resampled,
)
from finetune_monitor.base.text import table
from finetune_monitor.record.evaluation import Evaluation, StopReason
from finetune_monitor.record.grid import FAST, STEPS
from finetune_monitor.stats.estimate import Estimate, shown
from finetune_monitor.stats.intervals import t_interval, wilson
from finetune_monitor.training.config import Config

RESULTS = Path(__file__).with_name("COST.md")
PLOT = Path(__file__).with_name("cost.svg")
PREAMBLE = """# The cost of an evaluation, measured

Each section names the command that wrote it. Run the command again to replace the section.
"""

READING = """- Even 25 steps, which are `full`, do not meet the rule. They and 20 steps agree somewhat more often than
  8, but the intervals overlap. Most stops that differ are one evaluation apart: `plateau` compares averages of few
  images, which small changes can move. 6 steps of UniPC agree least.
- The images count as much as the steps: half of them in 50 steps agree in about as many trainings as all of them in 8,
  which cost a quarter of that. So render more images rather than more steps if you need surer decisions.
- Eight steps do not change `face_similarity` significantly, but lower `aesthetic` and `clip_score`; the last tables
  show by how much. Compare these two only between evaluations with the same number of steps. At the end of a run, the
  best and the last step are scored at full quality, too.
- Karras, AYS, and bf16 were measured in the first training only, which the reference never stops. There, 8 steps score
  alike in bf16 and fp32.
- Guidance on an interval hardly saves time at eight steps, because only the first of them is outside."""

CRITERION = """**Rule, written before all but the first three trainings were measured.** (25, 20, 16, and 12 steps were
measured in all trainings only after none of the others had met it.) A setting *agrees* with
the reference in a training if the rules stop it at the same evaluation and its best step is as good: the same, or one
that the reference cannot tell from its own best step, because the paired 95% interval of the difference over the
reference's images includes 0. `fast` is the cheapest of the settings measured in all trainings that agrees in at
least 95% of them; with fewer than 20 trainings, in all. If none does, `fast` stays as it is, and the documentation
says how often it agrees. Half the images are reported, but not chosen. `full` stays the default unless the lower end
of the 95% interval of `fast`'s share is at least 95%, which takes 73 trainings without a disagreement."""

AGREEING = 0.95
"""The least share of trainings in which `fast` agrees with the reference."""

ROUNDS = 20
"""Draws of images per training."""

OTHER_SEEDS = "the reference, other seeds"

TODAY = f"{STEPS[FAST]} steps"
"""The setting that `fast` is."""

NOTES = """**How it was measured**

- Each step's weights are rendered with every setting: {subjects} images of the subject and {probes} of probes at
  {size} px, guidance {guidance:g}, DPM-Solver++ in fp32 with guidance at every step unless a setting says otherwise.
  Weights are merged, and one thread is used. Metrics, smoothing, and alarms are those of demo.yaml; there is one class
  prompt.
- Rules: `plateau` with a window of two evaluations, the guard of demo.yaml (`copying` above 0.2), and `divergence`. An
  evaluation is due every {every} steps. A training ends when every setting has stopped it, and after {last} steps at
  the latest.
- *Time* is the CPU time of rendering one evaluation, as a share of the reference: the median of the ratios within each
  of {timed} rounds, in which the same weights are rendered with all settings in turn.
- *Strictly*: the same stop and the same best step. *Stop* counts the trainings with the same stop, *±1* those with
  a stop at most one evaluation away, and *best* those with a best step that is as good. *Lost* is by how much the
  best step is worse than that of the reference, by the reference's smoothed curve: the mean over trainings with its
  95% interval. *Alarms* are those that sound in both, of those that sound in either.
- *Resampled*: the share of decisions that agree when images are drawn with replacement, the same for both sides,
  {rounds} times per training. *{again}* compares two draws of the reference: this is how often it agrees
  with itself by chance. Draws of a training are not independent. One that does not stop within the evaluations of
  its training counts as never stopped.
- All trainings share one model and one subject. Intervals of shares are over trainings (Wilson).
- These are results of a small model at {size} px with a real face recognizer. They do not prove the same for Stable
  Diffusion v1.5, and they say nothing about the speed of a GPU. The package DeepCache was not used: its last release
  is from 2023."""

Records = Mapping[str, Mapping[str, Record]]
"""By training and by the setting's name."""


@dataclass(frozen=True)
class Agreement:
    """How a setting agrees with the reference, over the trainings in which it was measured.

    pairs: its record and that of the reference, by training.
    seconds: its time and that of the reference, by round.
    """

    name: str
    pairs: Mapping[str, tuple[Record, Record]]
    seconds: tuple[Sequence[float], Sequence[float]]

    @property
    def is_reference(self) -> bool:
        return self.name == REFERENCE.name

    @cached_property
    def time(self) -> float:
        """CPU time of rendering as a share of the reference: the median of the ratios within each round."""
        return median(mine / theirs for mine, theirs in zip(*self.seconds, strict=True))

    def correlations(self, column: str) -> list[float]:
        found = [rank_correlation(*pair, column) for pair in self.pairs.values()]
        return [each for each in found if not np.isnan(each)]

    def bias(self, column: str) -> Estimate:
        return over_trainings([bias(*pair, column) for pair in self.pairs.values()])

    def deviation(self, column: str) -> float:
        return max(deviation(*pair, column) for pair in self.pairs.values())

    @cached_property
    def decisions(self) -> list[Compared]:
        return [compared(found, reference, reference) for found, reference in self.pairs.values()]

    @property
    def agreeing(self) -> Estimate:
        return share_of([each.agrees for each in self.decisions])

    @property
    def lost(self) -> Estimate:
        return t_interval(np.array([each.lost for each in self.decisions]))

    @cached_property
    def alarms(self) -> tuple[int, int]:
        """How many alarms sound in both, and how many in either."""
        both = [(found.alarms, reference.alarms) for found, reference in self.pairs.values()]
        return sum(len(mine & theirs) for mine, theirs in both), sum(len(mine | theirs) for mine, theirs in both)

    @cached_property
    def resampled(self) -> list[Compared]:
        """Empty if not all images of the reference were scored."""
        if self.name in HALF_THE_IMAGES:
            return []
        return [each for pair in self.pairs.values() for each in resampled(*pair, ROUNDS)]


def share_of(found: Sequence[bool]) -> Estimate:
    return wilson(np.array(found, dtype=np.float64))


def agreements(records: Records, seconds: Mapping[str, Sequence[float]]) -> list[Agreement]:
    """Every setting, those with the least time last."""
    settings = dict.fromkeys(setting for own in records.values() for setting in own)
    found = [
        Agreement(
            each,
            {name: (own[each], own[REFERENCE.name]) for name, own in records.items() if each in own},
            (seconds[each], seconds[REFERENCE.name]),
        )
        for each in settings
    ]
    return sorted(found, key=lambda each: -each.time)


def chosen_of(found: Sequence[Agreement]) -> Agreement | None:
    """The cheapest setting that `CRITERION` accepts; None if there is none."""
    names = [each.name for each in EVERYWHERE]
    enough = [each for each in found if each.name in names and each.agreeing.mean >= AGREEING]
    return min(enough, key=lambda each: each.time, default=None)


def publish(records: Records, seconds: Mapping[str, Sequence[float]], config: Config) -> None:
    """Write the section of COST.md, and the plot."""
    found = agreements(records, seconds)
    first = next(iter(records.values()))[REFERENCE.name]
    plot(found, first.metric, TODAY, AGREEING, PLOT)
    parts = [
        f"{answer(found, records)}\n{READING}",
        f"![Time, agreement, and rank correlation of every setting]({PLOT.name})",
        f"Red: {TODAY}, which is `fast`. Blue: measured in all trainings. Gray: measured in some of them.",
        *decision_tables(found, records),
        training_table(records, first.metric),
        CRITERION,
        notes(config, records, len(seconds[REFERENCE.name])),
        *score_tables(found, first),
    ]
    publish_section(RESULTS, PREAMBLE, "cost", "The same verdict for less: the demo's models", parts)


def answer(found: Sequence[Agreement], records: Records) -> str:
    """Which setting meets the criterion, how today's does, and what so few trainings can show."""
    chosen, today = chosen_of(found), next(each for each in found if each.name == TODAY)
    stopped = sum(own[REFERENCE.name].verdict.stop is not None for own in records.values())
    all_alike = share_of([True] * len(records))
    itself = [each.agrees for own in records.values() for each in other_seeds(own[REFERENCE.name], ROUNDS)]
    near, good = (sum(getattr(each, name) for each in today.decisions) for name in ("near_stop", "as_good"))
    return "\n".join(
        wrapped(each)
        for each in (
            f"{outcome(chosen)} {TODAY.capitalize()} take {today.time:.0%} of the time of {REFERENCE.steps}, and agree "
            f"with them in {_count(today.agreeing)} trainings. The reference stops "
            f"{stopped} of the {len(records)}. The stop is at most one evaluation away in {near}, "
            f"and the best step as good in {good}. On average, it is worse by {shown(today.lost, '.3f')}.",
            f"Trainings that agree, by the number of steps: {by_steps(found)}.",
            f"When images are drawn anew, {TODAY} agree with the reference on the same images in "
            f"{_percent(each.agrees for each in today.resampled)}% of the draws, and the reference agrees with itself "
            f"on other images in {_percent(itself)}%.",
            f"Even if all {len(records)} trainings agreed, the 95% interval would begin at {all_alike.low:.2f}: so few "
            f"cannot show that a setting decides alike in {AGREEING:.0%}.",
        )
    )


def by_steps(found: Sequence[Agreement]) -> str:
    """In how many trainings each setting agrees that differs from the reference only in its number of steps."""
    plain = {each.name: each.steps for each in EVERYWHERE if each.name == f"{each.steps} steps"}
    counts = {plain[each.name]: round(each.agreeing.mean * each.agreeing.n) for each in found if each.name in plain}
    return ", ".join(f"{count} with {steps} steps" for steps, count in counts.items())


def outcome(chosen: Agreement | None) -> str:
    """What the rule says about `fast`."""
    if chosen is None:
        return f"**No setting meets the rule below**: `fast` stays at {TODAY}, and `full` the default."
    return f"**{chosen.name}** is the cheapest setting that meets the rule below; `fast` is {TODAY}."


def wrapped(sentence: str) -> str:
    return textwrap.fill(sentence, 118, initial_indent="- ", subsequent_indent="  ", break_long_words=False)


def _count(found: Estimate) -> str:
    """Text such as `11 of 12 [0.65, 0.99]`."""
    return f"{round(found.mean * found.n)} of {found.n} [{found.low:.2f}, {found.high:.2f}]"


def _percent(found: Iterable[bool]) -> str:
    values = list(found)
    return f"{100 * np.mean(values):.0f}" if values else ""


DECIDED = ["setting", "time", "agrees", "strictly", "stop", "±1", "best", "lost", "alarms", "resampled, %"]


def decision_tables(found: Sequence[Agreement], records: Records) -> list[str]:
    """The decisions with the settings measured in all trainings, and with the others: without intervals of so few."""
    rendered = [each for each in found if not each.is_reference]
    everywhere = [each for each in rendered if len(each.pairs) == len(records)]
    again = [each.agrees for own in records.values() for each in other_seeds(own[REFERENCE.name], ROUNDS)]
    rows = [decision_row(each) for each in everywhere]
    tables = [table(DECIDED, [*rows, [OTHER_SEEDS, "1.00", *[""] * 7, _percent(again)]])]
    if fewer := [short_row(each) for each in rendered if each not in everywhere]:
        tables.append(f"Measured in fewer trainings:\n\n{table([*DECIDED[:3], *DECIDED[-2:]], fewer)}")
    return tables


def decision_row(each: Agreement) -> list[str]:
    return [
        each.name,
        f"{each.time:.2f}",
        _count(each.agreeing),
        _count(share_of([one.strictly for one in each.decisions])),
        *(f"{sum(getattr(one, name) for one in each.decisions)}" for name in ("same_stop", "near_stop", "as_good")),
        shown(each.lost, "+.3f"),
        *_alarms_and_draws(each),
    ]


def short_row(each: Agreement) -> list[str]:
    agreeing = sum(one.agrees for one in each.decisions)
    return [each.name, f"{each.time:.2f}", f"{agreeing} of {len(each.decisions)}", *_alarms_and_draws(each)]


def _alarms_and_draws(each: Agreement) -> list[str]:
    return [f"{each.alarms[0]} of {each.alarms[1]}", _percent(one.agrees for one in each.resampled)]


def training_table(records: Records, metric: str) -> str:
    """Every training: the highest and the last score, and the decisions with the settings measured everywhere."""
    names = [REFERENCE.name, *(each.name for each in EVERYWHERE), *HALF_THE_IMAGES]
    rows = []
    for name, own in records.items():
        curve = own[REFERENCE.name].curve(metric)
        goes = ", ".join(_number(each) for each in (np.fmax.reduce(curve[1:]), curve[-1]))
        rows.append([name, goes, *(_decided(own[each], own[REFERENCE.name]) for each in names)])
    head = ["training", f"`{metric}`: highest, last", *names]
    return (
        "Stop and best step in each training. In bold: does not agree; in italics: another best step that is as "
        f"good.\n\n{table(head, rows)}"
    )


def _decided(found: Record, reference: Record) -> str:
    verdict, alike = found.verdict, compared(found, reference, reference)
    text = f"{_stop(verdict)}, {verdict.best}"
    mark = "" if alike.strictly else "*" if alike.agrees else "**"
    reason = f" ({verdict.reason.value})" if found is reference and isinstance(verdict.reason, StopReason) else ""
    return f"{mark}{text}{mark}{reason}"


def _stop(verdict: Verdict) -> str:
    return "never" if verdict.stop is None else str(verdict.stop)


def _number(found: float) -> str:
    return "no face" if np.isnan(found) else f"{found:.2f}"


def notes(config: Config, records: Records, timed: int) -> str:
    grid, steps = config.prompt_grid, sorted({each.step for own in records.values() for each in _of_reference(own)})
    return NOTES.format(
        subjects=sum(not cell.is_probe for cell in grid.cells),
        probes=sum(cell.is_probe for cell in grid.cells),
        size=config.data.resolution,
        guidance=grid.guidance,
        every=steps[1],
        last=steps[-1],
        rounds=ROUNDS,
        timed=timed,
        again=OTHER_SEEDS.capitalize(),
    )


def _of_reference(own: Mapping[str, Record]) -> tuple[Evaluation, ...]:
    return own[REFERENCE.name].evaluations


def score_tables(found: Sequence[Agreement], first: Record) -> list[str]:
    """How the scores differ: their order over the steps, their means over all, and the means at each step."""
    columns = [name for name in first.columns if first.columns[name].role == "score" and covers(first, name)]
    others = [each for each in found if not each.is_reference]
    rendered = [each for each in others if each.name not in HALF_THE_IMAGES]

    def rows(of: Sequence[Agreement], cell: Callable[[Agreement, str], str]) -> list[list[str]]:
        return [[each.name, str(len(each.pairs)), *(cell(each, name) for name in columns)] for each in of]

    head = ["setting", "trainings", *(f"`{name}`" for name in columns)]
    noises = ["noise", "1", *(f"{noise(first, name):.3f}" for name in columns)]
    return [
        f"{ORDER}\n\n{table(head, rows(others, _order))}",
        f"{DIFFERENCE}\n\n{table(head, rows(rendered, lambda each, name: shown(each.bias(name), '.3f')))}",
        f"{LARGEST}\n\n{table(head, [*rows(others, lambda each, name: f'{each.deviation(name):.3f}'), noises])}",
    ]


ORDER = "**Order.** Spearman's correlation with the reference over the steps: the mean and (the worst training)."

DIFFERENCE = "**Difference.** The mean difference from the reference, with its 95% interval over noise samples."

LARGEST = """**Largest difference** of a mean at one step from that of the reference. *Noise* is half the width of the
mean's 95% interval, in the first training."""


def _order(each: Agreement, column: str) -> str:
    known = each.correlations(column)
    return f"{np.mean(known):.2f} ({min(known):.2f})" if known else "—"
