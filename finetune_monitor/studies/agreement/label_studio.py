"""Answers from an export of Label Studio: its full JSON, or JSON-MIN."""

import json
import re
import reprlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.image_names import without_suffix
from finetune_monitor.studies.agreement.rating_rows import WHOLE, RatingRow
from finetune_monitor.studies.rating_problems import Problem, ProblemKind

RESULTS = ("rating", "number", "choices")
"""The types of results with an answer; the value is under the same name."""

CHOICE = re.compile(r"([+-]?[0-9]+(?:\.0*)?)[\s:.,)(=\u2013\u2014-]+[^\W\d].*", re.DOTALL)
"""`4 - good`, `4: good` or `4 (good)`."""

UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""The prefix that Label Studio adds to the name of an uploaded file."""

EXPECTED = "expected Label Studio's JSON or JSON-MIN: a list of tasks with ratings, numbers or choices"


@dataclass(frozen=True)
class _Answer:
    where: str
    data: Mapping[str, Any]  # the task's data, with the image
    labeler: Any
    metric: str
    value: Any
    given: Mapping[str, Any]  # the annotation, with the times


def read_label_studio(
    path: Path, text: str, metric: str | None, known: Collection[str] | None
) -> Iterator[RatingRow | Problem]:
    """Every answer in every annotation that was not canceled.

    A metric is the name of its control (`from_name`). An image is `data.image_id`, or otherwise the name of the file in
    `data.image`: with as many of its folders as needed to distinguish all images in the file, or as in `known`. A
    duration is that of the entire annotation.

    metric: a different name for the metric, if the file has only one.

    Raises:
        UserError: it is not JSON, or not an export of Label Studio.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); {EXPECTED}") from error
    tasks = content if isinstance(content, list) else [content]
    if not any(_is_full(task) or _is_flat(task) for task in tasks):
        raise UserError(f"{path}: found a different kind of JSON; {EXPECTED}")
    found = list(_answers(path, tasks))
    answers = [each for each in found if isinstance(each, _Answer)]
    others = _not_ratings(answers)
    yield from (
        Problem(ProblemKind.IGNORED_COLUMN, f"control {name}", "most of its answers are not whole numbers", path)
        for name in others
    )
    renamed = metric if len({each.metric for each in answers} - others.keys()) == 1 else None
    depth = _depth([_path_of(each.data) for each in answers])
    for each in found:
        if isinstance(each, Problem):
            yield each
        elif each.metric not in others:
            yield _row(each, renamed, known, depth)


def _is_full(task: Any) -> bool:
    return isinstance(task, dict) and isinstance(task.get("data"), dict) and isinstance(task.get("annotations"), list)


def _is_flat(task: Any) -> bool:
    return isinstance(task, dict) and "annotator" in task


def _answers(path: Path, tasks: list[Any]) -> Iterator[_Answer | Problem]:
    for number, task in enumerate(tasks, 1):
        where = f"task {_text(task.get('id')) or number}" if isinstance(task, dict) else f"task {number}"
        if _is_full(task):
            yield from _full_answers(path, where, task)
        elif _is_flat(task):
            yield from _flat_answers(where, task)
        else:
            yield Problem(ProblemKind.BAD_ROW, where, "found no Label Studio task", path)


def _full_answers(path: Path, task_where: str, task: Mapping[str, Any]) -> Iterator[_Answer | Problem]:
    for number, annotation in enumerate(task["annotations"], 1):
        where = f"{task_where}, annotation {number}"
        if isinstance(annotation, dict) and annotation.get("was_cancelled"):
            continue
        if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
            yield Problem(ProblemKind.BAD_ROW, where, "found no annotation with a list of results", path)
            continue
        for result in annotation["result"]:
            if isinstance(result, dict) and result.get("type") in RESULTS:
                labeler, value = annotation.get("completed_by"), result.get("value")
                yield _Answer(where, task["data"], labeler, _text(result.get("from_name")), value, annotation)


