"""Read a run directory: the basis of every curve, table, and page."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.json_files import as_flag, as_list, as_number, as_object, as_text, as_whole, damage_named
from finetune_monitor.record.columns import SIDE, Role, ScoreColumn
from finetune_monitor.record.evaluation import Evaluation, StopReason, as_reason, why
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.rows import read_evaluations, read_full_quality
from finetune_monitor.record.run_directory import RUN, read_json
from finetune_monitor.stats.estimate import Estimate

SCORE = "score."
"""Beginning of the settings of a run that measures what others have trained."""

T = TypeVar("T")


@dataclass(frozen=True)
class RunHistory:
    """The content of a run directory: `run.json` and the complete evaluations, by step.

    full_quality: of a run whose grid is `fast`, the best and the last step rendered at full quality; never part of a
        curve, whose scores they would shift.

    Properties that read from `run.json` raise UserError if that part of it is damaged.
    """

    output_dir: Path
    run: Mapping[str, Any]
    evaluations: tuple[Evaluation, ...]
    full_quality: tuple[Evaluation, ...] = ()

    def at(self, step: int) -> Evaluation | None:
        """The evaluation at a step, if there is one."""
        return next((found for found in self.evaluations if found.step == step), None)

    @cached_property
    def columns(self) -> dict[str, ScoreColumn]:
        """The description of each score column; a column without one is a side column."""
        return self._read("metrics", self._columns)

    @property
    def main_columns(self) -> dict[str, ScoreColumn]:
        """The metrics' scores and stars, which are shown with intervals."""
        return {name: column for name, column in self.columns.items() if column.is_main}

    @cached_property
    def weights(self) -> dict[str, dict[str, Any]]:
        """The models and photos that each metric uses, by metric."""
        return self._read("weights", lambda found: {name: as_object(each) for name, each in found.items()})

    @cached_property
    def grid(self) -> PromptGrid:
        """The prompt grid, with its types checked because its values become file names."""
        if "grid" not in self.run:
            raise UserError(f"{self.output_dir / RUN}: grid: damaged (it is missing); restore the file from a backup")
        return self._read("grid", _grid)

    @property
    def recorded_fingerprint(self) -> str | None:
        """The fingerprint of the grid as it was recorded."""
        return self._read("grid", lambda found: _text(as_object(found).get("fingerprint")))

    @property
    def pipeline(self) -> dict[str, str]:
        """The pipeline's class, hub id or folder, and notice, as far as known."""
        return self._read("pipeline", lambda found: {k: as_text(v) for k, v in (found or {}).items() if v is not None})

    @property
    def processes(self) -> int:
        """How many processes shared each evaluation."""
        return self._read("processes", lambda found: max(1, as_whole(found)), 1)

    @property
    def made_with(self) -> dict[str, str]:
        """Versions of libraries, by name."""
        return self._read("versions", lambda found: {name: str(version) for name, version in found.items()})

    @property
    def device(self) -> str | None:
        return _text(self.run.get("device"))

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences to show next to the scores."""
        described = [self.pipeline, *self.weights.values()]
        return tuple(dict.fromkeys(str(found["notice"]) for found in described if found.get("notice")))

    @property
    def ceilings(self) -> dict[str, Estimate]:
        """The scores of the real photos against each other, by column."""
        return self._read("baselines", lambda found: {name: Estimate.from_json(each) for name, each in found.items()})

    @property
    def hparams(self) -> dict[str, Any]:
        """The flat training settings; empty if none were given."""
        return self._read("hparams", as_object)

    @property
    def is_score(self) -> bool:
        """Whether others have trained what was measured."""
        return any(key.startswith(SCORE) for key in self.hparams)

    @property
    def model(self) -> str | None:
        """The base model's hub id or folder, if known."""
        name = self.pipeline.get("name_or_path") or self.hparams.get("model")
        return None if name is None else str(name)

    @property
    def has_ended(self) -> bool:
        return "ended" in self.run

    @property
    def reason(self) -> StopReason | str | None:
        """Why the run ended; None if its loop simply ended, or if it has not ended."""
        return as_reason(_text(self._ended.get("reason")))

    @property
    def why(self) -> str:
        """The reason in words."""
        detail = _text(self._ended.get("detail")) or ""
        return why(self.reason, detail) if self.has_ended else "in progress, or killed"

    @property
    def last_step(self) -> int | None:
        """The step at which the run ended; the last evaluated one if that is unknown, as in older records."""
        found = self._ended.get("step")
        if found is not None:
            return self._read("ended", lambda _: as_whole(found))
        return self.evaluations[-1].step if self.evaluations else None

    @property
    def best_metric(self) -> str | None:
        """The column that determines the best step."""
        return _text(self._ended.get("best_metric", self.run.get("best_metric")))

    @property
    def best_step(self) -> int | None:
        """The best step according to the run; for a run in progress, the best one so far."""
        return self._best("best_step", as_whole)

    @property
    def best_score(self) -> float | None:
        """The value of the smoothed curve there; None if unknown, as in older records."""
        return self._best("best_score", as_number)

    def _best(self, key: str, kind: Callable[[Any], T]) -> T | None:
        """The recorded value of a run that ended, or that of the last decision of a run in progress."""
        last = getattr(self.evaluations[-1].decision, key) if self.evaluations else None
        found = self._ended.get(key) if self.has_ended else last
        return None if found is None else self._read("ended", lambda _: kind(found))

    @property
    def _ended(self) -> dict[str, Any]:
        return self._read("ended", as_object)

    def _columns(self, main: Mapping[str, Any]) -> dict[str, ScoreColumn]:
        described = self.run.get("columns", {})
        directions = {name: {key: each[key] for key in ("higher_is_better", "bounds")} for name, each in main.items()}
        found = {name: {**each, "role": _minor_role(each)} for name, each in described.items()}
        found |= {name: {**described.get(name, {}), **each} for name, each in directions.items()}
        recorded = (*self.evaluations, *self.full_quality)
        names = dict.fromkeys([*main, *found, *(name for each in recorded for name in each.scores)])
        columns = {str(name): ScoreColumn.from_json(found[name]) if name in found else SIDE for name in names}
        return {name: replace(column, metric=column.metric or name) for name, column in columns.items()}

    def _read(self, key: str, read: Callable[[Any], T], default: Any = MappingProxyType({})) -> T:
        with damage_named(f"{self.output_dir / RUN}: {key}", "restore the file from a backup"):
            return read(self.run.get(key, default))


