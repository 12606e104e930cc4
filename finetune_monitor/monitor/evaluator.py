"""Render and score the grid, each process its share; failures become missing values, and training continues."""

import logging
import math
import reprlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import psutil
from PIL.Image import Image

from finetune_monitor.base import distributed
from finetune_monitor.base.errors import UserError
from finetune_monitor.base.text import counted
from finetune_monitor.metrics import Compares, Derives, Feature, Metric, OfModel, unwrapped
from finetune_monitor.monitor.shared_images import SharedImages
from finetune_monitor.monitor.user_code import UserCode
from finetune_monitor.record.columns import SIDE, ScoreColumn
from finetune_monitor.record.evaluation import Evaluation, ScoredImage
from finetune_monitor.record.grid import Cell, PromptGrid
from finetune_monitor.rendering.renderer import Renderer, is_black
from finetune_monitor.stats.estimate import MISSING, Estimate

GIB = 2**30

COPIES = 5
"""How many copies of an image are in memory at once: rendered, encoded, sent between processes, and gathered for the
sinks."""

ROUNDING = 1e-4
"""How far outside its bounds a score may lie, as a share of their distance: cosines of 1 are rounded."""

NOT_FINITE = "the model's output is not finite; check its weights, or render in bf16 or fp32 instead of fp16"

logger = logging.getLogger(__name__)

T = TypeVar("T")


class WarnOnce:
    """Logs the first warning on a subject and drops the rest: a broken metric must not flood the console."""

    def __init__(self) -> None:
        self._subjects: set[str] = set()

    def __call__(self, subject: str, message: str) -> None:
        if subject not in self._subjects:
            self._subjects.add(subject)
            logger.warning(message)


@runtime_checkable
class FoundImages(Protocol):
    """Images that another tool has rendered; they take the place of both the pipeline and its renderer.

    pipeline: without components.
    size: height and width of the largest image in pixels.
    """

    grid: PromptGrid
    size: tuple[int, int]

    @property
    def pipeline(self) -> Any: ...

    @property
    def found_step(self) -> int | None:
        """The step whose images `render` returns."""
        ...

    def render(self, cells: Sequence[Cell]) -> list[Image | None]:
        """One image per cell; None where there is none."""
        ...

    def remedy(self, error: BaseException) -> str:
        """What to do about an error of `render`; empty if that is unknown."""
        ...

    def precision(self) -> AbstractContextManager[object]: ...


