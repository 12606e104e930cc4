"""What a score depends on: two runs' scores are on one scale where that is the same."""

from collections.abc import Mapping
from typing import Any

from finetune_monitor.record.columns import HELD_OUT, SIDE_COLUMNS, STARS


def _belongs(name: str, metric: str) -> bool:
    return name in (metric, metric + STARS, *SIDE_COLUMNS.get(metric, ())) or (
        name == HELD_OUT and metric == "face_similarity"
    )


def scale(name: str, weights: Mapping[str, Any]) -> dict[str, Any]:
    """What a score of this name depends on, in `run.json`'s `weights`: models and photos, by their content alone."""
    description = next((found for metric, found in weights.items() if _belongs(name, metric)), None)
    if not isinstance(description, Mapping):
        return {}
    unused = {"notice", "references" if name == HELD_OUT else "held_out"}
    unused |= set() if name.endswith(STARS) else {"thresholds"}
    if name == "faces_found":
        unused |= {"recognizer", "references"}
    return {key: _identity(value) for key, value in description.items() if key not in unused}


def _identity(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value.get("sha256", value)
    if isinstance(value, list) and all(isinstance(each, Mapping) for each in value):
        return sorted(str(_identity(each)) for each in value)
    return value