def read_run(output_dir: Path) -> RunHistory:
    """Read a run directory without locking it, even while the run is in progress; nothing is changed.

    Raises:
        UserError: the folder is missing or not a run directory, or a row before the last is damaged.
    """
    run, evaluations = read_json(output_dir / RUN), tuple(read_evaluations(output_dir))
    return RunHistory(output_dir, run, evaluations, tuple(read_full_quality(output_dir)))


def read_noting(output_dir: Path) -> tuple[RunHistory, tuple[str, ...]]:
    """Like `read_run`, but its warnings are returned as sentences."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = read_run(output_dir)
    return history, tuple(str(warning.message) for warning in caught)


def _minor_role(described: Mapping[str, Any]) -> Role:
    """The role of a column that is not under `metrics`."""
    return "note" if described.get("role") == "note" else "side"


def _grid(found: Mapping[str, Any]) -> PromptGrid:
    known = {field.name for field in fields(PromptGrid)}
    optional = {field.name for field in fields(PromptGrid) if field.default is None}
    content = {key: value for key, value in found.items() if key in known}
    readers: dict[str, Callable[[Any], Any]] = {
        **dict.fromkeys(("prompts", "probe_prompts"), lambda texts: tuple(map(as_text, as_list(texts)))),
        **dict.fromkeys(("negative_prompt", "sampler", "quality"), as_text),
        **dict.fromkeys(("steps", "images_per_prompt", "images_per_probe"), as_whole),
        **dict.fromkeys(("seeds", "size"), lambda numbers: tuple(map(as_whole, as_list(numbers)))),
        "guidance": as_number,
        "karras": as_flag,
    }
    typed: Any = {
        key: None if value is None and key in optional else readers[key](value) for key, value in content.items()
    }
    if len(typed.get("size") or (0, 0)) != 2:
        raise ValueError(f"found size {typed['size']}, expected height and width")
    return PromptGrid(**typed)


def _text(found: Any) -> str | None:
    return None if found is None else str(found)