@dataclass(frozen=True)
class Measurement:
    """Images and scores in the grid's order, with the time in seconds of the slowest process.

    The main process has all images; the others have only their own.
    """

    rendered: Sequence[Image | None]
    images: tuple[ScoredImage, ...]
    samples: dict[str, list[float]]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Evaluator:
    """Renders and scores a grid with all processes.

    owners: of columns that no metric describes: the first metric that returned each.
    """

    renderer: Renderer | FoundImages
    metrics: Sequence[Metric]
    columns: Mapping[str, ScoreColumn]
    code: UserCode = field(default_factory=UserCode)
    warn: WarnOnce = field(default_factory=WarnOnce)
    owners: dict[str, str] = field(default_factory=dict)
    _failed: set[str] = field(default_factory=set, init=False)

    def failed(self) -> tuple[str, ...]:
        """The metrics that have failed on any process since `measure` was called; all if rendering has."""
        found = {name for each in distributed.gather(self._failed) for name in each}
        return tuple(metric.name for metric in self.metrics if metric.name in found)

    def measure(self, must_render: bool = False) -> Measurement:
        """Measure the grid: each process takes every world-size-th cell, and all get the result for the entire grid.

        Raises:
            UserError: `must_render`, but no process could render any image; says why.
        """
        self._failed.clear()
        cells = self.renderer.grid.cells
        mine = cells[distributed.rank() :: distributed.world_size()]
        start = time.monotonic()
        rendered, failure = self._render(mine)
        if must_render:
            _check_rendered(rendered, failure)
        if failure:
            kind = "broken" if failure.endswith(NOT_FINITE) else "render"
            self.warn(kind, f"rendering failed; the images are recorded as missing: {failure}")
        after_render = time.monotonic()
        kept = SharedImages(self._measurable(mine, rendered))
        scores, features = self._score(mine, kept), self._features(mine, kept)
        samples = self._samples()
        spent = (after_render - start, time.monotonic() - after_render)
        own = {cell.index: row for cell, row in zip(mine, scores, strict=True)}
        shards = distributed.gather((spent, own, features, samples))
        rows = {index: row for _, shard, *_ in shards for index, row in shard.items()}
        self._compare(rows, [shard for _, _, shard, _ in shards])
        images = tuple(ScoredImage(cell.as_recorded, None, rows[cell.index]) for cell in cells)
        render, score = (max(each) for each in zip(*(spent for spent, *_ in shards), strict=True))
        gathered = distributed.gather_to_main({cell.index: p for cell, p in zip(mine, rendered, strict=True)})
        found = {index: image for shard in gathered for index, image in shard.items()}
        seconds = {"render": render, "score": score}
        return Measurement([found.get(cell.index) for cell in cells], images, shards[0][3], seconds)

    def _render(self, cells: Sequence[Cell]) -> tuple[list[Image | None], str]:
        """The images, None where one is missing, and what went wrong; empty if nothing did."""
        try:
            images = self.renderer.render(cells)
        except Exception as error:
            self._failed.update(metric.name for metric in self.metrics)
            return [None] * len(cells), "; ".join(filter(None, [repr(error), self.renderer.remedy(error)]))
        broken = [c.id for c, p in zip(cells, images, strict=True) if p is None]
        is_failure = broken and not isinstance(self.renderer, FoundImages)
        return images, f"{', '.join(broken)}: {NOT_FINITE}" if is_failure else ""

    def _measurable(self, cells: Sequence[Cell], rendered: Sequence[Image | None]) -> dict[int, Image]:
        """The images that are not black, by their index in `cells`."""
        shown = {i: image for i, image in enumerate(rendered) if image is not None}
        black = {i for i, image in shown.items() if is_black(image)}
        if black:
            names = ", ".join(cells[i].id for i in sorted(black))
            self.warn("black", f"black images are not scored (an overflow in half precision?): {names}")
        return {i: image for i, image in shown.items() if i not in black}

    def _score(self, cells: Sequence[Cell], kept: SharedImages) -> list[dict[str, float]]:
        """One dict per cell; a metric's main columns are always present, NaN if nothing was measured."""
        main = [name for name, column in self.columns.items() if column.is_main]
        rows = [dict.fromkeys((name for name in main if self._is_of(name, cell)), MISSING) for cell in cells]
        if not kept.places:
            return rows
        of = [cells[i] for i in kept.places]
        for metric in self.metrics:
            found = self._guarded(metric, partial(self._columns, metric, metric.score, kept.copies(), of))
            for name, values in (found or {}).items():
                for i, value in zip(kept.places, values, strict=True):
                    if self._is_of(name, cells[i]):
                        rows[i][name] = value
        return rows

    def _is_of(self, name: str, cell: Cell) -> bool:
        """Whether a column covers images like this one, from the subject's prompts or a probe."""
        return self.columns.get(name, SIDE).over == ("probes" if cell.is_probe else "prompts")

    def _features(self, cells: Sequence[Cell], kept: SharedImages) -> dict[str, dict[int, Feature | None]]:
        """The features that comparing metrics need, by metric and cell."""
        found: dict[str, dict[int, Feature | None]] = {}
        of = [cells[i] for i in kept.places]
        for metric in self.metrics:
            inner = unwrapped(metric)
            if isinstance(inner, Compares):
                found[metric.name] = self._guarded(metric, partial(_by_cell, inner, kept.copies(), of)) or {}
        return found

    def _compare(
        self, rows: dict[int, dict[str, float]], shards: Sequence[dict[str, dict[int, Feature | None]]]
    ) -> None:
        """Add the scores of comparing metrics to the rows of the entire grid."""
        cells = self.renderer.grid.cells
        for metric in self.metrics:
            inner = unwrapped(metric)
            if not isinstance(inner, Compares):
                continue
            known = {index: each for shard in shards for index, each in shard.get(metric.name, {}).items()}
            features = [known.get(cell.index) for cell in cells]
            columns = self._guarded(metric, partial(self._columns, metric, inner.compare, features, cells))
            for name, values in (columns or {}).items():
                for cell, value in zip(cells, values, strict=True):
                    if self._is_of(name, cell):
                        rows[cell.index][name] = value

    def _samples(self) -> dict[str, list[float]]:
        """The results of metrics of the model itself; all processes measure them, as the weights may be sharded."""
        found: dict[str, list[float]] = {}
        for metric in self.metrics:
            inner = unwrapped(metric)
            if isinstance(inner, OfModel):
                with self.renderer.precision():
                    found |= self._owned(metric, self._guarded(metric, partial(_draws, inner, self.renderer)) or {})
        return found

    def derive(self, history: Sequence[Evaluation]) -> dict[str, Estimate]:
        """The scores of the last evaluation that do not belong to single images."""
        found: dict[str, Estimate] = {}
        for metric in self.metrics:
            inner = unwrapped(metric)
            if isinstance(inner, Derives):
                found |= self._owned(metric, self._guarded(metric, partial(_estimates, inner, history)) or {})
        return found

    def _columns(
        self,
        metric: Metric,
        measure: Callable[[Any, Any], Mapping[str, Any]],
        of_images: Sequence[Any],
        cells: Sequence[Cell],
    ) -> dict[str, list[float]]:
        """The columns of a metric for images or their features, with one number each."""
        columns = self._owned(metric, _by_name(measure(of_images, cells)))
        if wrong := [name for name, values in columns.items() if len(values) != len(of_images)]:
            raise ValueError(f"columns {', '.join(wrong)}: expected {len(of_images)} values each")
        return {name: self._numbers(metric, name, list(values), cells) for name, values in columns.items()}

    def _owned(self, metric: Metric, found: Mapping[str, T]) -> dict[str, T]:
        """A metric's columns without those of other metrics, with a warning about each that is left out."""
        owned = {}
        for name, values in found.items():
            owner = self.columns.get(name, SIDE).metric or self.owners.setdefault(name, metric.name)
            if owner == metric.name:
                owned[name] = values
            else:
                self.warn(
                    f"column {name} of {metric.name}",
                    f"metric {metric.name}: its column {name} is left out, because {owner} has a column of that name; "
                    "rename one of them",
                )
        return owned

    def _numbers(self, metric: Metric, name: str, values: Sequence[object], cells: Sequence[Cell]) -> list[float]:
        """A column's values; those that are not scores are missing, with a warning that names the first."""
        low, high = self.columns.get(name, SIDE).bounds
        numbers = [score_of(value, (low, high)) for value in values]
        if wrong := [i for i, number in enumerate(numbers) if number is None]:
            others = f", like {counted(len(wrong) - 1, 'other')}" if len(wrong) > 1 else ""
            self.warn(
                f"values {name}",
                f"metric {metric.name}: {name} of {cells[wrong[0]].id} is {reprlib.repr(values[wrong[0]])}, expected a "
                f"finite number from {low:g} to {high:g}; it is recorded as missing{others}",
            )
        return [MISSING if number is None else number for number in numbers]

    def _guarded(self, metric: Metric, action: Callable[[], T]) -> T | None:
        def fail(why: str) -> None:
            self._failed.add(metric.name)
            self.warn(metric.name, f"metric {metric.name} failed; its scores are recorded as missing: {why}")

        return self.code.call(action, fail)