def _flat_answers(where: str, task: Mapping[str, Any]) -> Iterator[_Answer]:
    """The answers in JSON-MIN: single choices are plain text, after the task's data and id, before the annotator."""
    names = list(task)[: list(task).index("annotator")]
    plain = names[names.index("id") + 1 :] if "id" in names else names
    for name, found in task.items():
        if _is_list_of_values(found):
            yield from (_Answer(where, task, task["annotator"], _text(name), value, task) for value in found)
        elif isinstance(found, str) and name in plain and name not in ("image", "image_id"):
            yield _Answer(where, task, task["annotator"], _text(name), {"choices": [found]}, task)


def _not_ratings(answers: list[_Answer]) -> dict[str, None]:
    """Controls that asked for something else, such as a comment; none if that would leave no controls."""
    fits: dict[str, list[bool]] = {}
    for each in answers:
        fits.setdefault(each.metric, []).append(WHOLE.fullmatch(_label(each.value)) is not None)
    others = dict.fromkeys(name for name, fitting in fits.items() if sum(fitting) <= len(fitting) / 2)
    return others if len(others) < len(fits) else {}


def _is_list_of_values(found: Any) -> bool:
    values = found if isinstance(found, list) else []
    return bool(values) and all(isinstance(value, dict) and not value.keys().isdisjoint(RESULTS) for value in values)


def _row(answer: _Answer, metric: str | None, known: Collection[str] | None, depth: int) -> RatingRow:
    given = answer.given
    return RatingRow(
        answer.where,
        _text(answer.data.get("image_id")) or _image_name(_path_of(answer.data), known, depth),
        _labeler(answer.labeler),
        metric or answer.metric,
        _label(answer.value),
        _text(given.get("updated_at")) or _text(given.get("created_at")),
        _milliseconds(given.get("lead_time")),
    )


def _milliseconds(seconds: Any) -> str:
    sensible = isinstance(seconds, (int, float)) and 0 <= seconds < 1e9
    return str(round(1000 * seconds)) if sensible else _text(seconds)


def _labeler(found: Any) -> str:
    """The labeler: an email address if there is one, otherwise a number."""
    if isinstance(found, dict):
        return _text(found.get("email")) or _text(found.get("id"))
    return _text(found)


def _label(value: Any) -> str:
    """The answer in a result's value; anything else as text."""
    fields = value if isinstance(value, dict) else {}
    found = next((fields[name] for name in RESULTS if name in fields), value)
    if isinstance(found, list):
        return _choice(found[0]) if len(found) == 1 else f"{len(found)} choices"
    return _text(found)


def _choice(found: Any) -> str:
    text = _text(found)
    match = CHOICE.fullmatch(text)
    return match[1] if match else text


def _text(found: Any) -> str:
    """Text, or a number as text, that is valid in UTF-8; empty for null; a short form of anything else."""
    if found is None:
        return ""
    text = found if isinstance(found, str) else reprlib.repr(found)
    return text.encode("utf-8", "replace").decode().strip()


def _path_of(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Folders and file name of a task's image, from a path, a URL, or a local file's `?d=`."""
    image = _text(data.get("image"))
    uploaded = "/upload/" in image
    if "?d=" in image:
        image = unquote(image.partition("?d=")[2].partition("&")[0])
    elif "://" in image or uploaded:
        image = unquote(image.partition("?")[0])
    parts = [part.strip() for part in re.split(r"[/\\]+", image) if part.strip()]
    if uploaded and parts:
        parts[-1] = UPLOAD_PREFIX.sub("", parts[-1], count=1)
    return tuple(parts)


def _depth(images: list[tuple[str, ...]]) -> int:
    """How many trailing parts of a path are needed to distinguish all images."""
    distinct = set(images)
    longest = max(map(len, distinct), default=1)
    return next((n for n in range(1, longest) if len({path[-n:] for path in distinct}) == len(distinct)), longest)


def _image_name(parts: tuple[str, ...], known: Collection[str] | None, depth: int) -> str:
    """The longest known end of the path, with or without the suffix; otherwise its last `depth` parts."""
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    names = [name for end in ends for name in (end, without_suffix(end))]
    return next((name for name in names if known is not None and name in known), "/".join(parts[-depth:]))
