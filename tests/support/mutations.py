"""Damaged inputs from whole ones: the same ones on every machine for the same seed."""

import random
from collections.abc import Iterator

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
