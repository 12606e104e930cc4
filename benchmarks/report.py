"""Measure how long a page takes to write, its size, how fast it opens and responds, and the overhead of a sweep.

python benchmarks/report.py long
python benchmarks/report.py many
python benchmarks/report.py sweep

`long` is one run of 100 evaluations with 64 images of 512 px; `many` is 50 runs of 30 evaluations with 8 images. Both
need Chromium and the package playwright.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measure import ROOT, SECONDS, Quantity, Rounds, alternate, comparison, listing, publish_section, table
from PIL import Image

from finetune_monitor.record.evaluation import Decision, Evaluation, ScoredImage, summarize
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.run_record import RunRecord
from finetune_monitor.report.page import INDEX, write_page

sys.path.insert(0, str(ROOT / "tests"))

from support.browser import opened_page, started_chromium

RESULTS = Path(__file__).with_name("REPORT.md")
PREAMBLE = """# Pages and sweeps, measured

Each section names the command that wrote it. Run the command again to replace the section.
"""

MILLISECONDS = Quantity("ms", "times as fast", smaller_is_faster=True, digits=0)
PATIENCE = 60_000
"""Milliseconds after which a page counts as never opening."""

STEP = 50
"""Training steps between two evaluations."""

TRIALS = 4
HALF = max(1, (os.cpu_count() or 1) // 2)
"""Cores for each of two concurrent training runs."""


@dataclass(frozen=True)
class Load:
    """How much the page shows; images are per evaluation."""

    runs: int
    evaluations: int
    images: int
    pixels: int = 512

    def __str__(self) -> str:
        runs = "one run" if self.runs == 1 else f"{self.runs} runs"
        return f"{runs} of {self.evaluations} evaluations with {self.images} images of {self.pixels} px"


LOADS = {"long": Load(1, 100, 64), "many": Load(50, 30, 8)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*LOADS, "sweep"])
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is repeated but the first writing")
    parser.add_argument("--try", action="store_true", dest="is_try", help="a small load, and nothing is published")
    options = parser.parse_args()
    if options.what == "sweep":
        measure_sweep(options.rounds, options.is_try)
    else:
        load = LOADS[options.what]
        measure_page(options.what, small(load) if options.is_try else load, options.rounds, options.is_try)


def small(load: Load) -> Load:
    return Load(min(load.runs, 3), 4, min(load.images, 8), 64)


def show(what: str, title: str, parts: list[str], is_try: bool) -> None:
    if is_try:
        print("\n\n".join([f"## {title}", *parts]))
    else:
        publish_section(RESULTS, PREAMBLE, what, title, parts)


# --- pages --------------------------------------------------------------------------------------------------------


def measure_page(what: str, load: Load, rounds: int, is_try: bool) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        runs = [SyntheticRun(folder / f"runs/run-{number:02d}", load, number) for number in range(load.runs)]
        for run in runs:
            for _ in range(load.evaluations):
                run.evaluate()
        places, page, cores = [run.folder for run in runs], folder / "page", os.cpu_count() or 1
        writing: Rounds = {f"the first time, {cores} processes": [timed(lambda: write_page(page, places, None, cores))]}
        sizes = size_by_kind(page)
        opening, answering, seen = measure_reading(page, load, rounds)
        again, same = "update after one more evaluation", "update with nothing new"
        writing |= {again: [], same: []}
        for _ in range(rounds):
            runs[0].evaluate()
            for side in (again, same):
                writing[side].append(timed(lambda: write_page(page, places)))
        parts = [
            listing(writing, SECONDS, "writing the page"),
            table(("size", "MB"), [(kind, f"{size / 1e6:.2f}") for kind, size in sizes.items()]),
            listing(opening, MILLISECONDS, "opening the page in Chromium from disk, in a new context"),
            listing(answering, MILLISECONDS, f"a click on a point of the first chart ({seen} images visible)"),
            "- Opening is timed from navigation until all charts are painted. A click is timed from the press of the "
            "mouse button until the evaluation's images are laid out and the visible ones are painted. Only a few "
            "different images are used, so that they stay in the disk cache.",
        ]
        show(what, f"A page of {load}", parts, is_try)


class SyntheticRun:
    """A run directory without a training run; its images are links to a few that all steps share."""

    def __init__(self, folder: Path, load: Load, number: int):
        prompts = [f"a photo of sks person, scene {place}" for place in range(max(1, load.images // 8))]
        self.folder = folder
        self._grid = PromptGrid(prompts, seeds=tuple(range(load.images // len(prompts))))
        self._record = RunRecord(folder, self._grid)
        self._random = np.random.default_rng(number)
        self._pool = image_pool(folder.parent / "pool", load.pixels)
        metrics = {"face_similarity": [-1.0, 1.0], "aesthetic": [1.0, 10.0]}
        described = {name: {"higher_is_better": True, "bounds": bounds} for name, bounds in metrics.items()}
        self._record.begin({"metrics": described, "best_metric": "face_similarity"}, None, None)

    def evaluate(self) -> None:
        """Add one evaluation, `STEP` steps after the last."""
        step = STEP * len(self._record.evaluations)
        place = Path("images") / f"step-{step:06d}"
        (self.folder / place).mkdir(parents=True)
        images = []
        for cell in self._grid.cells:
            file = place / f"{cell.id}.png"
            os.link(self._pool[(cell.index + step // STEP) % len(self._pool)], self.folder / file)
            similarity = 0.7 - 0.6 * np.exp(-step / 800) + self._random.normal(0, 0.05)
            scores = {"face_similarity": similarity, "faces_found": 1.0, "aesthetic": self._random.normal(6, 0.5)}
            images.append(ScoredImage(cell, str(file), scores))
        scores = summarize(images, {})
        self._record.append(Evaluation(step, step / 10, float(step), scores, tuple(images), {}, Decision()))


def image_pool(folder: Path, pixels: int) -> list[Path]:
    """Sixteen images with photographic detail: a portrait, tinted and with camera grain."""
    if not folder.exists():
        folder.mkdir(parents=True)
        photo = next((ROOT / "assets/demo/photos/astronaut").glob("*.png"))
        portrait = np.asarray(Image.open(photo).convert("RGB").resize((pixels, pixels)), dtype=np.float64)
        random = np.random.default_rng(0)
        for number in range(16):
            changed = portrait * random.uniform(0.6, 1.2, 3) + random.normal(0, 4, portrait.shape)
            Image.fromarray(changed.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png", compress_level=1)
    return sorted(folder.glob("*.png"))


def timed(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def size_by_kind(page: Path) -> dict[str, int]:
    kinds = {"thumbnails": "thumbnails/*/*/*", "data": "data/*", "plotly": "plotly.min.js"}
    sizes = {kind: sum(path.stat().st_size for path in page.glob(pattern)) for kind, pattern in kinds.items()}
    whole = sum(path.stat().st_size for path in page.rglob("*") if path.is_file())
    return {**sizes, "everything else": whole - sum(sizes.values()), "entire page": whole}


# --- reading a page -----------------------------------------------------------------------------------------------

DRAWN = """() => new Promise((done) => {
  const look = () => {
    const panels = [...document.querySelectorAll("#charts .panel")];
    const drawn = panels.length > 0 && panels.every((panel) => panel.querySelector(".main-svg"));
    drawn ? requestAnimationFrame(() => setTimeout(() => done(performance.now()))) : requestAnimationFrame(look);
  };
  look();
})"""

WATCH = """(cells) => {
  const title = () => document.querySelector("#peek .step-title strong")?.textContent;
  const before = title();
  const isSeen = ({ top, bottom, left, right }) => bottom > 0 && top < innerHeight && right > 0 && left < innerWidth;
  window.answered = new Promise((done) => addEventListener("mousedown", () => {
    const start = performance.now();
    const look = () => {
      const images = [...document.querySelectorAll("#peek img, #gallery img")];
      const seen = images.filter((image) => isSeen(image.getBoundingClientRect()));
      const isThere = title() !== before && document.querySelectorAll("#gallery > li").length === cells;
      if (!isThere || seen.some((image) => !image.complete)) {
        requestAnimationFrame(look);
        return;
      }
      Promise.all(seen.map((image) => image.decode())).then(() => requestAnimationFrame(
        () => setTimeout(() => done([performance.now() - start, seen.length]))));
    };
    requestAnimationFrame(look);
  }, { capture: true, once: true }));
}"""


def measure_reading(page: Path, load: Load, rounds: int) -> tuple[Rounds, Rounds, int]:
    """Milliseconds until the charts are drawn, and until the page responds to clicks."""
    opening: Rounds = {"until the charts are drawn": []}
    answering: Rounds = {"the first click": [], "further clicks": []}
    seen = 0
    with started_chromium() as browser:
        for _ in range(rounds):
            with opened_page(browser, viewport={"width": 1280, "height": 1600}) as (tab, watched):
                tab.set_default_timeout(PATIENCE)
                tab.goto((page / INDEX).as_uri(), wait_until="commit")
                opening["until the charts are drawn"].append(tab.evaluate(DRAWN))
                for number, place in enumerate(places_to_click(tab, load)):
                    took, seen = click(tab, load, place)
                    answering["further clicks" if number else "the first click"].append(took)
                assert not watched.complaints, watched.complaints
    return opening, answering, seen


def places_to_click(tab: Any, load: Load) -> list[int]:
    """Evaluations across the run, except the one that is already shown."""
    shown = int(tab.locator("#step-slider").input_value())
    spread = dict.fromkeys(int(place) for place in np.linspace(1, load.evaluations - 1, 5))
    return [place for place in spread if place != shown]


def click(tab: Any, load: Load, place: int) -> tuple[float, int]:
    """Click a point of the last line drawn, which is that of the chosen run, on top."""
    chart = tab.locator("#charts .panel").first
    chart.scroll_into_view_if_needed()
    lines = chart.locator(".scatterlayer .trace").filter(has=tab.locator(f".points path:nth-child({place + 1})"))
    box = lines.last.locator(".points path").nth(place).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.wait_for_timeout(300)  # plotly finds the point below the pointer before it is pressed
    tab.evaluate(WATCH, load.images)
    tab.mouse.click(x, y)
    took, seen = tab.evaluate("() => window.answered")
    return float(took), int(seen)


# --- sweeps -------------------------------------------------------------------------------------------------------


def measure_sweep(rounds: int, is_try: bool) -> None:
    """Time the same four training runs with train.py and with a sweep."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        work = Work(Path(name), 10 if is_try else 60)
        work.train([0], "class images")  # generated once, and the files come from the disk the first time
        sides = {
            "train.py, two at a time, half of the threads each": work.side(work.in_pairs),
            "train.py, one after another, all threads": work.side(work.in_turn),
            "finetune-monitor sweep, two at a time": work.side(work.sweep),
        }
        parts = [
            comparison(alternate(sides, 1 if is_try else rounds), SECONDS, f"{TRIALS} trainings"),
            f"- Each training is the demo's with {work.steps} steps and {work.steps // 30 + 1} evaluations, with "
            f"seeds 0 to {TRIALS - 1}. The sweep's time includes starting and stopping Ray and writing its table and "
            "page.",
        ]
        show("sweep", "A sweep compared with plain runs", parts, is_try)


