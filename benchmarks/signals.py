"""Measure interval coverage and errors of stopping rules in simulations with known truth; writes benchmarks/SIGNALS.md.

python -m benchmarks.signals
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.noise import (
    METRIC,
    RESIDUAL,
    SEED,
    SEED_AND_STEP,
    Shape,
    changes,
    history,
    normal,
    photos,
    scores,
    skewed,
)
from finetune_monitor.base.text import table
from finetune_monitor.monitor.rules.patience import Patience
from finetune_monitor.monitor.rules.plateau import Plateau
from finetune_monitor.monitor.stopping import StoppingRule, Watched
from finetune_monitor.record.curve import best_of, points
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.stats.estimate import Estimate
from finetune_monitor.stats.intervals import jackknife, t_interval
from finetune_monitor.stats.statistics import interval, mean

RESULTS = Path(__file__).with_name("SIGNALS.md")

ALARMS = "## Alarms over training"
"""The start of the section that benchmarks/alarms.py writes."""

RUNS = 2000
SHAPES = {"normal": normal, "skewed": skewed}
DESIGNS = ((2, 4), (4, 4), (8, 8))
PHOTOS = (4, 6, 10, 20)

GAIN, EVALUATIONS = 0.25, 10
GRID = PromptGrid(["a photo of sks person", "sks person, oil painting", "sks person smiling", "sks person outdoors"])
SMALL = PromptGrid(GRID.prompts[:2])

RISE = [GAIN * k / EVALUATIONS for k in range(EVALUATIONS + 1)]
CURVES = {
    "plateau": [0.0, *[GAIN] * EVALUATIONS],
    "slow rise": RISE,
    "overfitting": [*(GAIN * k / 5 for k in range(6)), *(GAIN - 0.02 * k for k in range(1, 6))],
    "jumps": [GAIN * k / 4 for k in (0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4)],
}
"""True means at steps 0, 300, ...: a gain of .25 at once; over ten evaluations; at the fifth, then down; in jumps."""

RULES = {
    "plateau (default)": Plateau(METRIC),
    "plateau, windows of 2": Plateau(METRIC, window=2),
    "patience 4, .005 (former default)": Patience(METRIC, patience=4),
    "patience 3, .01 (the demo's former rule)": Patience(METRIC, patience=3, min_delta=0.01),
}


@dataclass(frozen=True)
class Rates:
    """The error rates of a rule on a curve, as shares: 1 means all.

    early: stopped before a step within a tenth of the gain of the best.
    unstopped: not stopped by the last evaluation.
    lost: share of the gain lost at the step that was called the best.
    bias: how much better the reported best score is than the true one, on average; raw: the same for the raw means.
    """

    early: float
    unstopped: float
    lost: float
    bias: float
    raw: float


def rates(
    rule: StoppingRule, curve: Sequence[float], runs: int = RUNS, seed: int = 0, grid: PromptGrid = GRID
) -> Rates:
    """Simulate complete runs that end when the rule stops them."""
    rng, best, found = np.random.default_rng(seed), max(curve), []
    for _ in range(runs):
        whole = history(rng, curve, grid)
        count = next((n for n in range(1, len(whole) + 1) if rule.decide(Watched(whole[:n]))), None)
        seen = whole[: count or len(whole)]
        chosen = best_of(seen, METRIC)
        assert chosen is not None
        step, score = chosen
        early = max(curve[: len(seen)]) < best - 0.1 * GAIN
        top = max(points(seen, METRIC), key=lambda point: point.score.mean)
        truth, true_top = curve[step // 300], curve[top.step // 300]
        found.append((early, count is None, (best - truth) / GAIN, score - truth, top.score.mean - true_top))
    return Rates(*np.mean(found, axis=0))


def coverage(draw: Callable[[], tuple[Estimate, float]], runs: int = RUNS) -> float:
    """The share of intervals that contain the truth."""
    return float(np.mean([found.low <= truth <= found.high for found, truth in (draw() for _ in range(runs))]))


def of_mean(
    rng: np.random.Generator, design: tuple[int, int], shape: Shape, is_crossed: bool
) -> tuple[Estimate, float]:
    """The interval of a grid's mean score."""
    return t_interval(*scores(rng, *design, shape=shape, is_crossed=is_crossed)), 0.0


def of_change(
    rng: np.random.Generator, design: tuple[int, int], shape: Shape, is_crossed: bool
) -> tuple[Estimate, float]:
    """The interval of a paired difference of two steps."""
    return t_interval(*changes(rng, *design, shape=shape, is_crossed=is_crossed)), 0.0


def of_bootstrap(
    rng: np.random.Generator, design: tuple[int, int], shape: Shape, is_crossed: bool
) -> tuple[Estimate, float]:
    """The previous method: a percentile bootstrap over the images."""
    return interval(mean, scores(rng, *design, shape=shape, is_crossed=is_crossed)[0], rounds=400), 0.0


