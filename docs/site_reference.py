"""Reference pages made from the code: the keys of a config from its models, the commands from their parsers."""

import argparse
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from finetune_monitor.base.sections import Section
from finetune_monitor.cli import make_parser
from finetune_monitor.sweep.spec import SweepConfig
from finetune_monitor.training.config import Config
from finetune_monitor.training.describe import Key, hook_sections, keys_of, rule_sections

REQUIRED = "required"


def insert_reference(app: Any, docname: str, source: list[str]) -> None:
    """Put each part where a page asks for it: `<!-- generated: config -->`."""
    source[0] = re.sub(r"<!-- generated: (\w+) -->", lambda found: PARTS[found[1]](), source[0])


def readable(app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Make sections that napoleon knows of a docstring's own ones: its columns, and a list of fields."""
    if what in ("property", "attribute"):  # napoleon takes what is before a colon for a type
        lines[:1] = [line.replace(":", COLON) for line in lines[:1]]
    text = re.sub(r"^Columns of `score`:$", "Columns:", "\n".join(lines), flags=re.MULTILINE)
    lines[:] = FIELDS.sub(lambda block: _indented(f"Attributes:\n{block[0]}"), text).split("\n")


def restored(app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Put back the colons that were hidden from napoleon."""
    lines[:] = [line.replace(COLON, ":") for line in lines]


def without_protocols_arguments(
    app: Any, what: str, name: str, found: Any, options: Any, arguments: str, returns: str
) -> tuple[str, str] | None:
    """A protocol is not made, so it takes nothing."""
    return ("", "") if getattr(found, "_is_protocol", False) else None


COLON = "\N{RATIO}"

FIELDS = re.compile(r"(?:(?<=\n\n)|\A)(?:[a-z_, ]+: .*(?:\n +\S.*)*(?:\n|\Z))+")
"""A paragraph in which each line that is not indented opens with a name and a colon."""


def _indented(section: str) -> str:
    head, *rest = section.split("\n")
    return "\n".join([head, *(f"    {line}" if line else "" for line in rest)])


def config_keys() -> str:
    """A section for each part of a training's config."""
    return "\n\n".join(_sections(Config, "training"))


def rule_keys() -> str:
    """A section for each stopping rule."""
    return "\n\n".join(
        f"### `{name}`\n\n{_table([key for key in keys_of(section) if key.name != 'rule'])}"
        for name, section in rule_sections().items()
    )


def hook_keys() -> str:
    """A section for each hook with options."""
    return "\n\n".join(
        f"### `{name}`\n\n{_table([key for key in keys_of(section) if key.name != 'hook'])}"
        for name, section in hook_sections().items()
    )


def sweep_keys() -> str:
    """A section for each part of a sweep."""
    return "\n\n".join(_sections(SweepConfig, "sweep"))


def commands() -> str:
    """A section for each command, with its options."""
    return "\n\n".join(_commands(make_parser()))


PARTS = {"config": config_keys, "rules": rule_keys, "hooks": hook_keys, "sweep": sweep_keys, "commands": commands}


def _sections(section: type[Section], title: str) -> Iterator[str]:
    keys = list(keys_of(section))
    yield f"### Top level of a {title} config\n\n" + _table([key for key in keys if "." not in key.name])
    for holder in (key for key in keys if key.holds_keys):
        own = [key for key in keys if key.name.rpartition(".")[0] == holder.name]
        yield f"### `{holder.name}`\n\n{_escaped(holder.meaning)}\n\n{_table(own) if own else 'It has no keys.'}"


def _table(keys: list[Key]) -> str:
    rows = [f"| `{_last(key)}` | {_kind(key)} | {_default(key)} | {_escaped(key.meaning)} |" for key in keys]
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows])


def _last(key: Key) -> str:
    return key.name.rpartition(".")[2]


def _kind(key: Key) -> str:
    return "section" if key.holds_keys else _escaped(key.kind)


def _default(key: Key) -> str:
    if key.is_required:
        return REQUIRED
    if key.is_off:
        return "off"
    if key.holds_keys:
        return "on"
    text = yaml.safe_dump(key.default, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
    return f"`{_escaped(text)}`"


def _escaped(text: str) -> str:
    """For a cell of a table; options are code, or their dashes would be typeset."""
    text = re.sub(r"(`[^`]*`)|(?<![\w-])(--[a-z][a-z-]*)|<", _as_cell, text)
    return text.replace("|", "\\|")


def _as_cell(found: re.Match[str]) -> str:
    return found[1] or (f"`{found[2]}`" if found[2] else "&lt;")


def _commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, each in action.choices.items():
                yield _command(each, helps.get(name, ""))
                yield from _commands(each)


def _command(parser: argparse.ArgumentParser, summary: str) -> str:
    """The usage of one command, and what its options mean."""
    words = " ".join(parser.format_usage().removeprefix("usage: ").split())
    usage = "\n".join(textwrap.wrap(words, 84, subsequent_indent="    ", break_on_hyphens=False))
    options = [action for action in parser._actions if not isinstance(action, _LEFT_OUT)]
    rows = [f"| `{_names(action)}` | {_escaped(_help(parser, action))} |" for action in options]
    table = "\n".join(["| argument | meaning |", "|---|---|", *rows]) if rows else ""
    said = _escaped(parser.description or f"{summary[:1].upper()}{summary[1:]}.")
    return f"## `{parser.prog}`\n\n{said}\n\n```text\n{usage}\n```\n\n{table}"


_LEFT_OUT = (argparse._HelpAction, argparse._SubParsersAction)


def _names(action: argparse.Action) -> str:
    values = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    shown = " ".join(values) if isinstance(values, tuple) else values
    if action.choices is not None:
        shown = "{" + ",".join(map(str, action.choices)) + "}"
    return ", ".join(f"{option} {shown}".strip() for option in action.option_strings) or shown


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = parser._get_formatter()._expand_help(action) if action.help else ""
    has_default = action.option_strings and action.default not in (None, []) and action.default is not False
    if not has_default or "default" in text:
        return text
    return f"{text}; default: `{action.default}`".removeprefix("; ")
