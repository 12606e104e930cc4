"""Record the class of a user's own metric, so that scores of different classes are not compared."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL.Image import Image

from finetune_monitor.metrics import Described, Description, Metric, describe
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import FloatArray


class Identified:
    """Measures like the wrapped metric and adds its class to the recorded weights.

    A metric's description determines what its scores mean; without one, its options do.

    Args:
        place: the place of its class, as `module:name`.
        options: the plain values that it was created with.
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
        """The wrapped metric's description, with its class."""
        return self._description
