"""What a score depends on: scores of two runs are comparable if this is the same."""

from collections.abc import Mapping
from typing import Any

from finetune_monitor.record.columns import SIDE
from finetune_monitor.record.history import RunHistory


def scale(name: str, history: RunHistory) -> dict[str, Any]:
    """What a score of this name depends on in a run: models and photos, identified by content."""
    column = history.columns.get(name, SIDE)
    unused = {"notice", *column.ignores}
    weights = history.weights.get(column.metric, {})
    return {key: content_of(value) for key, value in weights.items() if key not in unused}


def content_of(value: Any) -> Any:
    """What identifies a model, or a list of photos, wherever its files are: the SHA-256, where it is known."""
    if isinstance(value, Mapping):
        return value.get("sha256", value)
    if isinstance(value, list) and all(isinstance(each, Mapping) for each in value):
        return sorted(str(content_of(each)) for each in value)
    return value
