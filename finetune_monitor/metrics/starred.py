"""A metric's scores as 1 to 5 stars beside the scores themselves, by thresholds that were fitted to people's labels."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL.Image import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.metrics import Description, Metric, describe
from finetune_monitor.metrics.thresholds import HIGHEST, LOWEST, Thresholds, weights_of
from finetune_monitor.record.columns import ScoreColumn, stars_of
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import FloatArray, plain

logger = logging.getLogger(__name__)

THRESHOLDS = "thresholds"
"""Where a description has them among the weights."""


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
        said = describe(metric)
        _check(metric, said, thresholds)
        self.name, self.bounds = metric.name, metric.bounds
        self.wrapped, self._thresholds, self._stars = metric, thresholds, stars_of(metric.name)
        notices = [said.notice] if said.notice else []
        if thresholds.weights is None:
            notices.append(f"{self._stars}: nobody knows which weights the thresholds were fitted on")
            logger.warning(f"{notices[-1]}; fit them on a run directory, which knows its weights")
        self._description = replace(
            said, columns=self._with_stars(said.columns), weights=self._with_thresholds(said), notice="; ".join(notices)
        )

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """The wrapped metric's columns and the stars."""
        columns = self.wrapped.score(images, cells)
        return {**columns, self._stars: self._thresholds.stars(columns[self.name])}

    def describe(self) -> Description:
        """What the wrapped metric says, the stars, and their thresholds: stars by others are not to be compared."""
        return self._description

    def _with_stars(self, columns: Mapping[str, ScoreColumn]) -> dict[str, ScoreColumn]:
        """The metric's own column, its stars, then the others; only the stars depend on the thresholds."""
        known = {name: replace(each, ignores=(*each.ignores, THRESHOLDS)) for name, each in columns.items()}
        scale = (float(LOWEST), float(HIGHEST))
        stars = ScoreColumn(True, scale, role="stars", of=self.name, ignores=columns[self.name].ignores)
        return {self.name: known.pop(self.name), self._stars: stars, **known}

    def _with_thresholds(self, said: Description) -> dict[str, Any]:
        values = [float(x) if math.isfinite(x) else str(x) for x in self._thresholds.buckets.thresholds]
        return {**said.weights, THRESHOLDS: values}


def _check(metric: Metric, said: Description, thresholds: Thresholds) -> None:
    if thresholds.metric != metric.name:
        raise UserError(
            f"{metric.name}: found thresholds of {thresholds.metric}; take those of {metric.name}, or fit them with "
            "`finetune-monitor agree`"
        )
    if not metric.higher_is_better:
        raise UserError(f"{metric.name}: lower is better, expected a metric where higher is; leave its stars out")
    if thresholds.weights is None:
        return
    fitted, own = thresholds.weights, plain(weights_of(said.weights))
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
