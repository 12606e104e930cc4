"""What is asked of an image, in words, and the order in which each labeler is asked."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from finetune_monitor.metrics.aesthetic import Aesthetic
from finetune_monitor.metrics.face_similarity import FaceSimilarity
from finetune_monitor.studies.labeling.tasks import Task

GAP = 10
"""Images between two looks at the same one, where the list is long enough."""

WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Question:
    """How one metric is asked for.

    anchors: what 1, 2, 3, 4 and 5 mean.
    with_photos: whether the person's own photos are shown beside the image.
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
        "Go by the face alone: hair, clothes and how good the image is do not count. No face at all is a 1.",
        ("Someone else", "A slight likeness", "Could be a relative", "Very much alike", "The same person"),
        with_photos=True,
    ),
    Aesthetic.name: Question(
        Aesthetic.name,
        "Image quality",
        "How good is this image?",
        "Light, color, composition, and whether anything looks wrong. Whom it shows does not count.",
        ("Bad", "Poor", "Fair", "Good", "Excellent"),
    ),
}


def question_of(metric: str) -> Question:
    """The question for a metric; a general one for a metric that has none of its own."""
    anchors = ("Very low", "Low", "Medium", "High", "Very high")
    return QUESTIONS.get(metric) or Question(metric, metric, f"How do you rate this image: {metric}?", "", anchors)


def ordered(tasks: Sequence[Task], seed: int, labeler: str) -> list[Task]:
    """One metric's tasks in the labeler's own random order; the page's `order.js` computes the same.

    An image comes again after `GAP` others at the soonest, or after half of a short list.
    """
    waiting = sorted(tasks, key=lambda task: (_key(seed, task.metric, labeler, task.image_id), task.image_id))
    names = {task.image_id for task in tasks}
    comes_again = {task.repeat_of for task in tasks if task.repeat_of in names}
    gap, first_looks = min(GAP, len(tasks) // 2), len(comes_again)
    shown: dict[str, int] = {}
    for place in range(len(tasks)):
        if first_looks and len(waiting) - first_looks <= gap:  # what comes again must come now, or there is no room
            chosen = next(task for task in waiting if task.image_id in comes_again)
        else:
            chosen = next((task for task in waiting if _is_due(task, names, shown, place - gap)), waiting[0])
        first_looks -= chosen.image_id in comes_again
        shown[chosen.image_id] = place
        waiting.remove(chosen)
    return sorted(tasks, key=lambda task: shown[task.image_id])


def _is_due(task: Task, names: set[str], shown: dict[str, int], latest: int) -> bool:
    """Whether the task is no repeat, or one whose original was shown at `latest` or before."""
    return task.repeat_of not in names or shown.get(task.repeat_of, latest + 1) <= latest


def _key(seed: int, metric: str, labeler: str, image_id: str) -> int:
    """32 bits that look random: FNV-1a over the text, then a mix that spreads every bit over all others."""
    value = 0x811C9DC5
    for byte in f"{seed}\n{metric}\n{labeler}\n{image_id}".encode(errors="surrogateescape"):
        value = (value ^ byte) * 0x01000193 & WORD
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        value = (value ^ value >> shift) * factor & WORD
    return value ^ value >> 15
