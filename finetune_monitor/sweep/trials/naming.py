"""The name of a trial: its settings as text that works as a file name, the same on every machine."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from finetune_monitor.base.redaction import redacted

LONGEST = 120
"""Maximum length of a name; file systems allow 255 bytes, and temporary names are longer."""

DIGITS = 8
"""Length of a hash: with a thousand trials, one sweep in ten thousand has a collision."""

Settings = Mapping[str, Any]


def trial_name(settings: Settings, person: str | None, seed: int | None) -> str:
    """A name such as `instance_count=5_ana_seed=0`, which depends only on this trial.

    It ends with a hash if it is too long or has characters that do not work in file names.
    """
    text = _text_of(settings, person, seed, exact=True)
    name = _cleaned(text)
    is_whole = name == text and len(name.encode()) <= LONGEST
    return name if is_whole else f"{_cut(name)}_{_hash(settings, person, seed)}"


def search_name(settings: Settings, person: str | None, seed: int | None) -> str:
    """A name for a search trial, such as `learning_rate=0.000312_rank=8_1f3a57c0`: rounded, so it needs the hash."""
    return f"{_cut(_cleaned(_text_of(settings, person, seed, exact=False)))}_{_hash(settings, person, seed)}"


def alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that are identical on a file system that ignores case."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.casefold(), []).append(name)
    return [group for group in groups.values() if group[1:]]


def _text_of(settings: Settings, person: str | None, seed: int | None, exact: bool) -> str:
    last = Counter(key.rpartition(".")[2] for key in settings)
    short = {key: tail if last[tail := key.rpartition(".")[2]] == 1 else key for key in settings}
    parts = [f"{short[key]}={_text(value, exact)}" for key, value in redacted(settings).items()]
    parts += [] if person is None else [person]
    parts += [] if seed is None else [f"seed={seed}"]
    return "_".join(parts)


def _cleaned(text: str) -> str:
    return re.sub(r"[^\w.+=-]+", "-", text).strip(".-") or "trial"


def _cut(name: str) -> str:
    return name.encode()[: LONGEST - DIGITS - 1].decode(errors="ignore")


def _text(value: Any, exact: bool) -> str:
    if isinstance(value, float):
        return repr(value) if exact else f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _hash(settings: Settings, person: str | None, seed: int | None) -> str:
    content = json.dumps([dict(settings), person, seed], default=str, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:DIGITS]
