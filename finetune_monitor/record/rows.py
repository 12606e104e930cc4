"""Read and write the rows of the record: evaluations and images as JSON lines."""

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import flush, fsync
from finetune_monitor.base.json_files import (
    DAMAGE,
    as_flag,
    as_list,
    as_number,
    as_object,
    as_text,
    as_whole,
    read_lines,
)
from finetune_monitor.base.text import shortened
from finetune_monitor.record.evaluation import Decision, Evaluation, ScoredImage, as_reason
from finetune_monitor.record.grid import Cell
from finetune_monitor.record.run_directory import EVALUATIONS, FULL_QUALITY, IMAGES
from finetune_monitor.stats.estimate import Estimate, from_json_number, plain

T = TypeVar("T")

IMAGE_ROWS = "image_rows"
"""The images of an evaluation at full quality, in the same row."""


def read_evaluations(output_dir: Path) -> list[Evaluation]:
    """The evaluations with complete image rows, by step."""
    return read_with_losses(output_dir)[0]


def read_with_losses(output_dir: Path) -> tuple[list[Evaluation], list[int]]:
    """The evaluations with complete image rows, by step, and the steps that are lost.

    These have only an evaluation, or only images, in the record. A crash can cut the rows of the newest step: they are
    not lost, but repeated. The untouched model, step 0, is not.
    """
    found = [_evaluation(output_dir / EVALUATIONS, *row) for row in _read_rows(output_dir / EVALUATIONS)]
    images = _read_images(output_dir / IMAGES)
    complete = []
    for evaluation, expected in sorted(found, key=lambda pair: pair[0].step):
        rows = tuple(images.get(evaluation.step, {}).values())
        if len(rows) == expected:
            complete.append(replace(evaluation, images=rows))
        else:
            _warn(f"{output_dir}: step {evaluation.step} has only {len(rows)} of {expected} image rows and is ignored")
    return complete, _lost({evaluation.step for evaluation, _ in found}, {each.step for each in complete}, set(images))


def _lost(evaluated: set[int], complete: set[int], with_images: set[int]) -> list[int]:
    """The steps of the record that are not complete, but for a newest one that a crash can have cut."""
    steps = evaluated | with_images
    newest = max(steps, default=0)
    cut = {newest} if newest or not evaluated else set()
    return sorted(steps - complete - cut)


def read_full_quality(output_dir: Path) -> list[Evaluation]:
    """The evaluations at full quality of a run that was evaluated with fewer steps, by step."""
    path = output_dir / FULL_QUALITY
    found = {}
    for number, row in _read_rows(path):
        evaluation, _ = _evaluation(path, number, row)
        with_images = [_scored_image(path, number, each)[1] for each in _list_of(path, number, row)]
        found[evaluation.step] = replace(evaluation, images=_numbered(with_images))
    return [found[step] for step in sorted(found)]


def _list_of(path: Path, number: int, row: Any) -> list[Any]:
    try:
        return as_list(row[IMAGE_ROWS])
    except DAMAGE as error:
        raise _damaged(path, number, repr(error)) from error


def _numbered(images: Sequence[ScoredImage]) -> tuple[ScoredImage, ...]:
    return tuple(replace(each, cell=replace(each.cell, index=index)) for index, each in enumerate(images))


def _read_images(path: Path) -> dict[int, dict[str, ScoredImage]]:
    """Images by step and cell id; the last row counts: an evaluation that failed halfway may have been repeated."""
    images: dict[int, dict[str, ScoredImage]] = {}
    for number, row in _read_rows(path):
        step, image = _scored_image(path, number, row)
        cells = images.setdefault(step, {})
        index = cells[image.cell.id].cell.index if image.cell.id in cells else len(cells)
        cells[image.cell.id] = replace(image, cell=replace(image.cell, index=index))
    return images


