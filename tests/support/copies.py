"""A run whose images become copies of its photos, scored by the metric itself, with its alarms."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

from finetune_monitor.base.files import sha256
from finetune_monitor.metrics import Descriptions
from finetune_monitor.metrics.copying import Copying
from finetune_monitor.record.alarms import alarms
from finetune_monitor.record.evaluation import Decision, Evaluation, RunSummary, ScoredImage, StopReason, summarize
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.references import keep_references
from finetune_monitor.record.run_record import RunRecord
from support.runs import COLUMNS, RUN

GRID = PromptGrid(["a photo of sks person", "sks person as an astronaut"], seeds=(0, 1, 2, 3), steps=3)
SIZE = 128
COPIED = {0: 0.0, 100: 0.05, 200: 0.85, 300: 0.95}
"""By step how much of a photo is in an image; the rest is noise."""


def write_photos(folder: Path) -> list[Path]:
    """Three photos of a set, and a held-out one as the last."""
    folder.mkdir()
    made = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        made.append(folder / f"{name}.png")
        Image.fromarray(getattr(data, name)()).resize((SIZE, SIZE)).save(made[-1])
    return made


def write_copying_run(folder: Path, photos: list[Path], copied: Mapping[int, float] = COPIED, **run: Any) -> Path:
    """A whole run; the image of a cell becomes more and more the photo at its place among those used, and so on."""
    used = photos[:-1]
    metric = Copying(used)
    described = Descriptions.of([metric])
    columns = {**COLUMNS, **described.columns}
    found = described.to_json()
    record = RunRecord(folder, GRID)
    # The similarity has the same photos in another order, so that the page's list of them is not the metric's.
    similarity = {**RUN["weights"]["face_similarity"], **_photos(references=used[::-1], held_out=photos[-1:])}
    merged = {key: {**RUN[key], **found[key]} for key in ("metrics", "columns")}
    weights = {"face_similarity": similarity, **found["weights"]}
    record.begin({**RUN, **merged, "weights": weights, **run}, None, None)
    keep_references(folder, described.thumbnails, print)
    for step, share in copied.items():
        record.append(_evaluation(record, metric, used, step, share, columns))
    record.end(RunSummary(record.evaluations, "face_similarity", max(copied), StopReason.MAX_STEPS))
    record.close()
    return folder


def _photos(**photos: list[Path]) -> dict[str, list[dict[str, str]]]:
    return {key: [{"file": str(path), "sha256": sha256(path)} for path in paths] for key, paths in photos.items()}


def _evaluation(
    record: RunRecord, metric: Copying, used: list[Path], step: int, share: float, columns: Any
) -> Evaluation:
    cells = record.grid.cells
    images = [_mixed(used[cell.index % len(used)], share - 0.12 * cell.index, cell.index) for cell in cells]
    files = record.write_images(step, images)
    found = metric.score(images, cells)
    rows = [{name: float(values[cell.index]) for name, values in found.items()} for cell in cells]
    usual = {"faces_found": 1.0, "aesthetic": 5.0}
    scored = tuple(
        ScoredImage(cell, file, {"face_similarity": 0.1 + 0.7 * share + 0.01 * cell.index, **usual, **row})
        for cell, file, row in zip(cells, files, rows, strict=True)
    )
    made = Evaluation(step, step / 10, 1000.0 + step, summarize(scored, columns), scored)
    sounding = alarms((*record.evaluations, made), columns)
    return replace(made, decision=Decision(False, None, step), alarms=sounding)


def _mixed(photo: Path, share: float, seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    blurred = Image.fromarray(noise).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return Image.blend(blurred, Image.open(photo).convert("RGB"), max(share, 0.0))
