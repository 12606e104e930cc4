"""Read a run directory: the basis of every curve, table, and page."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from finetune_monitor.base.errors import UserError
from finetune_monitor.record.columns import SIDE, Role, ScoreColumn
from finetune_monitor.record.evaluation import Evaluation, StopReason, as_reason, why
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.rows import read_evaluations
from finetune_monitor.record.run_directory import RUN, read_json
from finetune_monitor.stats.estimate import Estimate

GREATEST = 2**63
"""Limit on steps and seeds, which become file names."""

T = TypeVar("T")


@dataclass(frozen=True)
class RunHistory:
    """The content of a run directory: `run.json` and the complete evaluations, by step.

    Properties that read from `run.json` raise UserError if that part of it is damaged.
    """

    output_dir: Path
    run: Mapping[str, Any]
    evaluations: tuple[Evaluation, ...]

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
        return self._read("weights", lambda found: {str(name): dict(each) for name, each in found.items()})

    @cached_property
    def grid(self) -> PromptGrid:
        """The prompt grid, with its types checked because its values become file names."""
        if "grid" not in self.run:
            raise self._damaged("grid", "it is missing")
        return self._read("grid", _grid)

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences to show next to the scores."""
        described = [self._read("pipeline", dict), *self.weights.values()]
        return tuple(dict.fromkeys(str(found["notice"]) for found in described if found.get("notice")))

    @property
    def ceilings(self) -> dict[str, Estimate]:
        """The scores of the real photos against each other, by column."""
        return self._read("baselines", lambda found: {name: Estimate.from_json(each) for name, each in found.items()})

    @property
    def hparams(self) -> dict[str, Any]:
        """The flat training settings; empty if none were given."""
        return self._read("hparams", dict)

    @property
    def model(self) -> str | None:
        """The base model's hub id or folder, if known."""
        name = self._read("pipeline", dict).get("name_or_path") or self.hparams.get("model")
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
        return why(self.reason, detail) if self.has_ended else "it is running, or was killed"

    @property
    def best_metric(self) -> str | None:
        """The column that determines the best step."""
        return _text(self._ended.get("best_metric", self.run.get("best_metric")))

    @property
    def best_step(self) -> int | None:
        """The best step according to the run; for a run in progress, the best one so far."""
        return self._best("best_step", int)

    @property
    def best_score(self) -> float | None:
        """The value of the smoothed curve there; None if unknown, as in older records."""
        return self._best("best_score", float)

    def _best(self, key: str, kind: Callable[[Any], T]) -> T | None:
        """The recorded value of a run that ended, or that of the last decision of a run in progress."""
        last = getattr(self.evaluations[-1].decision, key) if self.evaluations else None
        found = self._ended.get(key) if self.has_ended else last
        return None if found is None else self._read("ended", lambda _: kind(found))

    @property
    def _ended(self) -> dict[str, Any]:
        return self._read("ended", dict)

    def _columns(self, main: Mapping[str, Any]) -> dict[str, ScoreColumn]:
        described = self.run.get("columns", {})
        directions = {name: {key: each[key] for key in ("higher_is_better", "bounds")} for name, each in main.items()}
        found = {name: {**each, "role": _minor_role(each)} for name, each in described.items()}
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


def read_run(output_dir: Path) -> RunHistory:
    """Read a run directory without locking it, even while the run is in progress; nothing is changed.

    Raises:
        UserError: the folder is missing or not a run directory, or a row before the last is damaged.
    """
    return RunHistory(output_dir, read_json(output_dir / RUN), tuple(read_evaluations(output_dir)))


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
    content = {key: value for key, value in found.items() if key in known}
    prompts, size = tuple(content["prompts"]), content.get("size")
    seeds = None if content["seeds"] is None else tuple(content["seeds"])
    probes = tuple(content.get("probe_prompts", ()))
    texts = (*prompts, *probes, content.get("negative_prompt", ""))
    numbers = (*(seeds or ()), *(content.get(key) for key in ("images_per_prompt", "images_per_probe")))
    if not all(isinstance(text, str) for text in texts) or not all(
        each is None or (type(each) is int and abs(each) < GREATEST) for each in numbers
    ):
        raise ValueError(f"found prompts {prompts!r} and seeds {numbers!r}")
    lists = {"prompts": prompts, "seeds": seeds, "probe_prompts": probes}
    return PromptGrid(**{**content, **lists, "size": None if size is None else (int(size[0]), int(size[1]))})


def _text(found: Any) -> str | None:
    return None if found is None else str(found)