def of_ceiling(rng: np.random.Generator, count: int, shape: Shape) -> tuple[Estimate, float]:
    """The interval of the photos' mean similarity to each other."""
    of_pairs, truth = photos(rng, count, shape)
    return jackknife(of_pairs, count).interval(count), truth


def of_leave_one_out(rng: np.random.Generator, count: int, shape: Shape) -> tuple[Estimate, float]:
    """The previous method: a percentile bootstrap over each photo's mean with the others."""
    of_pairs, truth = photos(rng, count, shape)
    pairs, every = count * (count - 1) / 2, of_pairs(range(count))
    without = [of_pairs([other for other in range(count) if other != one]) for one in range(count)]
    means = [(pairs * every - (pairs - count + 1) * found) / (count - 1) for found in without]
    return interval(mean, np.array(means), rounds=400), truth


def coverage_rows() -> Iterator[list[str]]:
    """One row per formula and seed design, one column per grid and noise shape."""
    kinds = {
        "mean, separate seeds (default): t over images": (of_mean, False),
        "mean, crossed seeds: t over seed means": (of_mean, True),
        "mean, crossed seeds: percentile bootstrap over images (formerly used)": (of_bootstrap, True),
        "paired difference, separate seeds": (of_change, False),
        "paired difference, crossed seeds": (of_change, True),
    }
    for name, (draw, is_crossed) in tqdm(kinds.items(), desc="intervals of means"):
        cells = [
            coverage(partial(draw, np.random.default_rng(1), design, shape, is_crossed))
            for design in DESIGNS
            for shape in SHAPES.values()
        ]
        yield [name, *map(percent, cells)]


def ceiling_rows() -> Iterator[list[str]]:
    """One row per formula, one column per number of photos and noise shape."""
    kinds = {"jackknife with t": of_ceiling, "bootstrap of leave-one-out means (formerly used)": of_leave_one_out}
    for name, draw in tqdm(kinds.items(), desc="intervals of the ceiling"):
        cells = [
            coverage(partial(draw, np.random.default_rng(2), count, shape))
            for count in PHOTOS
            for shape in SHAPES.values()
        ]
        yield [name, *map(percent, cells)]


def stopping_rows(grid: PromptGrid) -> Iterator[list[str]]:
    """One row per rule and curve."""
    for rule_name, rule in tqdm(RULES.items(), desc=f"stopping rules, {len(grid.cells)} images"):
        for curve_name, curve in CURVES.items():
            found = rates(rule, curve, grid=grid)
            shares = (found.early, found.unstopped, found.lost)
            yield [rule_name, curve_name, *map(percent, shares), f"{found.bias:+.3f}", f"{found.raw:+.3f}"]


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def report() -> str:
    """The content of SIGNALS.md."""
    grids = [f"{p} x {s}, {shape}" for p, s in DESIGNS for shape in SHAPES]
    counts = [f"{count} photos, {shape}" for count in PHOTOS for shape in SHAPES]
    stops = ["rule", "curve", "stopped early", "not stopped", "lost gain", "bias of the best", "bias of the raw best"]
    return f"""# Intervals, stopping rules, and alarms, measured

Written by `python -m benchmarks.signals`: {RUNS:,} simulated runs per cell, with fixed seeds. The noise is that of the
demo's images, with standard deviations of {SEED:g} for the seed, {SEED_AND_STEP:g} for seed and step, and {RESIDUAL:g}
for the residual. Skewed noise is a mirrored gamma distribution: most images score near the top, and some fail.

## How many 95% intervals contain the true value, in %

Grids are given as prompts x images per prompt. *Crossed* means that all prompts share the same seeds.

{table(["interval", *grids], list(coverage_rows()))}

The ceiling is the mean cosine between photos. The simulated photos are sampled around one direction.

{table(["interval", *counts], list(ceiling_rows()))}

## Stopping rules

Each run has ten evaluations after step 0, a gain of {GAIN:g}, and separate seeds for each prompt.
The true curve is one of these:

- *plateau*: the entire gain comes with the first evaluation;
- *slow rise*: the gain is spread over all ten;
- *overfitting*: the gain comes by the fifth evaluation, and each later one is .02 lower;
- *jumps*: the gain comes in four jumps, with two flat evaluations in between.

The columns are:

- *stopped early*: % of runs that stopped before they came within a tenth of the gain of the best step;
- *lost gain*: how far the reported best step falls short of the true best one, in % of the gain;
- *bias of the best*: the reported (smoothed) score of the best step minus its true score;
- *bias of the raw best*: the same for the best raw mean.

With {len(GRID.cells)} images:

{table(stops, list(stopping_rows(GRID)))}

With {len(SMALL.cells)} images:

{table(stops, list(stopping_rows(SMALL)))}
"""


def main() -> None:
    """Simulate everything, with a progress bar for each part, and write the tables."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    _, heading, alarms = RESULTS.read_text().partition(ALARMS)
    RESULTS.write_text(report() + (f"\n{heading}{alarms}" if heading else ""))
    print(f"wrote {RESULTS}")


if __name__ == "__main__":
    main()
