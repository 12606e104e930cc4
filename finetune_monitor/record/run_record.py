"""Write a run directory: start or resume it, add evaluations, record how it ended."""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL.Image import Image

from finetune_monitor.base.errors import EXAMPLES_NAMED, UserError
from finetune_monitor.base.files import STAGING, make_private, staged_folder, write_atomic
from finetune_monitor.base.locks import unlock
from finetune_monitor.base.redaction import redacted, redacted_yaml
from finetune_monitor.base.text import counted, some_of, visible
from finetune_monitor.record.evaluation import Decision, Evaluation, RunSummary
from finetune_monitor.record.grid import FULL, Cell, PromptGrid
from finetune_monitor.record.history import RunHistory
from finetune_monitor.record.png import PngEncoder
from finetune_monitor.record.rows import (
    IMAGE_ROWS,
    append,
    evaluation_row,
    lines,
    pretty,
    read_evaluations,
    read_full_quality,
    read_with_losses,
)
from finetune_monitor.record.run_directory import (
    CONFIG,
    EVALUATIONS,
    FULL_QUALITY,
    IMAGES,
    RUN,
    check_no_sweep,
    lock,
    read_json,
    taking,
)
from finetune_monitor.record.scales import content_of
from finetune_monitor.record.training_log import TrainingLog
from finetune_monitor.record.verdict import verdict
from finetune_monitor.stats.estimate import json_number, plain

FIXED_ON_RESUME = ("metrics", "weights", "pipeline")
"""Keys of `run.json` that must not change on resume: they determine whether scores are comparable."""


