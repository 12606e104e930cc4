"""A page's data as scripts: a page that is opened from a file can load nothing else."""

import json
import math
from collections.abc import Mapping
from typing import Any

from finetune_monitor.base.text import visible


def call(function: str, *arguments: Any) -> bytes:
    """A script that passes values to one of the page's functions.

    Numbers are rounded to 5 significant digits, or to 4 decimals if that is finer, because the page shows 3. Non-finite
    ones become null, and text contains neither invisible characters nor anything that would end a script.
    """
    texts = (json.dumps(_cleaned(argument), separators=(",", ":"), allow_nan=False) for argument in arguments)
    return f"finetuneMonitor.{function}({', '.join(texts)});\n".replace("<", "\\u003c").encode("ascii")


def _cleaned(value: Any) -> Any:
    if isinstance(value, float):
        return _rounded(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(str(key)): _cleaned(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cleaned(inner) for inner in value]
    return value


def _rounded(value: float) -> float:
    return round(value, 4) if abs(value) >= 10 else float(f"{value:.5g}")
