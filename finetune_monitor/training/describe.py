"""What a config may hold, for people and editors: a commented default config, its JSON Schema, and a list of keys."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from finetune_monitor.base.json_files import GREATEST
from finetune_monitor.base.sections import Section, section_of_options, sections_of
from finetune_monitor.training.config import DEFAULT_RULE, Config, meanings_of
from finetune_monitor.training.own import HOOK, RULE, hook_section
from finetune_monitor.training.registry import HOOKS, RULES

STOPPING, HOOKED = "monitor.stopping", "monitor.hooks"

HEADER = """\
# Every key of a config with its default, and a comment that explains it. Sections that are off are
# commented out. Required keys, and keys that they need, have example values."""

HOOK_EXAMPLES = {"run": ["notify-send", "training"], "url": "https://example.org/hook"}
"""Values of hooks' required keys to start from."""

WIDTH = 100
"""Characters in a line of a comment."""

DRAFT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class Key:
    """One key of a config.

    name: dotted.
    depth: how many sections it lies in.
    kind: its type, in words.
    default: what holds where the config does not name it; None also where it is required.
    example: a value to start from, where the default would not do.
    holds_keys: it is a section.
    is_off: it is a section that holds only where a config names it.
    """

    name: str
    depth: int
    kind: str
    default: Any
    example: Any
    is_required: bool
    holds_keys: bool
    is_off: bool
    meaning: str


def keys_of(section: type[Section], prefix: str = "", given: Section | None = None) -> Iterator[Key]:
    """Every key below a section, in the order of the classes; a section comes before its keys.

    Args:
        prefix: of the names.
        given: what holds where the config does not name the section, if that is not each key's own default.
    """
    schema = section.model_json_schema(schema_generator=_Schema)
    for name, field in section.model_fields.items():
        inner = sections_of([section], name)
        default = _default(field, name, given)
        yield Key(
            name=prefix + name,
            depth=prefix.count("."),
            kind=_kind(schema["properties"][name], schema.get("$defs", {})),
            default=None if isinstance(default, Section) else default,
            example=_example(field, inner),
            is_required=field.is_required(),
            holds_keys=bool(inner),
            is_off=bool(inner) and default is None and not field.is_required(),
            meaning=field.description or "",
        )
        for each in inner:
            yield from keys_of(each, f"{prefix}{name}.", default if isinstance(default, Section) else None)


def _default(field: FieldInfo, name: str, given: Section | None) -> Any:
    if given is not None:
        return getattr(given, name)
    return None if field.is_required() else field.get_default(call_default_factory=True)


def _example(field: FieldInfo, inner: Sequence[type[Section]]) -> Any:
    """A value to start from; of a section that may be off, its own defaults."""
    if inner and not field.is_required():
        return {key.name: key.default for key in keys_of(inner[0])}
    return (field.examples or [None])[0]


def rule_sections() -> dict[str, type[Section]]:
    """By rule, the section of one in `monitor.stopping`."""
    return {name: _rule_section(name, kind) for name, kind in RULES.classes.items()}


def _rule_section(name: str, kind: type) -> type[Section]:
    key: dict[str, Any] = {RULE: (Literal[name], name if name == DEFAULT_RULE else ...)}
    return section_of_options(kind, meanings=meanings_of(kind), **key)


def hook_sections() -> dict[str, type[Section]]:
    """By hook, the section of one in `monitor.hooks`."""
    return {name: hook_section(name) for name in HOOKS}


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a config; it checks no options of metrics, rules and sinks of the user's own."""
    schema = schema_of(Config, "config")
    rules = {f"Rule{name}": each.model_json_schema(schema_generator=_Schema) for name, each in rule_sections().items()}
    own = {"type": "object", "required": [RULE], "properties": {RULE: {"type": "string", "pattern": ":"}}}
    hooks = {f"Hook{name}": each.model_json_schema(schema_generator=_Schema) for name, each in hook_sections().items()}
    place = {"type": "string", "pattern": ":"}
    schema["$defs"] |= rules | hooks
    entries = schema["$defs"]["MonitorConfig"]["properties"]
    entries["stopping"]["items"] = {"anyOf": [*({"$ref": f"#/$defs/{name}"} for name in rules), own]}
    entries["hooks"]["items"] = {"anyOf": [place, *({"$ref": f"#/$defs/{name}"} for name in hooks)]}
    return schema


