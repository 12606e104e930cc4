"""Small runs and sweeps for tests of the report page, written with the package's own record."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from finetune_monitor.record.evaluation import Decision, Evaluation, RunSummary, ScoredImage, StopReason, summarize
from finetune_monitor.record.grid import Cell, PromptGrid
from finetune_monitor.record.kept_weights import KOHYA_ENDING, LORA_FILE, NOTE, step_folder
from finetune_monitor.record.run_record import RunRecord
from finetune_monitor.stats.estimate import Estimate
from support.runs import RUN, UNEVEN

HOSTILE = '<img src=x onerror="alert(1)"> </script> <b>\'&amp; %{x}'
NAME = "<img src=x onerror=alert(1)> &lt;b"
PLAIN = "a photo of sks person"
GRID = PromptGrid([PLAIN, HOSTILE], seeds=(0, 7), steps=3)
OTHER_GRID = PromptGrid([PLAIN, "sks person as an astronaut"], seeds=(0, 1, 7), steps=3)


class Recording:
    """A run that is being written: the record stays open between evaluations, as a training's does."""

    def __init__(self, folder: Path, grid: PromptGrid = GRID, hparams: Mapping[str, Any] | None = None, **run: Any):
        self.record = RunRecord(folder, grid)
        self.record.begin({**RUN, "hparams": dict(hparams or {}), **run}, None, None)
        self.scores: dict[int, float] = {}

    @property
    def best(self) -> int:
        return max(self.scores, key=lambda step: self.scores[step])

    def add(
        self,
        step: int,
        score: float,
        faceless: Collection[int] = (),
        missing: Collection[int] = (),
        aesthetic: float = 5.0,
        more: Mapping[str, Estimate] | None = None,
    ) -> None:
        """One evaluation; positions of the cells without a face and of those whose image could not be made.

        more: scores that only the evaluation has.
        """
        self.scores[step] = score
        cells = self.record.grid.cells
        rendered = [None if cell.index in missing else color(step, cell.index) for cell in cells]
        files = self.record.write_images(step, rendered)
        images = tuple(
            ScoredImage(cell, file, of_cell(cell, score, faceless, missing, aesthetic))
            for cell, file in zip(cells, files, strict=True)
        )
        decision, means = Decision(False, None, self.best), {**summarize(images, {}), **(more or {})}
        self.record.append(Evaluation(step, step / 10, 1000.0 + step, means, images, {}, decision))

    def keep(self, step: int) -> None:
        """The files of a LoRA, as far as a page looks at them."""
        folder = step_folder(self.record.output_dir, step)
        folder.mkdir(parents=True)
        (folder / NOTE).write_text(json.dumps({"step": step}))
        (folder / LORA_FILE).touch()
        (folder / f"ana{KOHYA_ENDING}").touch()

    def end(self, reason: StopReason = StopReason.PATIENCE) -> None:
        self.record.end(
            RunSummary(self.record.evaluations, "face_similarity", self.best, reason, "", self.scores[self.best])
        )
        self.record.close()


def of_cell(
    cell: Cell, score: float, faceless: Collection[int], missing: Collection[int], aesthetic: float
) -> dict[str, float]:
    if cell.is_probe:
        return {"probe_similarity": score + 0.01 * cell.index}
    return scores(score, cell.index, faceless, missing, aesthetic)


def scores(
    score: float, position: int, faceless: Collection[int], missing: Collection[int], aesthetic: float
) -> dict[str, float]:
    if position in missing:
        return dict.fromkeys(("face_similarity", "faces_found", "aesthetic"), math.nan)
    uneven = UNEVEN * score * position**2
    similarity = math.nan if position in faceless else score + 0.01 * position + uneven
    return {
        "face_similarity": similarity,
        "faces_found": float(position not in faceless),
        "aesthetic": aesthetic - position,
    }


def color(step: int, position: int) -> Image.Image:
    return Image.new("RGB", (16, 16), (step % 256, 60 * position % 256, 200))


def write_run(
    folder: Path, steps: Mapping[int, float], grid: PromptGrid = GRID, hparams: Mapping[str, Any] | None = None
) -> Path:
    """A whole run: step to score."""
    recording = Recording(folder, grid, hparams)
    for step, score in steps.items():
        recording.add(step, score)
    recording.end()
    return folder


def sweep_of(trials: Mapping[Path, tuple[int, int]], steps: Sequence[int]) -> dict[str, Any]:
    """What the answer of a sweep is, for trials of (number of photos, training seed); scores are made up.

    The best step by the metric is the last one, the runs' own best step the first one.
    """
    values = sorted({value for value, _ in trials.values()})
    points = {
        value: [
            {"trial": index, "score": 0.1 * value + 0.01 * seed, "step": steps[-1]}
            for index, (own, seed) in enumerate(trials.values())
            if own == value
        ]
        for value in values
    }
    means = [
        {"group": 0, "value": v, "mean": 0.1 * v, "low": 0.1 * v - 0.05, "high": 0.1 * v + 0.05, "units": 12}
        for v in values
    ]
    moments = {"mean": [0.1] * len(steps), "low": [None] * len(steps), "high": [None] * len(steps)}
    return {
        "name": f"sweep {HOSTILE}",
        "axis": {"key": "data.instance_count", "label": "number of photos", "values": values, "scale": "log"},
        "groups": [""],
        "search": False,
        "unit": "seed",
        "units": "2 training seeds",
        "trials": [trial(folder, value, seed, steps) for folder, (value, seed) in trials.items()]
        + [{**trial(Path("lost"), 4, 1, steps), "state": "failed", "error": f"RuntimeError: {HOSTILE}", "step": None}],
        "curves": {
            "face_similarity": {
                "best": [{**mean, "points": points[mean["value"]]} for mean in means],
                "last": [{**mean, "mean": 0.05, "points": points[mean["value"]]} for mean in means],
                "steps": [{"group": 0, "value": v, "steps": list(steps), "units": [2], **moments} for v in values],
            }
        },
        "verdicts": [
            {"metric": "face_similarity", "at": at, "group": 0, "text": f"{at}: it rises {HOSTILE}", "tone": tone}
            for at, tone in (("best", "rise"), ("last", "none"))
        ],
        "notes": [f"a note {HOSTILE}"],
    }


def trial(folder: Path, value: int, seed: int, steps: Sequence[int]) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "name": f"instance_count-{value}_seed-{seed}",
        "state": "finished",
        "error": None,
        "settings": {"data.instance_count": value},
        "value": value,
        "group": 0,
        "person": None,
        "seed": seed,
        "step": steps[-1],
        "best_step": steps[0],
    }
