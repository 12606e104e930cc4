"""Thresholds that turn a metric's scores into 1 to 5 stars, and the file that carries them to other runs."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune_monitor import __version__
from finetune_monitor.agreement.buckets import Buckets
from finetune_monitor.errors import UserError
from finetune_monitor.evaluation import FloatArray
from finetune_monitor.files import write_atomic

FORMAT = 1

NOT_WEIGHTS = ("references", "notice", "thresholds")
"""What a metric describes beside the weights that its scores depend on."""


@dataclass(frozen=True)
class Thresholds:
    """How one metric's scores become stars.

    buckets: the thresholds, in the score's own unit, and what they cost on the labels they were fitted to.
    method: `least_cost` or `marginals`.
    power: of the distance between stars and labels.
    labelers, images, labels: how many they were fitted on.
    weights: what the scores were measured with, as `weights_of` gives it; None where that is not known.
    """

    metric: str
    buckets: Buckets
    method: str
    power: float
    labelers: int
    images: int
    labels: int
    weights: Mapping[str, Any] | None

    def stars(self, scores: FloatArray) -> FloatArray:
        """1 to 5 an image; NaN where there is no score."""
        return self.buckets.steps(scores)


def weights_of(description: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a metric's description that decides what a score means: its weights with their SHA-256."""
    return {key: value for key, value in description.items() if key not in NOT_WEIGHTS}


def write_thresholds(path: Path, found: Sequence[Thresholds]) -> None:
    """Write `thresholds.json`; a threshold beyond every score is null."""
    metrics = {each.metric: _to_json(each) for each in found}
    content = {"format": FORMAT, "made_by": f"finetune_monitor {__version__}", "metrics": metrics}
    write_atomic(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_thresholds(path: Path) -> dict[str, Thresholds]:
    """Thresholds by metric.

    Raises:
        UserError: the file cannot be read, is damaged or of another format.
    """
    expected = "expected the thresholds.json that `finetune-monitor agree` writes"
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            raise UserError(f"{path}: found format {content['format']}, expected {FORMAT}; run `agree` again")
        found = {name: _from_json(name, each) for name, each in content["metrics"].items()}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {expected}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged or no such file ({error!r}); {expected}") from error
    if not found:
        raise UserError(f"{path}: holds no metric; {expected}")
    return found


def _to_json(found: Thresholds) -> dict[str, Any]:
    return {
        "thresholds": [None if math.isinf(value) else float(value) for value in found.buckets.thresholds],
        "empty_below": int(np.isneginf(found.buckets.thresholds).sum()),
        "cost": found.buckets.cost,
        "method": found.method,
        "power": found.power,
        "labelers": found.labelers,
        "images": found.images,
        "labels": found.labels,
        "weights": None if found.weights is None else dict(found.weights),
    }


def _from_json(metric: str, found: Mapping[str, Any]) -> Thresholds:
    below = int(found["empty_below"])
    values = [
        (-math.inf if index < below else math.inf) if value is None else float(value)
        for index, value in enumerate(found["thresholds"])
    ]
    if len(values) != 4 or values != sorted(values) or any(map(math.isnan, values)):
        raise ValueError(f"{metric}: expected four ascending thresholds, found {found['thresholds']}")
    buckets = Buckets(np.array(values), float(found["cost"]))
    labelers, images, labels = (int(found[key]) for key in ("labelers", "images", "labels"))
    method, power = str(found["method"]), float(found["power"])
    return Thresholds(metric, buckets, method, power, labelers, images, labels, found["weights"])
