"""The questions about an image, and the order in which each labeler gets them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from finetune_monitor.metrics.aesthetic import Aesthetic
from finetune_monitor.metrics.face_similarity import FaceSimilarity
from finetune_monitor.studies.labeling.tasks import Task

GAP = 10
"""Number of images between two showings of the same one, if the list is long enough."""

WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Question:
    """The question for one metric.

    anchors: the meaning of 1, 2, 3, 4, and 5.
    with_photos: whether the person's photos are shown next to the image.
    """

    metric: str
    title: str
    ask: str
    hint: str
    anchors: tuple[str, str, str, str, str]
    with_photos: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


QUESTIONS = {
    FaceSimilarity.name: Question(
        FaceSimilarity.name,
        "Likeness",
        "Is this the person in the photos?",
        "Judge only the face: hair, clothes, and image quality do not count. If there is no face, answer 1.",
        ("Someone else", "Slightly similar", "Could be a relative", "Very similar", "The same person"),
        with_photos=True,
    ),
    Aesthetic.name: Question(
        Aesthetic.name,
        "Image quality",
        "How good is this image?",
        "Consider light, color, composition, and whether anything looks wrong. Who is shown does not count.",
        ("Bad", "Poor", "Fair", "Good", "Excellent"),
    ),
}


def question_of(metric: str) -> Question:
    """The question for a metric; a generic one if the metric has none."""
    anchors = ("Very low", "Low", "Medium", "High", "Very high")
    return QUESTIONS.get(metric) or Question(metric, metric, f"How do you rate this image: {metric}?", "", anchors)


def ordered(tasks: Sequence[Task], seed: int, labeler: str) -> list[Task]:
    """One metric's tasks in a random order specific to the labeler; the page's `order.js` computes the same.

    An image is repeated after at least `GAP` others, or after half of a short list.
    """
    waiting = sorted(tasks, key=lambda task: (_key(seed, task.metric, labeler, task.image_id), task.image_id))
    names = {task.image_id for task in tasks}
    comes_again = {task.repeat_of for task in tasks if task.repeat_of in names}
    gap, first_looks = min(GAP, len(tasks) // 2), len(comes_again)
    shown: dict[str, int] = {}
    for place in range(len(tasks)):
        if first_looks and len(waiting) - first_looks <= gap:  # repeats must come now, or there is no room left
            chosen = next(task for task in waiting if task.image_id in comes_again)
        else:
            chosen = next((task for task in waiting if _is_due(task, names, shown, place - gap)), waiting[0])
        first_looks -= chosen.image_id in comes_again
        shown[chosen.image_id] = place
        waiting.remove(chosen)
    return sorted(tasks, key=lambda task: shown[task.image_id])


def _is_due(task: Task, names: set[str], shown: dict[str, int], latest: int) -> bool:
    """Whether the task is not a repeat, or its original was shown at `latest` or earlier."""
    return task.repeat_of not in names or shown.get(task.repeat_of, latest + 1) <= latest


def _key(seed: int, metric: str, labeler: str, image_id: str) -> int:
    """32 pseudorandom bits: FNV-1a over the text, then a mix that spreads every bit over all others."""
    value = 0x811C9DC5
    for byte in f"{seed}\n{metric}\n{labeler}\n{image_id}".encode(errors="surrogateescape"):
        value = (value ^ byte) * 0x01000193 & WORD
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        value = (value ^ value >> shift) * factor & WORD
    return value ^ value >> 15