def schema_of(section: type[Section], title: str) -> dict[str, Any]:
    """The JSON Schema of a section that is a file of its own."""
    schema = section.model_json_schema(schema_generator=_Schema)
    return {"$schema": DRAFT, **schema, "title": f"finetune_monitor {title}"}


def commented_config() -> str:
    """A config with every key at its default and its meaning above it; what is off is commented out."""
    lines = [HEADER]
    off: list[str] = []
    for key in keys_of(Config):
        if any(key.name.startswith(f"{name}.") for name in off):
            continue
        if key.is_off:
            off.append(key.name)
        *comment, value = _lines(key)
        lines += [*comment, *(_hook_lines() if key.name == HOOKED else []), value]
        if key.name == STOPPING:
            lines += _rule_lines()
    return "\n".join(lines) + "\n"


def _lines(key: Key) -> list[str]:
    """The meaning, and below it the key with its value."""
    indent, name = "  " * key.depth, key.name.rpartition(".")[2]
    meaning = key.meaning + (" Required." if key.is_required and not key.holds_keys else "")
    comment = [f"{indent}# {line}" for line in textwrap.wrap(meaning, WIDTH - len(indent))]
    if key.is_off:
        value = f"# {name}: {_flow(key.example)}"
    elif key.holds_keys or key.name == STOPPING:
        value = f"{name}:{' {}' if key.example == {} else ''}"
    else:
        value = f"{name}: {_flow(key.default if key.example is None else key.example)}"
    return [*([""] if key.depth == 0 else []), *comment, indent + value]


def _rule_lines() -> list[str]:
    """The default rule as it holds, the others as comments."""
    found = []
    for name, section in rule_sections().items():
        options = {RULE: name, **{key.name: key.default for key in keys_of(section) if key.name != RULE}}
        found.append(f"    {'' if name == DEFAULT_RULE else '# '}- {_flow(options)}")
    return found


def _hook_lines() -> list[str]:
    """The hooks with options, as comments."""
    found = []
    for name, section in hook_sections().items():
        options = {HOOK: name, **{key.name: _hook_value(key) for key in keys_of(section) if key.name != HOOK}}
        found.append(f"  # - {_flow(options)}")
    return found


def _hook_value(key: Key) -> Any:
    if key.is_required:
        return HOOK_EXAMPLES[key.name]
    return list(key.default) if isinstance(key.default, tuple) else key.default


def _flow(value: Any) -> str:
    """A value in one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf, sort_keys=False, allow_unicode=True)
    return str(text).removesuffix("\n").removesuffix("\n...")


def _kind(schema: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """A JSON Schema's type in words, with its limits."""
    if "$ref" in schema:
        return _kind(known[schema["$ref"].rpartition("/")[2]], known)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(each, known) for each in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{each}`" for each in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'], known)}" if schema.get("items") else "list"
    words = {
        "object": "section",
        "boolean": "true or false",
        "string": "text",
        "number": "number",
        "integer": "integer",
    }
    word = "path" if schema.get("format") == "path" else words.get(schema.get("type", ""), schema.get("type", "any"))
    return word + _limits(schema)


def _limits(schema: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {_number(schema[name])}" for name, sign in signs.items() if name in schema]
    if "multipleOf" in schema:
        found.append(f"a multiple of {schema['multipleOf']:g}")
    return f" {', '.join(found)}" if found else ""


def _number(limit: float) -> str:
    return "2^63" if limit == GREATEST else f"{limit:g}"


class _Schema(GenerateJsonSchema):
    """What is read by a function of ours may hold anything, as far as JSON Schema can say."""

    def function_plain_schema(self, schema: Any) -> JsonSchemaValue:
        return {}
