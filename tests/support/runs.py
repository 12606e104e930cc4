"""Small runs for tests of the record and its views."""

import math
import time
from dataclasses import replace
from pathlib import Path

from PIL import Image

from finetune_monitor.metrics.face_similarity import FaceSimilarity
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Decision, Evaluation, RunSummary, ScoredImage, StopReason, summarize
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.run_record import RunRecord
from finetune_monitor.sinks import RunInfo
from finetune_monitor.stats.estimate import Estimate

GRID = PromptGrid(["a photo of sks person", "<script>alert('x')</script> 写真"], seeds=(0, 7), steps=3)
NOTICE = "demo scores: toy models"
UNEVEN = 1e-6
"""So much do scores vary that are shown as equal: without any variation, they would have no interval."""
CEILING = Estimate(0.9, 0.85, 0.95, 6, 0)
COLUMNS = {
    "face_similarity": ScoreColumn(True, (-1.0, 1.0), metric="face_similarity"),
    "faces_found": replace(FaceSimilarity.columns["faces_found"], metric="face_similarity"),
    "aesthetic": ScoreColumn(True, (1.0, 10.0), metric="aesthetic"),
}
ALARMED = {
    **COLUMNS,
    "aesthetic": replace(COLUMNS["aesthetic"], alarm=5.5, says="the images are ugly"),
    "faces_found": replace(COLUMNS["faces_found"], alarm=0.5, says="no face is left"),
}
"""The same with alarms; the first one is beyond its level in every evaluation."""
RUN = {
    "metrics": {name: column.direction_json() for name, column in COLUMNS.items() if column.is_main},
    "columns": {name: column.to_json() for name, column in COLUMNS.items()},
    "weights": {"face_similarity": {"recognizer": "vggface2", "notice": NOTICE}},
    "baselines": {"face_similarity": CEILING.to_json()},
    "best_metric": "face_similarity",
}


def images(missing: tuple[int, ...] = (), size: int = 16) -> list[Image.Image | None]:
    """One image a cell, each of its own color."""
    return [
        None if i in missing else Image.new("RGB", (size, size), (60 * i, 100, 200)) for i in range(len(GRID.cells))
    ]


def evaluation(step: int, score: float = 0.5, faces: int = 4) -> Evaluation:
    """Four images; the first `faces` of them have a face, and a similarity."""
    images = tuple(
        ScoredImage(
            cell,
            f"images/step-{step:06d}/{cell.id}.png",
            {
                "face_similarity": score + 0.01 * cell.index if cell.index < faces else math.nan,
                "faces_found": float(cell.index < faces),
                "aesthetic": 5.0 + UNEVEN * (-1) ** cell.index,
            },
        )
        for cell in GRID.cells
    )
    return Evaluation(step, step / 10, 1000.0 + step, summarize(images, {}), images, {"render": 1.5}, Decision())


def write_run(folder: Path, steps: dict[int, float], reason: StopReason | None = None) -> RunSummary:
    """Record a whole run: step to score."""
    best = max(steps, key=lambda step: steps[step])
    record = RunRecord(folder, GRID)
    record.begin(RUN, None, None)
    for step, score in steps.items():
        record.write_images(step, images())
        record.append(replace(evaluation(step, score), decision=Decision(False, None, best)))
    summary = RunSummary(record.evaluations, "face_similarity", best, reason, step=max(steps))
    record.end(summary)
    record.close()
    return summary


def run_info(folder: Path, **changes: object) -> RunInfo:
    hparams = {"train.rank": 4, "train.flip": True, "data.name": "sks", "hub.token": "CANARY"}
    info = RunInfo(folder, hparams, COLUMNS, {"face_similarity": CEILING}, (NOTICE,), best_metric="face_similarity")
    return replace(info, **changes)


def wait_for_the_next_second() -> None:
    """TensorBoard reads the files of a folder in the order of their names, which hold the second of their creation."""
    time.sleep(1.01 - time.time() % 1)
