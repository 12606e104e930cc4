"""A metric of the user's own, with the class that measures it in the record: scores of another are not compared."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL.Image import Image

from finetune_monitor.metrics import Described, Description, Metric, describe
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import FloatArray


class Identified:
    """Measures as the wrapped metric does, and names its class among the weights.

    What a metric says in `describe` decides what its scores mean; of one that says nothing, its options do.

    Args:
        place: of its class, as `module:name`.
        options: plain values that it was made with.
    """

    def __init__(self, metric: Metric, place: str, options: Mapping[str, Any]) -> None:
        self.name, self.higher_is_better, self.bounds = metric.name, metric.higher_is_better, metric.bounds
        self.wrapped, said = metric, describe(metric)
        own = said.weights if isinstance(metric, Described) else options
        self._description = replace(said, weights={"class": place, **own})

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """The wrapped metric's columns; its values may also be lists."""
        columns = self.wrapped.score(images, cells)
        return {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}

    def describe(self) -> Description:
        """What the wrapped metric says, and its class."""
        return self._description
