"""Measure how cost grows: evaluations, pages, and commands with 1, 10, and 100 times their input.

python benchmarks/scaling.py
python benchmarks/scaling.py --check

`--check` measures only 1 and 10 times the input, and fails if a ratio is more than twice the one in SCALING.md.
"""

import argparse
import io
import math
import re
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import ROOT, publish_section, table

from finetune_monitor.cli import main as command
from finetune_monitor.monitor.rules.plateau import Plateau
from finetune_monitor.monitor.stopping import Watched, decide
from finetune_monitor.record.alarms import alarms
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.history import read_run
from finetune_monitor.rendering.renderer import Renderer
from finetune_monitor.report.page import write_page
from finetune_monitor.studies.aesthetic_head.fitting import Targets, fit_head
from finetune_monitor.studies.aesthetic_head.settings import FitSettings
from finetune_monitor.studies.agreement.study import study
from models import DEMO
from report import Load, SyntheticRun
from support.worlds import guesses, sample, truth

RESULTS, PLOT = Path(__file__).with_name("SCALING.md"), ROOT / "assets/scaling.png"
PREAMBLE = """# How cost grows, measured

Each section names the command that wrote it. Run the command again to replace the section.
"""

FACTORS = (1, 10, 100)
ROUND = 0.02
"""CPU seconds that a round takes at least: the clock cannot tell shorter times apart."""

SLACK = 2.0
"""How many times the recorded ratio is allowed: times on a shared machine vary by half."""

LEAST_RATIO = 3.5
"""Smaller recorded ratios count as this one: fixed costs, which vary, are most of the time with little input."""

LINEAR = 1.15
"""The largest exponent that counts as growing with the work, given that variation."""

Action = Callable[[], Any]


@dataclass(frozen=True)
class Subject:
    """Something whose input can be made larger.

    unit: what the input is counted in.
    base: the input at factor 1.
    prepare: from an empty folder and the size of the input to the action that is timed.
    """

    unit: str
    base: int
    prepare: Callable[[Path, int], Action]


def a_run(folder: Path, evaluations: int) -> Path:
    """A recorded run with eight images per evaluation."""
    run = SyntheticRun(folder / "runs/run", Load(1, evaluations, 8, 64), 0)
    for _ in range(evaluations):
        run.evaluate()
    return run.folder


def shown(folder: Path, size: int) -> Action:
    run = a_run(folder, size)
    return lambda: quietly("show", str(run))


def compared(folder: Path, size: int) -> Action:
    runs = [a_run(folder / name, size) for name in ("a", "b")]
    return lambda: quietly("compare", *map(str, runs))


def judged(folder: Path, size: int) -> Action:
    """What a monitor does with the history after each evaluation."""
    history = read_run(a_run(folder, size))
    watched = Watched(history.evaluations, history.columns)
    rules = [Plateau("face_similarity")]
    return lambda: (decide(watched, rules, "face_similarity"), alarms(history.evaluations, history.columns))


def written(folder: Path, size: int) -> Action:
    run = a_run(folder, size)
    pages = iter(range(1_000))
    return lambda: write_page(folder / f"page-{next(pages)}", [run], None, 1)


def updated(folder: Path, size: int) -> Action:
    run = a_run(folder, size)
    write_page(folder / "page", [run], None, 1)
    return lambda: write_page(folder / "page", [run], None, 1)


def agreed(folder: Path, size: int) -> Action:
    level, random = truth(images=size), np.random.default_rng(1)
    labels = np.stack([guesses(level, 0.3, random) for _ in range(5)])
    world = sample(labels, level + random.normal(size=size))
    return lambda: study(world)


