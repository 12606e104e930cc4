"""The run directory: what every curve, table and resume is read back from."""

import fcntl
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar

from PIL import PngImagePlugin
from PIL.Image import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import STAGING, fsync, staged_folder, write_atomic
from finetune_monitor.base.redaction import redacted, redacted_yaml
from finetune_monitor.record.columns import SIDE, ScoreColumn
from finetune_monitor.record.evaluation import (
    Decision,
    Evaluation,
    RunSummary,
    ScoredImage,
    StopReason,
    as_reason,
    why,
)
from finetune_monitor.record.grid import Cell, PromptGrid
from finetune_monitor.stats.estimate import Estimate, from_json_number, json_number, plain

CONFIG, RUN, EVALUATIONS, IMAGES = "config.yaml", "run.json", "evaluations.jsonl", "images.jsonl"

FIXED_ON_RESUME = ("metrics", "weights", "pipeline")
"""Keys of `run.json` that must not change on a resume: they decide whether scores can be compared."""


GREATEST = 2**63
"""Of steps and seeds, which become file names."""

T = TypeVar("T")


@dataclass(frozen=True)
class RunHistory:
    """A run directory read back: `run.json` and the complete evaluations, by step.

    What is read from `run.json` raises UserError where that part of it is damaged.
    """

    output_dir: Path
    run: Mapping[str, Any]
    evaluations: tuple[Evaluation, ...]

    def at(self, step: int) -> Evaluation | None:
        """The evaluation of a step."""
        return next((found for found in self.evaluations if found.step == step), None)

    @cached_property
    def columns(self) -> dict[str, ScoreColumn]:
        """What is known of each column of scores; one that is not described is a side column."""
        return self._read("metrics", self._columns)

    @property
    def main_columns(self) -> dict[str, ScoreColumn]:
        """The metrics' scores and stars, which are shown with an interval."""
        return {name: column for name, column in self.columns.items() if column.is_main}

    @cached_property
    def weights(self) -> dict[str, dict[str, Any]]:
        """By metric the models and photos that it measures with."""
        return self._read("weights", lambda found: {str(name): dict(each) for name, each in found.items()})

    @cached_property
    def grid(self) -> PromptGrid:
        """The prompt grid; what is no text or no whole number in it could become a file name."""
        if "grid" not in self.run:
            raise self._damaged("grid", "it is missing")
        return self._read("grid", _grid)

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences that belong beside the scores."""
        described = [self._read("pipeline", dict), *self.weights.values()]
        return tuple(dict.fromkeys(str(found["notice"]) for found in described if found.get("notice")))

    @property
    def ceilings(self) -> dict[str, Estimate]:
        """Scores of the real photos against each other, by column."""
        return self._read("baselines", lambda found: {name: Estimate.from_json(each) for name, each in found.items()})

    @property
    def hparams(self) -> dict[str, Any]:
        """Flat settings of the training; empty where none were given."""
        return self._read("hparams", dict)

    @property
    def model(self) -> str | None:
        """The base model's hub id or folder, where it is known."""
        name = self._read("pipeline", dict).get("name_or_path") or self.hparams.get("model")
        return None if name is None else str(name)

    @property
    def has_ended(self) -> bool:
        return "ended" in self.run

    @property
    def reason(self) -> StopReason | str | None:
        """Why the run ended; None where its loop just ended, or where it has not."""
        return as_reason(_text(self._ended.get("reason")))

    @property
    def why(self) -> str:
        """The same in words."""
        return why(self.reason) if self.has_ended else "it is running, or was killed"

    @property
    def best_metric(self) -> str | None:
        """The column that says which step is best."""
        return _text(self._ended.get("best_metric", self.run.get("best_metric")))

    @property
    def best_step(self) -> int | None:
        """The step that the run calls its best, or that a run which goes on does now."""
        last = self.evaluations[-1].decision.best_step if self.evaluations else None
        found = self._ended.get("best_step") if self.has_ended else last
        return None if found is None else self._read("ended", lambda _: int(found))

    @property
    def _ended(self) -> dict[str, Any]:
        return self._read("ended", dict)

    def _columns(self, main: Mapping[str, Any]) -> dict[str, ScoreColumn]:
        described = self.run.get("columns", {})
        directions = {name: {key: each[key] for key in ("higher_is_better", "bounds")} for name, each in main.items()}
        found = {name: {**each, "role": "side"} for name, each in described.items()}
        found |= {name: {**described.get(name, {}), **each} for name, each in directions.items()}
        names = dict.fromkeys([*main, *found, *(name for each in self.evaluations for name in each.scores)])
        columns = {str(name): ScoreColumn.from_json(found[name]) if name in found else SIDE for name in names}
        return {name: replace(column, metric=column.metric or name) for name, column in columns.items()}

    def _read(self, key: str, read: Callable[[Any], T]) -> T:
        try:
            return read(self.run.get(key, {}))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
            raise self._damaged(key, repr(error)) from error

    def _damaged(self, key: str, problem: str) -> UserError:
        return UserError(f"{self.output_dir / RUN}: {key}: damaged ({problem}); restore the file from a backup")


