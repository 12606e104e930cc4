"""Damaged inputs from whole ones: the same ones on every machine for the same seed."""

import json
import random
from collections.abc import Iterator
from typing import Any

HOSTILE = (
    "!!binary x", "!!int ''", "!!bool maybe", "!!timestamp x", "!!float ''", "!!set {a, b}", "!!omap [a]", "!!null x",
    "!!python/object/apply:os.system [true]", "!!merge x", "=", "<<", "? [a]\n: b", "{? {a: b} : c}", "[[[[[[",
    "&a [*a]", "&a {b: *a}", "*nothing", "0x_", "0b", "09", "1_", "12:30:45", "2026-11-28", "9" * 5000, "1e999",
    "-.inf", ".nan", "~", "~nosuchuser/x", '"\\0"', '"\\ud800"', "'" + "x" * 5000 + "'", "{}", "[]", "[{}]", "[null]",
    "- -", "|", ">", "%YAML 9.9\n---", "---\n---", "...", "\t", "\u2028", "true", "-1", "0", "1.5", "module:name",
    "os:system", "builtins:print", "a.b.c", "{class: builtins:dict}", "[{rule: builtins:int}]", "<<: [1]",
    "<<: {a: 1}", "&x {<<: *x}", "9223372036854775808", "{low: 1, high: .nan}", "{low: a, high: 3, log: 1}", "🙂",
    "ￜ²³",
)  # fmt: skip
"""Values that readers of YAML and of configs have stumbled over."""


def of_text(text: str, seed: int, count: int) -> Iterator[str]:
    """Texts in which characters, lines or values are exchanged, left out, repeated or replaced by hostile ones."""
    rng = random.Random(seed)
    for _ in range(count):
        lines = text.split("\n")
        for _ in range(rng.choice((1, 1, 2, 4))):
            rng.choice((_value, _value, _line, _character, _indent))(lines, rng)
        yield "\n".join(lines)


def _value(lines: list[str], rng: random.Random) -> None:
    at = rng.randrange(len(lines))
    key, colon, _ = lines[at].partition(":")
    lines[at] = f"{key}{colon} {rng.choice(HOSTILE)}"


def _line(lines: list[str], rng: random.Random) -> None:
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[at] = rng.choice(("", lines[other], lines[at] + lines[other], rng.choice(HOSTILE)))


def _character(lines: list[str], rng: random.Random) -> None:
    at = rng.randrange(len(lines))
    place = rng.randrange(len(lines[at]) + 1)
    lines[at] = lines[at][:place] + rng.choice("{}[]:,&*!|>'\"%@`?-#\\\x01\u200b0") + lines[at][place + 1 :]


def _indent(lines: list[str], rng: random.Random) -> None:
    at = rng.randrange(len(lines))
    lines[at] = rng.choice(("  ", " ", "    - ", "\t")) + lines[at]


STRANGE = (
    {}, [], [[]], {"a": 1}, "", "text", "../x", "/etc/passwd", "\0", "x" * 5000, -1, 0, 10**400, 0.5, 1e308, True,
    False, None, float("nan"), float("inf"), float("-inf"), [None], {"": None}, "2026-11-28", "é\ud800",
)  # fmt: skip
"""Values that readers of JSON have stumbled over."""


def of_json(content: bytes, seed: int, count: int) -> Iterator[bytes]:
    """JSON in which values are exchanged for strange ones or each other, left out, or put under other keys."""
    rng = random.Random(seed)
    for _ in range(count):
        changed = json.loads(content)
        for _ in range(rng.choice((1, 1, 2, 4))):
            changed = _with_a_change(changed, rng)
        yield json.dumps(changed).encode()


def _with_a_change(value: Any, rng: random.Random) -> Any:
    places = list(_places(value))
    if not places or rng.random() < 0.02:
        return rng.choice(STRANGE)
    holder, key = rng.choice(places)
    change = rng.randrange(4)
    if change == 0:
        del holder[key]
    elif change == 1:
        other, place = rng.choice(places)
        holder[key] = json.loads(json.dumps(other[place])) if place in _keys(other) else None
    elif change == 2 and isinstance(holder, dict):
        holder[rng.choice(("", "step", "\u2028", "x" * 300, "../x"))] = holder.pop(key)
    else:
        holder[key] = rng.choice(STRANGE)
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every value, as what holds it and its key there."""
    for key in _keys(value):
        yield value, key
        yield from _places(value[key])


def _keys(value: Any) -> list[Any]:
    return list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []


def of_bytes(content: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Bytes of which some are flipped, cut, repeated, left out, or overwritten with extreme numbers."""
    rng = random.Random(seed)
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(rng.choice((1, 1, 2, 8))):
            _spoil(changed, rng)
        yield bytes(changed)


def _spoil(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content) + 1) if rng.random() < 0.5 else rng.randrange(min(len(content), 64) + 1)
    some = slice(at, at + rng.choice((1, 2, 4, 8, 64)))
    change = rng.randrange(6)
    if change == 0 and at < len(content):
        content[at] ^= 1 << rng.randrange(8)
    elif change == 1:
        del content[at:]
    elif change == 2:
        del content[some]
    elif change == 3:
        content[at:at] = content[some]
    elif change == 4:
        content[some] = rng.randbytes(some.stop - at)
    else:
        content[some] = rng.choice((b"\0", b"\xff", b"\x7f")) * (some.stop - at)
