"""A metric's scores as 1 to 5 stars beside the scores themselves, by thresholds that were fitted to people's labels."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL.Image import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.metrics import Calibrated, Described, Extended, Illustrated, Metric, MetricInfo
from finetune_monitor.metrics.thresholds import HIGHEST, LOWEST, Thresholds, weights_of
from finetune_monitor.record.columns import STARS
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import Estimate, FloatArray, plain

logger = logging.getLogger(__name__)


class Starred:
    """Measures as the wrapped metric does, and adds the column `NAME_stars`: 1 to 5, NaN where there is no score.

    Thresholds that do not say which weights they were fitted on are used all the same, with a notice.

    Args:
        metric: higher must be better.
        thresholds: of this metric, fitted on scores of the same weights (where both have a SHA-256, it alone counts).

    Raises:
        UserError: they are of another metric or of other weights, or the metric's lower scores are the better ones.
    """

    higher_is_better = True

    def __init__(self, metric: Metric, thresholds: Thresholds) -> None:
        _check(metric, thresholds)
        self.name, self.bounds = metric.name, metric.bounds
        self._column = metric.name + STARS
        further = metric.further if isinstance(metric, Extended) else {}
        self.further = {self._column: MetricInfo(True, (float(LOWEST), float(HIGHEST))), **further}
        self.thumbnails = metric.thumbnails if isinstance(metric, Illustrated) else {}
        self._metric, self._thresholds = metric, thresholds
        self._notices = [str(notice)] if (notice := _described(metric).get("notice")) else []
        if thresholds.weights is None:
            self._notices.append(f"{self._column}: nobody knows which weights the thresholds were fitted on")
            logger.warning(f"{self._notices[-1]}; fit them on a run directory, which knows its weights")

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """The wrapped metric's columns and the stars."""
        columns = self._metric.score(images, cells)
        return {**columns, self._column: self._thresholds.stars(columns[self.name])}

    def ceiling(self) -> Mapping[str, Estimate]:
        """As the wrapped metric says, where the wrapped metric knows it: a mean score has no stars."""
        return self._metric.ceiling() if isinstance(self._metric, Calibrated) else {}

    def describe(self) -> Mapping[str, Any]:
        """What the wrapped metric says, and the four thresholds: stars by others are not to be compared."""
        values = [float(x) if math.isfinite(x) else str(x) for x in self._thresholds.buckets.thresholds]
        notice = {"notice": "; ".join(self._notices)} if self._notices else {}
        return {**_described(self._metric), "thresholds": values, **notice}


def _described(metric: Metric) -> Mapping[str, Any]:
    return metric.describe() if isinstance(metric, Described) else {}


def _check(metric: Metric, thresholds: Thresholds) -> None:
    if thresholds.metric != metric.name:
        raise UserError(
            f"{metric.name}: found thresholds of {thresholds.metric}; take those of {metric.name}, or fit them with "
            "`finetune-monitor agree`"
        )
    if not metric.higher_is_better:
        raise UserError(f"{metric.name}: lower is better, expected a metric where higher is; leave its stars out")
    if thresholds.weights is None:
        return
    fitted, own = thresholds.weights, plain(weights_of(_described(metric)))
    changed = [key for key in {**fitted, **own} if _identity(fitted.get(key)) != _identity(own.get(key))]
    if changed:
        before, now = (json.dumps({key: each.get(key) for key in changed}) for each in (fitted, own))
        raise UserError(
            f"{metric.name}: the thresholds were fitted on scores of {before}, these are scores of {now}; measure with "
            "those weights, or fit thresholds to the new scores with `finetune-monitor agree`"
        )


def _identity(weights: Any) -> Any:
    """The SHA-256 where there is one: the same file may lie elsewhere."""
    return weights.get("sha256", weights) if isinstance(weights, Mapping) else weights