class RunRecord:
    """Writes one run directory; holds its lock from construction to `close`, or to the end of the process.

    repeated: evaluations that were recorded after the step from which the run resumes.
    postponed: evaluations that could not be recorded, as on a full disk; they are recorded with the next one.

    A second record of the same directory in this process takes over the lock.

    Raises:
        UserError: another process is using the directory, it holds a sweep, or it cannot be created or written to.
    """

    def __init__(self, output_dir: Path, grid: PromptGrid):
        self.output_dir = output_dir
        self.grid = grid
        self._evaluations: list[Evaluation] = []
        self.postponed: tuple[Evaluation, ...] = ()
        self.repeated: tuple[Evaluation, ...] = ()
        self._encoder = PngEncoder(grid)
        check_no_sweep(output_dir)
        with taking(output_dir):
            make_private(output_dir)
            self._lock = lock(output_dir, takes_over=True)

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """Everything recorded so far, by step."""
        return tuple(self._evaluations)

    def begin(self, run: Mapping[str, Any], config_yaml: str | None, resume_step: int | None) -> None:
        """Start a new record, or resume the existing one and drop everything after `resume_step`.

        Args:
            run: content of `run.json`; the grid is added and secrets are removed.
            config_yaml: content of `config.yaml`; secrets are removed.
            resume_step: the checkpoint's step; None for a new run.

        Raises:
            UserError: a new run finds an old one; a resumed run finds none, or one with a different grid or different
                metrics; or a row before the last is damaged. The lock is released.
        """
        content = content_of_run(run, self.grid)
        try:
            self._load(content, resume_step)
        except BaseException:
            self.close()
            raise
        write_atomic(self.output_dir / RUN, pretty(content))
        self._training = TrainingLog(self.output_dir, resume_step)
        if config_yaml is not None:
            write_atomic(self.output_dir / CONFIG, redacted_yaml(config_yaml).encode())

    def judge_again(self, decision: Decision) -> None:
        """Replace the decision on the newest evaluation, as by rules that have changed.

        Raises:
            OSError: it could not be written.
        """
        *before, last = self._evaluations
        if last.decision != decision:
            self._evaluations = [*before, replace(last, decision=decision)]
            self._rewrite()

    def encode(self, step: int, cells: Sequence[Cell], images: Sequence[Image | None]) -> None:
        """Begin to encode images that `write_images` will be given, in the background."""
        self._encoder.begin(step, cells, images)

    def write_images(self, step: int, images: Sequence[Image | None]) -> list[str | None]:
        """Save all images of an evaluation or none; returns their names below the run directory."""
        return self._write_images(self._encoder, step, images, f"step-{step:06d}")

    def _write_images(
        self, encoder: PngEncoder, step: int, images: Sequence[Image | None], name: str
    ) -> list[str | None]:
        folder = Path("images") / name
        files = encoder.finish(step, images)
        names = [
            None if image is None else f"{cell.id}.png" for cell, image in zip(self.grid.cells, images, strict=True)
        ]
        with staged_folder(self.output_dir / folder) as staged:
            for file, content in zip(names, files, strict=True):
                if file is not None and content is not None:
                    (staged / file).write_bytes(content)
        return [None if file is None else str(folder / file) for file in names]

    def add_full_quality(self, evaluation: Evaluation, images: Sequence[Image | None]) -> None:
        """Record what a step's weights give at full quality, apart from the evaluations and their curve.

        Raises:
            OSError: it could not be written.
        """
        grid = self.grid.at_full_quality
        files = self._write_images(PngEncoder(grid), evaluation.step, images, f"step-{evaluation.step:06d}-{FULL}")
        shown = tuple(replace(image, file=file) for image, file in zip(evaluation.images, files, strict=True))
        evaluation = replace(evaluation, images=shown)
        row = {**evaluation_row(evaluation), IMAGE_ROWS: _image_rows(grid, evaluation)}
        append(self.output_dir / FULL_QUALITY, [row])

    def append(self, evaluation: Evaluation) -> None:
        """Write the image rows, then the evaluation row, which makes the evaluation count; postponed ones first.

        Raises:
            ValueError: the step is not after the last recorded one.
            OSError: the rows could not be written; both files are unchanged, or end with rows that are ignored when the
                record is read.
        """
        if self._evaluations and evaluation.step <= self._evaluations[-1].step:
            raise ValueError(f"step {evaluation.step} comes after step {self._evaluations[-1].step} in the record")
        for found in (*self.postponed, evaluation):
            append(self.output_dir / IMAGES, _image_rows(self.grid, found))
            append(self.output_dir / EVALUATIONS, [evaluation_row(found)])
            self._evaluations.append(found)
            self.postponed = tuple(each for each in self.postponed if each is not found)

    def log_training(self, step: int, loss: float, learning_rate: float | None = None) -> None:
        """Record the loss of a step, or its mean since the last call, for the curves (`record.training_log`).

        Raises:
            OSError: it could not be written.
        """
        self._training.add(step, loss, learning_rate)

    def postpone(self, evaluation: Evaluation) -> None:
        """Record an evaluation later, before the next one."""
        self.postponed = (*self.postponed, evaluation)

    def close(self) -> None:
        """Release the directory's lock."""
        self._encoder.drop()
        unlock(self._lock)

    @property
    def is_open(self) -> bool:
        """Whether the record can still be written: it was not closed, and no other has taken over."""
        return not self._lock.closed

    def end(self, summary: RunSummary) -> RunSummary:
        """Record how the run ended, with the verdict; returns the summary with it."""
        ended = {
            "step": summary.step,
            "reason": summary.reason,
            "detail": summary.detail,
            "best_metric": summary.best_metric,
            "best_step": summary.best_step,
            "best_score": summary.best_score,
        }
        run = {**read_json(self.output_dir / RUN), "ended": plain(ended)}
        with suppress(OSError):  # the last steps of a curve
            self._training.flush()
        full = tuple(read_full_quality(self.output_dir))
        found = verdict(RunHistory(self.output_dir, run, self.evaluations, full))
        write_atomic(self.output_dir / RUN, pretty({**run, "verdict": found.to_json()}))
        return replace(summary, verdict=found.sentences)

    def _load(self, content: Mapping[str, Any], resume_step: int | None) -> None:
        history = recorded(self.output_dir, content, resume_step)
        self._evaluations = [found for found in history if resume_step is not None and found.step <= resume_step]
        self.repeated = tuple(history[len(self._evaluations) :])
        self._rewrite()

    def _rewrite(self) -> None:
        """Rewrite the files with exactly the kept evaluations, which rewinds the run and repairs partial rows."""
        image_rows = [row for evaluation in self._evaluations for row in _image_rows(self.grid, evaluation)]
        # Evaluations first: image rows without an evaluation are ignored, but an evaluation without image rows is lost.
        write_atomic(self.output_dir / EVALUATIONS, lines(map(evaluation_row, self._evaluations)))
        write_atomic(self.output_dir / IMAGES, lines(image_rows))
        (self.output_dir / FULL_QUALITY).unlink(missing_ok=True)
        kept = {f"step-{evaluation.step:06d}" for evaluation in self._evaluations}
        for folder in (self.output_dir / "images").glob("*"):
            if folder.name not in kept and folder.name.startswith(("step-", STAGING)):
                shutil.rmtree(folder)