class RunRecord:
    """Writes one run directory; holds its lock from construction to `close`, or to the end of the process.

    Raises:
        UserError: another run holds the directory.
    """

    def __init__(self, output_dir: Path, grid: PromptGrid):
        self.output_dir = output_dir
        self.grid = grid
        self._evaluations: list[Evaluation] = []
        output_dir.mkdir(parents=True, exist_ok=True)
        self._lock = lock(output_dir)

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """Everything recorded so far, by step."""
        return tuple(self._evaluations)

    def begin(self, run: Mapping[str, Any], config_yaml: str | None, resume_step: int | None) -> None:
        """Start a new record, or go on with the one that is here and drop what it holds after `resume_step`.

        Args:
            run: content of `run.json`; the grid is added, secrets are taken out.
            config_yaml: content of `config.yaml`; secrets are taken out.
            resume_step: the checkpoint's step; None for a new run.

        Raises:
            UserError: a new run finds an old one, a resume finds none or one with another grid or other metrics, or
                a row before the last is damaged. The lock is given back.
        """
        content = plain({**redacted(run), "grid": described_grid(self.grid)})
        try:
            self._load(content, resume_step)
        except BaseException:
            self.close()
            raise
        write_atomic(self.output_dir / RUN, _pretty(content))
        if config_yaml is not None:
            write_atomic(self.output_dir / CONFIG, redacted_yaml(config_yaml).encode())

    def write_images(self, step: int, images: Sequence[Image | None]) -> list[str | None]:
        """Save an evaluation's images as a whole; returns their names below the run directory."""
        folder = Path("images") / f"step-{step:06d}"
        with staged_folder(self.output_dir / folder) as staged:
            for cell, image in zip(self.grid.cells, images, strict=True):
                if image is not None:
                    # The default level takes 1.7 times as long for files a tenth smaller.
                    image.save(staged / f"{cell.id}.png", pnginfo=self._png_text(step, cell), compress_level=1)
        return [
            None if image is None else str(folder / f"{cell.id}.png")
            for cell, image in zip(self.grid.cells, images, strict=True)
        ]

    def append(self, evaluation: Evaluation) -> None:
        """Write the image rows, then the evaluation row: the second one makes the evaluation count.

        Raises:
            ValueError: the step is not after the last recorded one.
            OSError: the rows could not be written; both files end where they ended before or with rows that are
                dropped when the record is read.
        """
        if self._evaluations and evaluation.step <= self._evaluations[-1].step:
            raise ValueError(f"step {evaluation.step} comes after step {self._evaluations[-1].step} in the record")
        _append(self.output_dir / IMAGES, self._image_rows(evaluation))
        _append(self.output_dir / EVALUATIONS, [_evaluation_row(evaluation)])
        self._evaluations.append(evaluation)

    def close(self) -> None:
        """Free the directory."""
        self._lock.close()

    def end(self, summary: RunSummary) -> None:
        """Note how the run ended."""
        ended = {"reason": summary.reason, "best_metric": summary.best_metric, "best_step": summary.best_step}
        run = _read_json(self.output_dir / RUN)
        write_atomic(self.output_dir / RUN, _pretty({**run, "ended": plain(ended)}))

    def _load(self, content: Mapping[str, Any], resume_step: int | None) -> None:
        history = _read_evaluations(self.output_dir)
        if resume_step is not None:
            check_resume(self.output_dir, _read_json(self.output_dir / RUN), content)
        elif history:
            raise UserError(
                f"{self.output_dir}: holds a run with {len(history)} evaluations (the last at step "
                f"{history[-1].step}), expected an empty directory; choose another output_dir, or resume"
            )
        self._evaluations = [found for found in history if resume_step is not None and found.step <= resume_step]
        self._rewrite()

    def _rewrite(self) -> None:
        """Make the files hold the kept evaluations and nothing else: a rewind, and the repair of torn rows."""
        image_rows = [row for evaluation in self._evaluations for row in self._image_rows(evaluation)]
        # Evaluations first: image rows without an evaluation are dropped at any time, the reverse would lose it.
        write_atomic(self.output_dir / EVALUATIONS, _lines(map(_evaluation_row, self._evaluations)))
        write_atomic(self.output_dir / IMAGES, _lines(image_rows))
        kept = {f"step-{evaluation.step:06d}" for evaluation in self._evaluations}
        for folder in (self.output_dir / "images").glob("*"):
            if folder.name not in kept and folder.name.startswith(("step-", STAGING)):
                shutil.rmtree(folder)

    def _image_rows(self, evaluation: Evaluation) -> list[dict[str, Any]]:
        sampling = {"sampler": self.grid.sampler, "steps": self.grid.steps, "guidance": self.grid.guidance}
        return [
            {
                "step": evaluation.step,
                "cell": image.cell.id,
                "prompt": image.cell.prompt,
                "negative_prompt": image.cell.negative_prompt,
                "seed": image.cell.seed,
                **sampling,
                "file": image.file,
                "scores": {name: json_number(value) for name, value in image.scores.items()},
            }
            for image in evaluation.images
        ]

    def _png_text(self, step: int, cell: Cell) -> PngImagePlugin.PngInfo:
        """What made the image, inside the image."""
        text = PngImagePlugin.PngInfo()
        grid = {"sampler": self.grid.sampler, "steps": self.grid.steps, "guidance": self.grid.guidance}
        made_by = {"step": step, "prompt": cell.prompt, "negative_prompt": cell.negative_prompt, "seed": cell.seed}
        for key, value in {**made_by, **grid}.items():
            text.add_itxt(f"finetune_monitor.{key}", str(value))
        return text


