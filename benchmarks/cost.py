"""Measure what an evaluation must cost so that it comes to the same verdict; writes benchmarks/COST.md.

python -m benchmarks.cost        (two trainings; COST.md names the command that wrote it)

`cost_report.CRITERION` says which setting is chosen; it and the trainings were written down before they were measured.
Run the same command again to continue an interrupted study.
"""

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.cheaper import CANDIDATES, EVERYWHERE, HALF_THE_IMAGES, OTHERS, REFERENCE, Setting, renderer
from benchmarks.cost_report import publish
from benchmarks.measure import alternate
from benchmarks.verdicts import Record, as_record
from finetune_monitor.base.files import write_atomic
from finetune_monitor.monitor.evaluator import Evaluator
from finetune_monitor.record.evaluation import ScoredImage
from finetune_monitor.record.kept_weights import step_folder
from finetune_monitor.rendering.isolation import isolated
from finetune_monitor.scoring.settings import make_metrics
from finetune_monitor.stats.estimate import json_number
from finetune_monitor.training.config import Config, load_config
from finetune_monitor.training.trainable import load_pipeline

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs/demo.yaml"

EVERY, LAST = 40, 320

ROUNDS = 3
"""How often every setting is timed."""

TRAININGS: Mapping[str, Mapping[str, Any]] = {
    "the demo's learning rate": {},
    "ten times the learning rate": {"seed": 1, "train.learning_rate": 1e-2},
    "a fifth of the learning rate": {"seed": 2, "train.learning_rate": 2e-4},
    "two photos": {"seed": 4, "data.instance_count": 2},
    "three times the learning rate": {"seed": 5, "train.learning_rate": 3e-3},
    "without prior preservation": {"seed": 3, "train.prior_loss_weight": 0},
    "five times the learning rate": {"seed": 6, "train.learning_rate": 5e-3},
    "no random crops, twice the rate": {"seed": 7, "train.learning_rate": 2e-3, "data.random_crop": "false"},
    "one photo, twice the rate": {"seed": 8, "train.learning_rate": 2e-3, "data.instance_count": 1},
    "half the learning rate": {"seed": 9, "train.learning_rate": 5e-4},
    "three photos, three times the rate": {"seed": 10, "train.learning_rate": 3e-3, "data.instance_count": 3},
    "twice the learning rate": {"seed": 11, "train.learning_rate": 2e-3},
    "rank 4, three times the rate": {"seed": 12, "train.learning_rate": 3e-3, "train.rank": 4},
    "four photos, no prior preservation": {"seed": 13, "data.instance_count": 4, "train.prior_loss_weight": 0},
    "batches of two": {"seed": 14, "train.batch_size": 2},
    "another seed": {"seed": 15},
}
"""Trainings that rise until they copy, fail, rise slowly, leak, and overfit, in the order of measuring."""

WITH_CANDIDATES = 3
"""How many of the trainings are rendered with all candidates; the others only with those in `EVERYWHERE`."""

ONLY_WEIGHTS = {
    "train.batch_size": 4,
    "train.lora_alpha": 32,
    "data.class_count": 24,
    "data.class_prompt": "a photo of a person",
    "train.max_steps": LAST,
    "train.checkpoint_every": LAST,
    "monitor.every": EVERY,
    "monitor.keep": "all",
    "monitor.stopping": [],
    "monitor.sinks": {},
    "monitor.grid.steps": 1,
    "monitor.grid.images_per_prompt": 1,
    **{f"monitor.metrics.{name}": "null" for name in ("aesthetic", "clip_score", "leakage", "diversity", "copying")},
    "monitor.metrics.recognized": "null",
}
"""Settings of all trainings, which do not follow demo.yaml, so that new ones can be added. The trainings only leave
weights; the study itself renders and scores."""

RULES = [
    "{rule: plateau, metric: face_similarity, window: 2}",
    "{rule: guard, metric: copying, level: 0.2}",
    "{rule: divergence, metric: face_similarity}",
]

