"""A metric's scores as 1 to 5 stars in addition to the scores, by thresholds fitted to people's labels."""

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
"""The key of the thresholds in the description's weights."""


class Starred:
    """Measures like the wrapped metric and adds the column `NAME_stars`: 1 to 5; NaN if there is no score.

    Thresholds that do not state the weights they were fitted on are still used, with a notice.

    Args:
        metric: higher scores must be better.
        thresholds: for this metric, fitted on scores with the same weights (if both have a SHA-256, only that is
            compared).

    Raises:
        UserError: the thresholds are for another metric or other weights, or lower scores of the metric are better.
    """

    higher_is_better = True

    def __init__(self, metric: Metric, thresholds: Thresholds) -> None:
        said = describe(metric)
        _check(metric, said, thresholds)
        self.name, self.bounds = metric.name, metric.bounds
        self.wrapped, self._thresholds, self._stars = metric, thresholds, stars_of(metric.name)
        notices = [said.notice] if said.notice else []
        if thresholds.weights is None:
            notices.append(f"{self._stars}: it is unknown which weights the thresholds were fitted on")
            logger.warning(f"{notices[-1]}; fit them on a run directory, which records its weights")
        self._description = replace(
            said, columns=self._with_stars(said.columns), weights=self._with_thresholds(said), notice="; ".join(notices)
        )

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """The wrapped metric's columns, and the stars."""
        columns = self.wrapped.score(images, cells)
        return {**columns, self._stars: self._thresholds.stars(columns[self.name])}

    def describe(self) -> Description:
        """The wrapped metric's description with the stars and their thresholds, which comparable stars must share."""
        return self._description

    def _with_stars(self, columns: Mapping[str, ScoreColumn]) -> dict[str, ScoreColumn]:
        """The metric's own column, its stars, then the other columns; only the stars depend on the thresholds."""
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
            f"{metric.name}: found thresholds for {thresholds.metric}; use those for {metric.name}, or fit them with "
            "`finetune-monitor agree`"
        )
    if not metric.higher_is_better:
        raise UserError(
            f"{metric.name}: lower is better, expected a metric where higher is better; leave its stars out"
        )
    if thresholds.weights is None:
        return
    fitted, own = thresholds.weights, plain(weights_of(said.weights))
    changed = [key for key in {**fitted, **own} if _identity(fitted.get(key)) != _identity(own.get(key))]
    if changed:
        before, now = (json.dumps({key: each.get(key) for key in changed}) for each in (fitted, own))
        raise UserError(
            f"{metric.name}: the thresholds were fitted on scores with {before}, but these are scores with {now}; use "
            "the former weights, or fit thresholds to the new scores with `finetune-monitor agree`"
        )


def _identity(weights: Any) -> Any:
    """The SHA-256 if there is one, because the same file may have a different path."""
    return weights.get("sha256", weights) if isinstance(weights, Mapping) else weights
