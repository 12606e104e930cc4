"""Read and write the rows of the record: evaluations and images as JSON lines."""

import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import fsync
from finetune_monitor.record.evaluation import Decision, Evaluation, ScoredImage, as_reason
from finetune_monitor.record.grid import Cell
from finetune_monitor.record.run_directory import EVALUATIONS, IMAGES
from finetune_monitor.stats.estimate import Estimate, from_json_number, plain


def read_evaluations(output_dir: Path) -> list[Evaluation]:
    """The evaluations with complete image rows, by step."""
    found = [_evaluation(output_dir / EVALUATIONS, *row) for row in _read_rows(output_dir / EVALUATIONS)]
    images = _read_images(output_dir / IMAGES)
    complete = []
    for evaluation, expected in sorted(found, key=lambda pair: pair[0].step):
        rows = tuple(images.get(evaluation.step, {}).values())
        if len(rows) == expected:
            complete.append(replace(evaluation, images=rows))
        else:
            _warn(f"{output_dir}: step {evaluation.step} has only {len(rows)} of {expected} image rows and is ignored")
    return complete


def _read_images(path: Path) -> dict[int, dict[str, ScoredImage]]:
    """Images by step and cell id; the last row counts: an evaluation that failed halfway may have been repeated."""
    images: dict[int, dict[str, ScoredImage]] = {}
    for number, row in _read_rows(path):
        step, image = _scored_image(path, number, row)
        cells = images.setdefault(step, {})
        index = cells[image.cell.id].cell.index if image.cell.id in cells else len(cells)
        cells[image.cell.id] = replace(image, cell=replace(image.cell, index=index))
    return images


def _read_rows(path: Path) -> list[tuple[int, Any]]:
    """Pairs of line number and row; a last line that a crash truncated is skipped with a warning."""
    lines = [(n, line) for n, line in enumerate(path.read_bytes().split(b"\n"), 1) if line] if path.exists() else []
    rows = []
    for position, (number, line) in enumerate(lines):
        try:
            rows.append((number, json.loads(line)))
        except ValueError:
            if position < len(lines) - 1:
                raise _damaged(path, number, "not valid JSON") from None
            _warn(f"{path}:{number}: the last line is truncated and is ignored")
    return rows


def _evaluation(path: Path, number: int, row: Any) -> tuple[Evaluation, int]:
    """An evaluation without its images, and the number of images that it must have."""
    try:
        decision = row["decision"]
        reason = as_reason(decision["reason"])
        scores = {name: Estimate.from_json(found) for name, found in row["scores"].items()}
        evaluation = Evaluation(
            int(row["step"]),
            row["epoch"],
            row["wall_time"],
            scores,
            seconds=row["seconds"],
            overhead=row.get("overhead"),
            decision=Decision(
                decision["stop"],
                reason,
                decision["best_step"],
                str(decision.get("detail", "")),
                decision.get("best_score"),
            ),
            alarms=tuple(map(str, row.get("alarms", ()))),
            samples={
                str(name): tuple(map(from_json_number, values)) for name, values in row.get("samples", {}).items()
            },
        )
        return evaluation, int(row["images"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, number, repr(error)) from error


def _scored_image(path: Path, number: int, row: Any) -> tuple[int, ScoredImage]:
    try:
        is_probe = row.get("probe", False) is True
        cell = Cell(0, row["cell"], row["prompt"], row["negative_prompt"], row["seed"], is_probe)
        scores = {name: from_json_number(value) for name, value in row["scores"].items()}
        return int(row["step"]), ScoredImage(cell, row["file"], scores)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, number, repr(error)) from error


def _damaged(path: Path, number: int, found: str) -> UserError:
    return UserError(f"{path}:{number}: damaged row ({found}); restore the file or choose a new output_dir")


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
        "images": len(evaluation.images),
    }


def append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows and flush them to disk; if the disk is full, no partial line is left behind."""
    with path.open("ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        content = memoryview(lines(rows))
        try:
            while content:
                content = content[file.write(content) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise
    if end == 0:
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
