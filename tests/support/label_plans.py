"""Small plans with images whose files carry what no labeler may see, and a disk that is full."""

import hashlib
import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from finetune_monitor.studies.labeling.tasks import LabelingPlan, Task, write_plan

SECRETS = ("CANARY-prompt", "CANARY-person", "CANARY-run", "CANARY-cell", "CANARY-gps", "987654")
"""What the plan and its files hold of persons, runs, prompts, steps and scores."""

SIMILARITY, AESTHETIC = "face_similarity", "aesthetic"


def write_small_plan(
    folder: Path,
    images: int = 12,
    repeats: int = 0,
    metrics: tuple[str, ...] = (SIMILARITY, AESTHETIC),
    photos: int = 3,
    seed: int = 0,
) -> LabelingPlan:
    """A plan with `images` images and `repeats` of them again for each metric, of two persons."""
    source = folder.parent / "CANARY-run"
    tasks = []
    for metric in metrics:
        own = [_task(source, metric, number) for number in range(images)]
        own += [_repeat(task) for task in own[:repeats]]
        tasks += own
    references = {f"CANARY-person-{n}": tuple(_photo(source, n, k) for k in range(photos)) for n in range(2)}
    plan = LabelingPlan(tuple(tasks), references, seed)
    write_plan(folder, plan)
    return plan


def opaque(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _task(source: Path, metric: str, number: int) -> Task:
    name = f"{metric} {number}"
    file = source / f"CANARY-cell {name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    notes = PngInfo()
    notes.add_text("prompt", "CANARY-prompt")
    notes.add_text("step", "987654")
    _image(name).save(file, pnginfo=notes)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return Task(opaque(name), metric, f"CANARY-person-{number % 2}", file, digest, source, 987654, "CANARY-cell")


def _repeat(task: Task) -> Task:
    again = opaque(f"{task.image_id} again")
    return Task(again, task.metric, task.person, task.file, task.sha256, repeat_of=task.image_id)


def _photo(source: Path, person: int, number: int) -> Path:
    file = source / f"CANARY-person photo {person} {number}.jpg"
    exif = Image.Exif()
    exif[0x010E] = "CANARY-prompt"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 15.0), 29: "CANARY-gps"})
    _image(f"photo {person} {number}", 700).save(file, exif=exif, comment=b"CANARY-gps")
    return file


def _image(name: str, width: int = 64) -> Image.Image:
    """Blocks of colors that differ from name to name."""
    colors = random.Random(name).randbytes(12)
    return Image.frombytes("RGB", (2, 2), colors).resize((width, 64), Image.Resampling.NEAREST)


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SQLite finds no room for another page, as on a full disk."""
    connect = sqlite3.connect

    def full(*arguments, **named):
        database = connect(*arguments, **named)
        database.execute("PRAGMA max_page_count = 1")
        return database

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", full)
        yield
