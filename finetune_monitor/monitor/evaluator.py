"""Render the grid and score it, every process its share; what fails is missing, and training goes on."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psutil
from PIL.Image import Image

from finetune_monitor.base import distributed
from finetune_monitor.base.errors import UserError
from finetune_monitor.metrics import Metric
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import ScoredImage
from finetune_monitor.record.grid import Cell
from finetune_monitor.rendering.renderer import Renderer, is_black
from finetune_monitor.stats.estimate import MISSING, FloatArray

GIB = 2**30

COPIES = 4
"""How often an image is in memory at once: as rendered, sent between processes, and gathered for the sinks."""

logger = logging.getLogger(__name__)


class WarnOnce:
    """Logs the first warning on a subject and swallows the rest: a broken metric must not flood the console."""

    def __init__(self) -> None:
        self._subjects: set[str] = set()

    def __call__(self, subject: str, message: str) -> None:
        if subject not in self._subjects:
            self._subjects.add(subject)
            logger.warning(message)


@dataclass(frozen=True)
class Measurement:
    """Images and scores in the grid's order, with the seconds that the slowest process took.

    The main process has all images, the others only their own.
    """

    rendered: Sequence[Image | None]
    images: tuple[ScoredImage, ...]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Evaluator:
    """Renders and scores a grid with all processes."""

    renderer: Renderer
    metrics: Sequence[Metric]
    columns: Mapping[str, ScoreColumn]
    warn: WarnOnce = field(default_factory=WarnOnce)

    def measure(self) -> Measurement:
        """Each process takes every world-size-th cell; all processes get the whole grid's result."""
        cells = self.renderer.grid.cells
        mine = cells[distributed.rank() :: distributed.world_size()]
        start = time.monotonic()
        rendered = self._render(mine)
        after_render = time.monotonic()
        scores = self._score(mine, self._measurable(mine, rendered))
        seconds = (after_render - start, time.monotonic() - after_render)
        shards = distributed.gather((seconds, {cell.index: row for cell, row in zip(mine, scores, strict=True)}))
        rows = {index: row for _, shard in shards for index, row in shard.items()}
        images = tuple(ScoredImage(cell, None, rows[cell.index]) for cell in cells)
        render, score = (max(each) for each in zip(*(spent for spent, _ in shards), strict=True))
        gathered = distributed.gather_to_main({cell.index: p for cell, p in zip(mine, rendered, strict=True)})
        found = {index: image for shard in gathered for index, image in shard.items()}
        return Measurement([found.get(cell.index) for cell in cells], images, {"render": render, "score": score})

    def _render(self, cells: Sequence[Cell]) -> list[Image | None]:
        try:
            images = self.renderer.render(cells)
        except Exception as error:
            self.warn("render", f"rendering failed; its images are recorded as missing: {error!r}")
            return [None] * len(cells)
        if broken := [c.id for c, p in zip(cells, images, strict=True) if p is None]:
            self.warn("broken", f"images with values that are not finite, recorded as missing: {', '.join(broken)}")
        return images

    def _measurable(self, cells: Sequence[Cell], rendered: Sequence[Image | None]) -> dict[int, Image]:
        """The images that show something, by their place in `cells`."""
        shown = {i: image for i, image in enumerate(rendered) if image is not None}
        black = {i for i, image in shown.items() if is_black(image)}
        if black:
            names = ", ".join(cells[i].id for i in sorted(black))
            self.warn("black", f"black images, not scored (an overflow in half precision?): {names}")
        return {i: image for i, image in shown.items() if i not in black}

    def _score(self, cells: Sequence[Cell], kept: dict[int, Image]) -> list[dict[str, float]]:
        """One dict a cell; a metric's main columns are always there, NaN where nothing was measured."""
        names = [name for name, column in self.columns.items() if column.is_main]
        rows = [dict.fromkeys(names, MISSING) for _ in cells]
        if not kept:
            return rows
        for metric in self.metrics:
            found = self._measured(metric, list(kept.values()), [cells[i] for i in kept])
            for name, values in found.items():
                for i, value in zip(kept, values, strict=True):
                    rows[i][name] = float(value)
        return rows

    def _measured(self, metric: Metric, shown: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        try:
            columns = metric.score(shown, cells)
            if wrong := [name for name, values in columns.items() if len(values) != len(shown)]:
                raise ValueError(f"columns {', '.join(wrong)}: expected {len(shown)} values each")
        except Exception as error:
            self.warn(metric.name, f"metric {metric.name} failed; its scores are recorded as missing: {error!r}")
            return {}
        return columns


def check_images_fit(count: int, size: tuple[int, int]) -> None:
    """Refuse a grid whose images cannot be held together, as an evaluation does to score and show them.

    Args:
        count: number of images.
        size: height and width of each in pixels.

    Raises:
        UserError: names the memory that is free and the memory that is needed.
    """
    needed, free = COPIES * count * size[0] * size[1] * 3, psutil.virtual_memory().available
    if needed > free:
        raise UserError(
            f"grid: {count} images of {size[1]} x {size[0]} pixels need about {needed / GIB:.1f} GiB of memory, "
            f"{free / GIB:.1f} GiB are free; name fewer prompts or images"
        )