def described_grid(grid: PromptGrid) -> dict[str, Any]:
    """The grid as `run.json` holds it."""
    return {"fingerprint": grid.fingerprint(), **asdict(grid)}


def _grid(found: Mapping[str, Any]) -> PromptGrid:
    known = {field.name for field in fields(PromptGrid)}
    content = {key: value for key, value in found.items() if key in known}
    prompts, seeds, size = list(content["prompts"]), list(content["seeds"]), content.get("size")
    texts = [*prompts, content.get("negative_prompt", "")]
    if not all(isinstance(text, str) for text in texts) or not all(
        type(seed) is int and abs(seed) < GREATEST for seed in seeds
    ):
        raise ValueError(f"found prompts {prompts!r} and seeds {seeds!r}")
    lists = {"prompts": tuple(prompts), "seeds": tuple(seeds)}
    return PromptGrid(**{**content, **lists, "size": None if size is None else (int(size[0]), int(size[1]))})


def _text(found: Any) -> str | None:
    return None if found is None else str(found)


def read_run(output_dir: Path) -> RunHistory:
    """Read a run directory without its lock, also while the run goes on; nothing is changed.

    Raises:
        UserError: the folder is missing or no run directory, or a row before the last is damaged.
    """
    return RunHistory(output_dir, _read_json(output_dir / RUN), tuple(_read_evaluations(output_dir)))