def fitted(folder: Path, size: int) -> Action:
    """A fixed number of passes, because early stopping depends on the data."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(size, 768)).astype(np.float16)
    targets = Targets(random.uniform(1, 10, size), (1.0, 10.0))
    order, cut = random.permutation(size), size // 5
    settings = FitSettings(max_rounds=3, patience=3)
    return lambda: fit_head(rows, targets, order[cut:], order[:cut], settings)


def rendered(folder: Path, size: int) -> Action:
    return rendering(size, 64)


def rendered_larger(folder: Path, size: int) -> Action:
    """Images of this many thousand pixels."""
    return rendering(2, round(math.sqrt(size * 1024) / 8) * 8)


def rendering(cells: int, pixels: int) -> Action:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(DEMO / "stable-diffusion", safety_checker=None)
    grid = PromptGrid(["a photo of a person"], list(range(cells)), steps=1, guidance=3.0, size=(pixels, pixels))
    renderer = Renderer(pipeline, grid)
    renderer.render(renderer.grid.cells[:1])
    return lambda: renderer.render(renderer.grid.cells)


SUBJECTS = {
    "render a grid": Subject("images", 2, rendered),
    "render larger images": Subject("thousand pixels", 1, rendered_larger),
    "decide after an evaluation": Subject("evaluations", 10, judged),
    "show": Subject("evaluations", 10, shown),
    "compare": Subject("evaluations", 10, compared),
    "write a page": Subject("evaluations", 5, written),
    "write it again, nothing new": Subject("evaluations", 5, updated),
    "agree": Subject("images", 20, agreed),
    "fit a head, three passes": Subject("images", 500, fitted),
}


def quietly(*words: str) -> None:
    with redirect_stdout(io.StringIO()):
        if status := command(list(words)):
            raise SystemExit(f"{' '.join(words)} ended with {status}")


def cpu_seconds(action: Action, rounds: int) -> float:
    """CPU seconds of a call: the least of several rounds after a first call, because other work can only add to it."""
    action()
    timed = partial(timeit.timeit, action, timer=time.process_time)
    calls = math.ceil(ROUND / max(timed(number=1), 1e-6))
    return min(timed(number=calls) / calls for _ in range(rounds))


def growth(subject: Subject, factors: tuple[int, ...], rounds: int) -> list[float]:
    """CPU seconds at each factor."""
    found = []
    for factor in factors:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            action = subject.prepare(Path(folder), subject.base * factor)
            found.append(cpu_seconds(action, rounds))
    return found


def exponent(found: list[float]) -> float:
    """The power of the input with which cost grows over the last factor: 1 is linear, 2 quadratic."""
    return math.log(found[-1] / found[-2]) / math.log(FACTORS[-1] / FACTORS[-2])


def measure(rounds: int) -> None:
    values = {}
    for name, subject in SUBJECTS.items():
        values[name] = growth(subject, FACTORS, rounds)
        print(f"{name}: {', '.join(f'{1000 * each:,.2f}' for each in values[name])} ms", file=sys.stderr, flush=True)
    rows = [
        (f"{name} ({SUBJECTS[name].base:,} {SUBJECTS[name].unit})", *_cells(found)) for name, found in values.items()
    ]
    header = (
        "what (smallest input)",
        "CPU ms",
        "10 times",
        "100 times",
        "ratio at 10 times",
        "ratio at 100 times",
        "exponent",
    )
    faster = [name for name, found in values.items() if exponent(found) > LINEAR]
    notes = [
        "- CPU time of one process: the least of several rounds after a first one. The exponent is the power of the "
        "input with which cost grows from 10 to 100 times; 1 is linear.",
        f"- These grow faster than their input: {'; '.join(faster) or 'none'}.",
    ]
    plot(values)
    picture = "![CPU time against input, one line each, both axes logarithmic](../assets/scaling.png)"
    publish_section(
        RESULTS, PREAMBLE, "growth", "Growth with the input", [picture, table(header, rows), "\n".join(notes)]
    )


def _cells(found: list[float]) -> list[str]:
    ratios = [f"{each / found[0]:.1f}" for each in found[1:]]
    return [*(f"{1000 * each:,.2f}" for each in found), *ratios, f"{exponent(found):.2f}"]


def plot(values: dict[str, list[float]]) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.4), layout="constrained")
    for name, found in values.items():
        axes.plot(FACTORS, [each / found[0] for each in found], marker="o", label=name)
    axes.plot(FACTORS, FACTORS, color="black", linestyle=":", label="linear")
    axes.set(xscale="log", yscale="log", xlabel="input, times the smallest", ylabel="CPU time, times the smallest")
    axes.set_xticks(FACTORS, [f"{factor}" for factor in FACTORS])
    axes.legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(PLOT, dpi=110)


def recorded() -> dict[str, float]:
    """How many times as long each subject took with 10 times the input."""
    rows = re.findall(r"^\| ([^|(]+) \(\d[^|]*\) \|(.*)\|$", RESULTS.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: float(cells.split("|")[3]) for name, cells in rows}


def check() -> int:
    """Compare the growth from 1 to 10 times with the recorded one; returns the exit status."""
    known, status = recorded(), 0
    for name, subject in SUBJECTS.items():
        limit = SLACK * max(known[name], LEAST_RATIO)
        ratio = math.inf
        for rounds in (1, 3, 5):  # a burst of other work can disturb an attempt
            if ratio > limit:
                small, large = growth(subject, FACTORS[:2], rounds)
                ratio = large / small
        if ratio > limit:
            print(f"{name}: 10 times the input takes {ratio:.1f} times as long, recorded {known[name]:.1f}")
            status = 1
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with SCALING.md")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is repeated")
    options = parser.parse_args()
    if options.check:
        return check()
    measure(options.rounds)
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