def recorded(output_dir: Path, new: Mapping[str, Any], resume_step: int | None) -> list[Evaluation]:
    """The evaluations in a directory, after checking that a run may begin there, or resume from a step.

    Args:
        new: the content of run.json.

    Raises:
        UserError: a new run finds an old one; a resumed run finds none, one with a different grid or different
            metrics, or one with steps whose rows are missing.
    """
    if resume_step is not None:
        check_resume(output_dir, read_json(output_dir / RUN), new)
        history, incomplete = read_with_losses(output_dir)
        if lost := [step for step in incomplete if step <= resume_step]:
            raise UserError(
                f"{output_dir}: {EVALUATIONS} and {IMAGES} do not match: {_steps(lost)} is not in both, and resuming "
                "would drop it; restore the missing file, or choose a new output_dir"
            )
        return history
    if history := read_evaluations(output_dir):
        raise UserError(
            f"{output_dir}: holds a run with {len(history)} evaluations (the last at step {history[-1].step}), "
            "expected an empty directory; choose another output_dir, or resume it (resume_step)"
        )
    return []


def _steps(steps: Sequence[int]) -> str:
    named = ", ".join(map(str, steps[:EXAMPLES_NAMED]))
    return f"step {named}" + (f" (and {len(steps) - EXAMPLES_NAMED} more)" if len(steps) > EXAMPLES_NAMED else "")


def _image_rows(grid: PromptGrid, evaluation: Evaluation) -> list[dict[str, Any]]:
    return [
        {
            "step": evaluation.step,
            "cell": image.cell.id,
            "prompt": image.cell.prompt,
            "negative_prompt": image.cell.negative_prompt,
            "seed": image.cell.seed,
            **({"probe": True} if image.cell.is_probe else {}),
            **grid.sampling,
            "file": image.file,
            "scores": {name: json_number(value) for name, value in image.scores.items()},
        }
        for image in evaluation.images
    ]


def content_of_run(run: Mapping[str, Any], grid: PromptGrid) -> dict[str, Any]:
    """The content of run.json: without secrets, and with the grid."""
    found: dict[str, Any] = plain({**redacted(run), "grid": described_grid(grid)})
    return found


def described_grid(grid: PromptGrid) -> dict[str, Any]:
    """The grid in the form of `run.json`, without secrets; the fingerprint is that of the grid itself."""
    return {"fingerprint": grid.fingerprint(), **redacted(asdict(grid))}


def check_resume(output_dir: Path, recorded: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Check that a resumed run has the same grid, and the same metrics, weights, and model if `new` names them.

    Raises:
        UserError: names the recorded values and the requested ones.
    """
    old_grid, new_grid = recorded.get("grid", {}), new["grid"]
    if old_grid.get("fingerprint") != new_grid["fingerprint"]:
        changed = [key for key in new_grid if key != "fingerprint" and old_grid.get(key) != new_grid[key]]
        raise UserError(
            f"{output_dir}: prompt grid is {str(old_grid.get('fingerprint'))[:4]}…, the config says "
            f"{new_grid['fingerprint'][:4]}… (different: {', '.join(changed)}); "
            "restore the grid, choose a new output_dir, or delete this one"
        )
    for key in (key for key in FIXED_ON_RESUME if key in new):
        changes = _differences(recorded.get(key), new[key], key)
        if changes:
            raise UserError(
                f"{output_dir}: the run was recorded with a different setup: {'; '.join(changes)}; "
                "restore it, choose a new output_dir, or delete this one"
            )


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Each difference as `path is OLD, the config says NEW`; notices are not compared, nor names of equal content."""
    if content_of(old) == content_of(new):
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        unknown = {"sha256"} if "sha256" not in old or "sha256" not in new else set()  # as in earlier records
        keys = [key for key in {**old, **new} if key not in {"notice", *unknown}]
        found = (_differences(old.get(key), new.get(key), f"{path}.{key}".lstrip(".")) for key in keys)
        return [difference for inner in found for difference in inner]
    if _are_files(old) and _are_files(new):
        return [f"{path} is {_files(old, new)}, the config says {_files(new, old)}"]
    return [f"{path} is {json.dumps(old)}, the config says {json.dumps(new)}"]


def _are_files(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, Mapping) and "file" in each for each in value)


def _files(files: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> str:
    """How many files these are, and the names of those whose content is not among the others."""
    known = {str(content_of(each)) for each in others}
    own = [Path(str(each["file"])).name for each in files if str(content_of(each)) not in known]
    return counted(len(files), "file") + (f" with {visible(some_of(own, EXAMPLES_NAMED))}" if own else "")