JUDGED = {
    "monitor.grid.steps": 15,
    "monitor.grid.images_per_prompt": 6,
    "monitor.grid.images_per_probe": 2,
    "monitor.stopping": f"[{', '.join(RULES)}]",
}
"""The images of the demo with fewer probes; its rules, with a plateau within eight evaluations, and divergence. Every
setting has steps of its own; these only name the files with scores."""


@dataclass(frozen=True)
class Training:
    """One training of the demo's model.

    folder: of the study.
    """

    name: str
    folder: Path

    @property
    def run_dir(self) -> Path:
        return self.folder / self.name.replace(" ", "-")

    def train(self) -> None:
        """Train unless it has been done; an interrupted training is resumed."""
        if step_folder(self.run_dir, LAST).is_dir():
            return
        settings = {"output_dir": self.run_dir, "data.class_images": self.folder / "class-images", **ONLY_WEIGHTS}
        changes = [f"{key}={value}" for key, value in {**settings, **TRAININGS[self.name]}.items()]
        command = [sys.executable, str(ROOT / "train.py"), "--config", str(CONFIG), *changes]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if not step_folder(self.run_dir, LAST).is_dir():
            raise RuntimeError(f"{self.run_dir}: training ended with {done.returncode}\n{done.stderr[-2000:]}")


class Study:
    """Renders and scores weights with every setting, and remembers the results.

    Args:
        folder: of the trainings and of the results.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        changes = {**JUDGED, "data.class_images": folder / "class-images"}
        self.config: Config = load_config(CONFIG, [f"{key}={value}" for key, value in changes.items()])
        self._order = 0

    @cached_property
    def _pipeline(self) -> Any:
        return load_pipeline(ROOT / self.config.model, self.config.base_model)

    @cached_property
    def _base(self) -> dict[str, torch.Tensor]:
        return {name: each.clone() for name, each in self._pipeline.unet.state_dict().items()}

    @cached_property
    def metrics(self) -> Sequence[Any]:
        grid = self.config.prompt_grid
        found = make_metrics(self.config, torch.device("cpu"), grid.prompts, of_images=False)
        assert not found.missing, found.missing
        return found.metrics

    def records(self, training: Training, settings: Sequence[Setting], last: int) -> dict[str, Record]:
        """The evaluations up to a step with the settings, which must have been measured, and with half the images."""
        found = {each.name: self._record(training, each, last) for each in settings}
        fewer = {name: self._record(training, each, last, half=True) for name, each in HALF_THE_IMAGES.items()}
        return {**found, **fewer}

    def _record(self, training: Training, setting: Setting, last: int, half: bool = False) -> Record:
        """Half: only the first half of each prompt's images, and all probes."""
        steps, kept = range(0, last + 1, EVERY), self._places(half)
        read = {step: json.loads(self._file(training, step, setting).read_text()) for step in steps}
        cells = self.config.prompt_grid.cells
        images = {
            step: [ScoredImage(cells[place], None, _scores(found["images"][place])) for place in kept]
            for step, found in read.items()
        }
        return as_record(images, self.metrics, self.config.monitor.rules)

    def seconds(self, training: Training, settings: Sequence[Setting]) -> dict[str, list[float]]:
        """CPU seconds of rendering with the settings in turn, in several rounds, with a training's last weights."""
        file = self._folder / "seconds.json"
        found: dict[str, list[float]] = json.loads(file.read_text()) if file.exists() else {}
        if not {each.name for each in settings} <= found.keys():
            self._load(step_folder(training.run_dir, LAST))
            self._rendered_in(settings[-1])
            found = alternate({each.name: partial(self._rendered_in, each) for each in settings}, ROUNDS)
            write_atomic(file, json.dumps(found).encode())
        share = len(self._places(half=True)) / len(self.config.prompt_grid.cells)
        half = {name: [share * value for value in found[each.name]] for name, each in HALF_THE_IMAGES.items()}
        return {**found, **half}

    def _rendered_in(self, setting: Setting) -> float:
        with renderer(self._pipeline, self.config.prompt_grid, setting) as made, isolated(made.pipeline):
            start = time.process_time()
            made.render(self.config.prompt_grid.cells)
            return time.process_time() - start

    def _places(self, half: bool) -> list[int]:
        grid = self.config.prompt_grid
        prompts = [cell.prompt for cell in grid.cells]
        seen = [prompts[:place].count(prompt) for place, prompt in enumerate(prompts)]
        enough = grid.images_per_prompt / 2 if half else math.inf
        return [cell.index for cell in grid.cells if cell.is_probe or seen[cell.index] < enough]

    def run(self, training: Training, settings: Sequence[Setting]) -> dict[str, Record]:
        """Train, and measure step after step until the rules have ended the training with every setting."""
        training.train()
        for step in tqdm(range(0, LAST + 1, EVERY), desc=training.name, leave=False):
            self.measure(training, step, settings)
            found = self.records(training, settings, step)
            if all(each.verdict.stop is not None for each in found.values()):
                break
        return found

    def measure(self, training: Training, step: int, settings: Sequence[Setting]) -> None:
        """Measure a step's weights with the settings, in an order that changes from step to step."""
        self._order += 1
        first = self._order % len(settings)
        todo = [
            each for each in (*settings[first:], *settings[:first]) if not self._file(training, step, each).exists()
        ]
        if todo:
            self._load(step_folder(training.run_dir, step) if step else None)
        for setting in todo:
            found = self._measured(setting)
            file = self._file(training, step, setting)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, json.dumps(found).encode())

    def _measured(self, setting: Setting) -> dict[str, Any]:
        with renderer(self._pipeline, self.config.prompt_grid, setting) as made, isolated(made.pipeline):
            columns = {name: column for metric in self.metrics for name, column in _columns(metric).items()}
            found = Evaluator(made, self.metrics, columns).measure()
        rows = [{name: json_number(value) for name, value in each.scores.items()} for each in found.images]
        return {"setting": setting.name, "images": rows}

    def _load(self, folder: Path | None) -> None:
        """Give the pipeline a step's weights, merged, so that no setting pays for unmerged layers."""
        self._pipeline.unet.load_state_dict(self._base)
        if folder is not None:
            self._pipeline.load_lora_weights(folder)
            self._pipeline.fuse_lora()
            self._pipeline.unload_lora_weights()

    def _file(self, training: Training, step: int, setting: Setting) -> Path:
        """Step 0 is the same model in all trainings."""
        depends_on = repr((setting, self.config.prompt_grid.fingerprint()))
        name = f"{hashlib.sha256(depends_on.encode()).hexdigest()[:12]}.json"
        return self._folder / "scores" / (f"{training.run_dir.name}/step-{step:06d}" if step else "base") / name


