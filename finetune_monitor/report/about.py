"""What a run was made with: its settings, models, photos, and libraries, with their hashes."""

import json
from collections.abc import Mapping
from typing import Any

from finetune_monitor.record.grid import sampling_in_words
from finetune_monitor.record.history import RunHistory

Lines = list[tuple[str, str]]

NULL = "null"
"""How a config writes that a key has no value, which a record of settings calls None."""


def about(history: RunHistory) -> dict[str, Lines]:
    """By title, pairs of a name and its value in words."""
    found = {
        "Settings": [(key, NULL if value == "None" else in_words(value)) for key, value in history.hparams.items()],
        "Models and measurements": _models(history),
        "Prompt grid": _grid(history),
        "Libraries": [("device", history.device or "unknown"), *history.made_with.items()],
    }
    return {title: lines for title, lines in found.items() if lines}


def in_words(value: Any) -> str:
    """A recorded value as text: numbers as they were written, a model by its id and SHA-256."""
    if isinstance(value, Mapping) and "id" in value:
        digest = f", SHA-256 {value['sha256']}" if value.get("sha256") else ""
        return f"{value['id']}{digest}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _models(history: RunHistory) -> Lines:
    base = [(f"base model: {key}", value) for key, value in history.pipeline.items() if key != "notice"]
    apart = {"references", "held_out", "notice"}
    measured = [
        (f"{metric}: {key}", in_words(value))
        for metric, found in history.weights.items()
        for key, value in found.items()
        if key not in apart
    ]
    return [*base, *measured]


def _grid(history: RunHistory) -> Lines:
    scheduler = history.run.get("scheduler")
    sampling = [("scheduler", in_words(scheduler))] if scheduler else []
    images = ("images", sampling_in_words(history.grid))
    return [("fingerprint", history.recorded_fingerprint or "unknown"), images, *sampling]
