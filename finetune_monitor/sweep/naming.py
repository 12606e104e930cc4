"""What a trial is called: its settings in words that suit a file name, the same on every machine."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

LONGEST = 120
"""Characters of a name; file systems take 255 bytes, and temporary names are longer."""

Settings = Mapping[str, Any]


def trial_names(trials: Sequence[tuple[Settings, str | None, int | None]]) -> list[str]:
    """A name for each trial of (settings, person, seed), such as `instance_count=5_ana_seed=0`.

    Where two would be alike, also to a file system that ignores case, each ends with four digits of a hash.
    """
    names = [_name(*trial, exact=True) for trial in trials]
    count = Counter(name.casefold() for name in names)
    return [
        name if count[name.casefold()] == 1 else f"{name}_{_hash(*trial)}"
        for name, trial in zip(names, trials, strict=True)
    ]


def search_name(settings: Settings, person: str | None, seed: int | None) -> str:
    """A name for a trial of a search, such as `learning_rate=0.000312_rank=8_1f3a`: rounded, so with the hash."""
    return f"{_name(settings, person, seed, exact=False)}_{_hash(settings, person, seed)}"


def _name(settings: Settings, person: str | None, seed: int | None, exact: bool) -> str:
    last = Counter(key.rpartition(".")[2] for key in settings)
    short = {key: tail if last[tail := key.rpartition(".")[2]] == 1 else key for key in settings}
    parts = [f"{short[key]}={_text(value, exact)}" for key, value in settings.items()]
    parts += [] if person is None else [person]
    parts += [] if seed is None else [f"seed={seed}"]
    name = re.sub(r"[^\w.+=-]+", "-", "_".join(parts)).strip(".-") or "trial"
    return name if len(name.encode()) <= LONGEST else f"{_cut(name)}_{_hash(settings, person, seed)}"


def _cut(name: str) -> str:
    return name.encode()[: LONGEST - 5].decode(errors="ignore")


def _text(value: Any, exact: bool) -> str:
    if isinstance(value, float):
        return repr(value) if exact else f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _hash(settings: Settings, person: str | None, seed: int | None) -> str:
    content = json.dumps([dict(settings), person, seed], default=str, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:4]