def _columns(metric: Any) -> Mapping[str, Any]:
    from finetune_monitor.metrics import describe

    return describe(metric).columns


def _scores(row: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in row.items()}


def settings_of(place: int, others: int) -> tuple[Setting, ...]:
    """The settings with which a training is rendered, by its place in the list."""
    if place < others:
        return (REFERENCE, *CANDIDATES, *OTHERS)
    return (REFERENCE, *(CANDIDATES if place < WITH_CANDIDATES else EVERYWHERE))


def main() -> None:
    """Train, render, score, compare, and write COST.md and its plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2, help=f"how many trainings, 1 to {len(TRAININGS)}; default: 2")
    parser.add_argument(
        "--others", type=int, default=1, help="trainings with all settings, not only candidates; default: 1"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "runs/cost", help="where everything is kept")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    trainings = [Training(name, options.folder.absolute()) for name in list(TRAININGS)[: options.runs]]
    study = Study(options.folder.absolute())
    records = {}
    for place, training in enumerate(tqdm(trainings, desc="trainings")):
        records[training.name] = study.run(training, settings_of(place, options.others))
    timed = dict.fromkeys(each for place in range(len(trainings)) for each in settings_of(place, options.others))
    publish(records, study.seconds(trainings[0], list(timed)), study.config)


if __name__ == "__main__":
    main()