def read_noting(output_dir: Path) -> tuple[RunHistory, tuple[str, ...]]:
    """As `read_run`, with what it warns of as sentences in place of warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = read_run(output_dir)
    return history, tuple(str(warning.message) for warning in caught)


def lock(output_dir: Path) -> IO[str]:
    """Take the directory's kernel lock, which ends with its holder however that one dies."""
    file = (output_dir / ".lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise UserError(
            f"{output_dir}: in use by the run with PID {holder}; wait for it, stop it, or choose another output_dir"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def check_resume(output_dir: Path, recorded: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to go on with another grid, or with other metrics, weights or model where `new` names them.

    Raises:
        UserError: names what is recorded and what was asked for.
    """
    old_grid, new_grid = recorded.get("grid", {}), new["grid"]
    if old_grid.get("fingerprint") != new_grid["fingerprint"]:
        changed = [key for key in new_grid if key != "fingerprint" and old_grid.get(key) != new_grid[key]]
        raise UserError(
            f"{output_dir}: prompt grid is {str(old_grid.get('fingerprint'))[:4]}…, the config says "
            f"{new_grid['fingerprint'][:4]}… (not the same: {', '.join(changed)}); "
            "restore the grid or choose a new output_dir"
        )
    for key in (key for key in FIXED_ON_RESUME if key in new):
        changes = _differences(recorded.get(key), new[key], key)
        if changes:
            raise UserError(
                f"{output_dir}: the run was recorded with another setup: {'; '.join(changes)}; "
                "restore it or choose a new output_dir"
            )


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Each difference as `path is OLD, the config says NEW`; a notice is no difference."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [key for key in {**old, **new} if key != "notice"]
        found = (_differences(old.get(key), new.get(key), f"{path}.{key}".lstrip(".")) for key in keys)
        return [difference for inner in found for difference in inner]
    return [] if old == new else [f"{path} is {json.dumps(old)}, the config says {json.dumps(new)}"]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path.parent}: found no {path.name}, expected a run directory; check the path") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); restore it, or choose a new output_dir") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: found {type(content).__name__}, expected an object; choose a new output_dir")
    return content


def _read_evaluations(output_dir: Path) -> list[Evaluation]:
    """The evaluations that have all their image rows, by step."""
    found = [_evaluation(output_dir / EVALUATIONS, *row) for row in _read_rows(output_dir / EVALUATIONS)]
    images = _read_images(output_dir / IMAGES)
    complete = []
    for evaluation, expected in sorted(found, key=lambda pair: pair[0].step):
        rows = tuple(images.get(evaluation.step, {}).values())
        if len(rows) == expected:
            complete.append(replace(evaluation, images=rows))
        else:
            _warn(f"{output_dir}: step {evaluation.step} has {len(rows)} of {expected} image rows and is dropped")
    return complete


def _read_images(path: Path) -> dict[int, dict[str, ScoredImage]]:
    """Step to cell id to image; the last row counts, as an evaluation that failed half-way may be repeated."""
    images: dict[int, dict[str, ScoredImage]] = {}
    for number, row in _read_rows(path):
        step, image = _scored_image(path, number, row)
        cells = images.setdefault(step, {})
        index = cells[image.cell.id].cell.index if image.cell.id in cells else len(cells)
        cells[image.cell.id] = replace(image, cell=replace(image.cell, index=index))
    return images


def _read_rows(path: Path) -> list[tuple[int, Any]]:
    """(line number, row); a last line that a crash cut short is left out with a warning."""
    lines = [(n, line) for n, line in enumerate(path.read_bytes().split(b"\n"), 1) if line] if path.exists() else []
    rows = []
    for position, (number, line) in enumerate(lines):
        try:
            rows.append((number, json.loads(line)))
        except ValueError:
            if position < len(lines) - 1:
                raise _damaged(path, number, "not valid JSON") from None
            _warn(f"{path}:{number}: the last line was cut short and is dropped")
    return rows


def _evaluation(path: Path, number: int, row: Any) -> tuple[Evaluation, int]:
    """An evaluation without its images, and how many there must be."""
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
            decision=Decision(decision["stop"], reason, decision["best_step"]),
        )
        return evaluation, int(row["images"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, number, repr(error)) from error


def _scored_image(path: Path, number: int, row: Any) -> tuple[int, ScoredImage]:
    try:
        cell = Cell(0, row["cell"], row["prompt"], row["negative_prompt"], row["seed"])
        scores = {name: from_json_number(value) for name, value in row["scores"].items()}
        return int(row["step"]), ScoredImage(cell, row["file"], scores)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, number, repr(error)) from error


def _damaged(path: Path, number: int, found: str) -> UserError:
    return UserError(f"{path}:{number}: damaged row ({found}); restore the file, or choose a new output_dir")


def _evaluation_row(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "step": evaluation.step,
        "epoch": evaluation.epoch,
        "wall_time": evaluation.wall_time,
        "scores": {name: estimate.to_json() for name, estimate in evaluation.scores.items()},
        "seconds": dict(evaluation.seconds),
        "overhead": evaluation.overhead,
        "decision": plain(asdict(evaluation.decision)),
        "images": len(evaluation.images),
    }


def _append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows and flush them to the disk; rows that do not fit leave no torn line for the next ones to follow."""
    with path.open("ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        content = memoryview(_lines(rows))
        try:
            while content:
                content = content[file.write(content) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise
    if end == 0:
        fsync(path.parent)


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(_json(row) for row in rows)


def _pretty(content: Mapping[str, Any]) -> bytes:
    return _json(content, indent=2)


def _json(content: Mapping[str, Any], indent: int | None = None) -> bytes:
    """UTF-8; what a file name holds beyond Unicode becomes JSON's own escape, and is read back as it was."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=indent) + "\n"
    return text.encode("utf-8", "backslashreplace")


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)