def score_of(value: object, bounds: tuple[float, float]) -> float | None:
    """The number that a metric returned, NaN for a missing score; None if it cannot be a score within these bounds."""
    try:
        found = value.item() if hasattr(value, "item") else value
        number = float(found) if isinstance(found, Real) else math.inf
    except Exception:  # the value may be any object of the user's
        return None
    low, high = bounds
    slack = ROUNDING * (high - low) if math.isfinite(high - low) else 0.0
    fits = math.isfinite(number) and low - slack <= number <= high + slack
    return number if fits or math.isnan(number) else None


def _check_rendered(rendered: Sequence[Image | None], failure: str) -> None:
    """Check, on every process, that some process has rendered an image.

    Raises:
        UserError: none has, for the reason that the first one gives.
    """
    found = distributed.gather((any(image is not None for image in rendered), failure))
    reason = next((why for _, why in found if why), "")
    if reason and not any(has_image for has_image, _ in found):
        raise UserError(
            f"the grid cannot be rendered, so this training could not be monitored: {reason}. To train without "
            "images, set on_failure to warn"
        )


def _draws(metric: OfModel, renderer: Renderer | FoundImages) -> dict[str, list[float]]:
    """A metric's values of the live model, one per draw; values that are not finite count as missing."""
    given = _by_name(metric.measure(renderer.pipeline, renderer.size))
    return {name: [float(value) if np.isfinite(value) else MISSING for value in given[name]] for name in given}


def _by_cell(metric: Compares, shown: Sequence[Image], cells: Sequence[Cell]) -> dict[int, Feature | None]:
    """A metric's features of images, by the index of their cells."""
    found = [None if each is None else np.asarray(each) for each in metric.features(shown, cells)]
    if wrong := [each for each in found if each is not None and each.dtype.kind not in "fiub"]:
        raise TypeError(f"features: found {reprlib.repr(wrong[0])}, expected arrays of numbers")
    return dict(zip((cell.index for cell in cells), found, strict=True))


def _estimates(metric: Derives, history: Sequence[Evaluation]) -> dict[str, Estimate]:
    """A metric's scores of an entire evaluation; numbers that are not finite are missing."""
    found = _by_name(metric.derive(history))
    if wrong := [each for each in found.values() if not isinstance(each, Estimate)]:
        raise TypeError(f"derive: found {reprlib.repr(wrong[0])}, expected an Estimate")
    return {name: _finite(each) for name, each in found.items()}


def _finite(found: Estimate) -> Estimate:
    numbers = (float(each) for each in (found.mean, found.low, found.high))
    mean, low, high = (each if math.isfinite(each) else MISSING for each in numbers)
    return Estimate(mean, low, high, int(found.n), int(found.missing))


def _by_name(found: object) -> Mapping[str, Any]:
    """The same, after checking that it names what it holds."""
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise TypeError(f"found {reprlib.repr(found)}, expected a dict with column names as its keys")
    return found


def check_images_fit(count: int, size: tuple[int, int]) -> None:
    """Reject a grid whose images do not fit into memory together, as scoring and showing them requires.

    Args:
        count: number of images.
        size: height and width of each in pixels.

    Raises:
        UserError: states the free and the required memory.
    """
    needed, free = COPIES * count * size[0] * size[1] * 3, psutil.virtual_memory().available
    if needed > free:
        raise UserError(
            f"grid: {count} images of {size[1]} x {size[0]} pixels need about {needed / GIB:.1f} GiB of memory, "
            f"but {free / GIB:.1f} GiB are free; use fewer prompts or images"
        )
