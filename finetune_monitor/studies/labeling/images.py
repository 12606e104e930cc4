"""What a labeler may see of a plan: its images and photos as JPEG, without any metadata from their files."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.files import sha256
from finetune_monitor.base.images import read_image
from finetune_monitor.studies.labeling.questions import question_of
from finetune_monitor.studies.labeling.tasks import LabelingPlan, Task, read_plan

JPEG_QUALITY = 95

PHOTOS, PHOTO_SIDE = 6, 512
"""Number of reference photos per person, and the longer side of a photo in pixels."""


@dataclass(frozen=True)
class Gallery:
    """A plan, with the images and photos that can be shown.

    tasks: the tasks whose image is unchanged since the plan was made.
    photos: the names of each person's photos, in order.
    encoded: the JPEG of every photo by name; the name depends only on the JPEG.
    left_out: why the other tasks or photos are not shown, for whoever runs the page.
    """

    plan: LabelingPlan
    tasks: tuple[Task, ...]
    photos: Mapping[str, tuple[str, ...]]
    encoded: Mapping[str, bytes]
    left_out: tuple[str, ...]

    @cached_property
    def key(self) -> str:
        """An opaque key that identifies this plan."""
        content = [self.plan.seed, *([task.image_id, task.metric, task.sha256] for task in self.plan.tasks)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    @cached_property
    def by_id(self) -> dict[str, Task]:
        return {task.image_id: task for task in self.tasks}

    @cached_property
    def by_metric(self) -> dict[str, list[Task]]:
        """The tasks that can be shown for each metric, in the plan's order."""
        found = {metric: [task for task in self.tasks if task.metric == metric] for metric in self.plan.metrics}
        return {metric: tasks for metric, tasks in found.items() if tasks}

    def photos_beside(self, task: Task) -> tuple[str, ...]:
        """The names of the photos that are shown with a task's image."""
        return self.photos[task.person] if question_of(task.metric).with_photos else ()


def open_gallery(folder: Path) -> Gallery:
    """Read a plan's folder, and check every file that it names.

    Raises:
        UserError: it is not a plan's folder, or none of its images can be shown.
    """
    plan = read_plan(folder)
    photos, encoded, problems = _photos(plan)
    tasks = []
    for task in tqdm(plan.tasks, "checking images", delay=1, leave=False):
        problem = _problem(task, photos)
        if problem is None:
            tasks.append(task)
        else:
            problems.append(problem)
    if not tasks:
        all_problems(problems, f"{folder}: no image of the plan can be shown; make the plan again")
    return Gallery(plan, tuple(tasks), photos, encoded, tuple(problems))


def image_jpeg(task: Task) -> bytes:
    """A task's image at its original size.

    Raises:
        UserError: it cannot be read, or it has changed since the plan was made.
    """
    problem = _change(task.file, task.sha256)
    if problem is not None:
        raise UserError(problem)
    return _jpeg(read_image(task.file))


def photo_jpeg(path: Path) -> bytes:
    """A reference photo, at most `PHOTO_SIDE` pixels on its longer side.

    Raises:
        UserError: it cannot be read.
    """
    photo = read_image(path)
    photo.thumbnail((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.LANCZOS)
    return _jpeg(photo)


def _photos(plan: LabelingPlan) -> tuple[dict[str, tuple[str, ...]], dict[str, bytes], list[str]]:
    """The first photos of every person in a question: their names, their JPEGs, and what cannot be read."""
    asked = {task.person for task in plan.tasks if question_of(task.metric).with_photos}
    names: dict[str, tuple[str, ...]] = {}
    encoded: dict[str, bytes] = {}
    problems = []
    for person in tqdm(sorted(asked), "reading photos", delay=1, leave=False):
        own = []
        for path in plan.references.get(person, ())[:PHOTOS]:
            if problem := _change(path, plan.digests.get(path)):
                problems.append(problem)
                continue
            try:
                content = photo_jpeg(path)
            except UserError as error:
                problems.append(str(error))
                continue
            own.append(hashlib.sha256(content).hexdigest()[:16])
            encoded[own[-1]] = content
        names[person] = tuple(own)
    return names, encoded, problems


def _problem(task: Task, photos: Mapping[str, tuple[str, ...]]) -> str | None:
    if question_of(task.metric).with_photos and not photos[task.person]:
        return f"{task.file}: found no photo of {task.person} to compare it with"
    return _change(task.file, task.sha256)


def _change(file: Path, digest: str | None) -> str | None:
    """Why a file is not shown: a plan shows only content that whoever made it had, wherever its paths lead."""
    if digest is None:
        return f"{file}: the plan does not hold its SHA-256; make the plan again"
    try:
        found = sha256(file)
    except OSError as error:
        return f"{file}: {error.strerror}"
    return None if found == digest else f"{file}: it has changed since the plan was made"


def _jpeg(image: Image.Image) -> bytes:
    """The JPEG of only the pixels: Pillow would copy some of an image's metadata, such as a comment."""
    content = io.BytesIO()
    Image.frombytes("RGB", image.size, image.tobytes()).save(content, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return content.getvalue()