class Work:
    """Four training runs, with a separate folder for each way to run them."""

    def __init__(self, folder: Path, steps: int):
        self.folder, self.steps = folder, steps
        self._number = 0

    def side(self, action: Callable[[], None]) -> Callable[[], float]:
        def measured() -> float:
            self._number += 1
            return timed(action)

        return measured

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "data.class_images": str(self.folder / "class-images"),
            "train.max_steps": self.steps,
            "train.checkpoint_every": self.steps,
            "monitor.every": min(30, self.steps),
            "monitor.stopping": [],
            "monitor.sinks": {},
        }

    def in_turn(self) -> None:
        for seed in range(TRIALS):
            self.train([seed])

    def in_pairs(self) -> None:
        for first in range(0, TRIALS, 2):
            self.train([first, first + 1])

    def train(self, seeds: list[int], name: str = "plain") -> None:
        """Run training runs concurrently."""
        words = [f"{key}={value}" for key, value in self.settings.items()]
        command = [sys.executable, "train.py", "--config", "configs/demo.yaml", *words]
        threads = {} if len(seeds) == 1 else {"OMP_NUM_THREADS": str(HALF)}
        folders = {seed: self.folder / f"{name}-{self._number}-{seed}" for seed in seeds}
        run_all([[*command, f"seed={seed}", f"output_dir={folder}"] for seed, folder in folders.items()], threads)

    def sweep(self) -> None:
        import yaml

        content = {
            "base": str(ROOT / "configs/demo.yaml"),
            "output_dir": str(self.folder / f"sweep-{self._number}"),
            "set": self.settings,
            "seeds": list(range(TRIALS)),
            "resources": {"cpus": HALF, "gpus": 0},
        }
        file = self.folder / f"sweep-{self._number}.yaml"
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        run_all([[str(Path(sys.executable).with_name("finetune-monitor")), "sweep", str(file)]], {})


def run_all(commands: list[list[str]], environment: dict[str, str]) -> None:
    """Run the commands concurrently, until the last one ends."""
    everything = {**os.environ, **environment}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=ROOT, env=everything, **quiet) for command in commands]
    try:
        for process in processes:
            _, error = process.communicate()
            if process.returncode:
                raise RuntimeError(f"{process.args}: exit status {process.returncode}\n{error[-2000:]}")
    finally:
        for process in processes:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