def _read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Pairs of line number and row; a last line that a crash truncated is skipped with a warning."""
    unread: int | None = None
    for number, line in read_lines(path):
        if unread is not None:
            raise _damaged(path, unread, "not valid JSON")
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            unread = number
        else:
            yield number, row
    if unread is not None:
        _warn(f"{path}:{unread}: the last line is truncated and is ignored")


def _evaluation(path: Path, number: int, row: Any) -> tuple[Evaluation, int]:
    """An evaluation without its images, and the number of images that it must have."""
    try:
        evaluation = Evaluation(
            _step(row["step"]),
            _if_known(as_number, row["epoch"]),
            as_number(row["wall_time"]),
            {name: Estimate.from_json(found) for name, found in row["scores"].items()},
            seconds={name: as_number(value) for name, value in row["seconds"].items()},
            overhead=_if_known(as_number, row.get("overhead")),
            decision=_decision(as_object(row["decision"])),
            alarms=tuple(map(as_text, as_list(row.get("alarms", [])))),
            samples={name: tuple(map(from_json_number, values)) for name, values in row.get("samples", {}).items()},
            on_request=as_flag(row.get("on_request", False)),
            failed=tuple(map(as_text, as_list(row.get("failed", [])))),
        )
        return evaluation, as_whole(row["images"])
    except DAMAGE as error:
        raise _damaged(path, number, repr(error)) from error


def _decision(found: Mapping[str, Any]) -> Decision:
    return Decision(
        as_flag(found["stop"]),
        as_reason(_if_known(as_text, found["reason"])),
        _if_known(as_whole, found["best_step"]),
        as_text(found.get("detail", "")),
        _if_known(as_number, found.get("best_score")),
        _if_known(as_whole, found.get("rejected_from")),
    )


def _step(value: Any) -> int:
    step = as_whole(value)
    if step < 0:
        raise ValueError(f"found step {step}, expected 0 or more")
    return step


def _if_known(read: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else read(value)


def _scored_image(path: Path, number: int, row: Any) -> tuple[int, ScoredImage]:
    try:
        is_probe = row.get("probe", False) is True
        name, prompt, negative = (as_text(row[key]) for key in ("cell", "prompt", "negative_prompt"))
        cell = Cell(0, name, prompt, negative, as_whole(row["seed"]), is_probe)
        scores = {name: from_json_number(value) for name, value in row["scores"].items()}
        return _step(row["step"]), ScoredImage(cell, _if_known(as_text, row["file"]), scores)
    except DAMAGE as error:
        raise _damaged(path, number, repr(error)) from error


def _damaged(path: Path, number: int, found: str) -> UserError:
    return UserError(f"{path}:{number}: damaged row ({shortened(found)}); restore the file or choose a new output_dir")


def evaluation_row(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "step": evaluation.step,
        "epoch": evaluation.epoch,
        "wall_time": evaluation.wall_time,
        "scores": {name: estimate.to_json() for name, estimate in evaluation.scores.items()},
        **({"samples": plain(evaluation.samples)} if evaluation.samples else {}),
        "seconds": dict(evaluation.seconds),
        "overhead": evaluation.overhead,
        "decision": plain(asdict(evaluation.decision)),
        **({"alarms": list(evaluation.alarms)} if evaluation.alarms else {}),
        **({"on_request": True} if evaluation.on_request else {}),
        **({"failed": list(evaluation.failed)} if evaluation.failed else {}),
        "images": len(evaluation.images),
    }


def append(path: Path, rows: Sequence[Mapping[str, Any]], to_disk: bool = True) -> None:
    """Append rows, and wait until they are on disk if `to_disk`; if it is full, no partial line is left behind."""
    with path.open("ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        content = memoryview(lines(rows))
        try:
            while content:
                content = content[file.write(content) :]
            if to_disk:
                flush(file.fileno())
        except OSError:
            file.truncate(end)
            raise
    if end == 0 and to_disk:
        fsync(path.parent)


def lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(_json(row) for row in rows)


def pretty(content: Mapping[str, Any]) -> bytes:
    return _json(content, indent=2)


def _json(content: Mapping[str, Any], indent: int | None = None) -> bytes:
    """JSON in UTF-8; bytes of file names that are not valid Unicode become JSON escapes and survive a round trip."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=indent) + "\n"
    return text.encode("utf-8", "backslashreplace")


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)
