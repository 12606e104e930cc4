"""The one reader of YAML: plain values, limits on what a text may cost, and overrides as `dotted.key=value`."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import read_regular
from finetune_monitor.base.text import shortened

MAX_BYTES = 1_000_000
"""Of one text; a config with a thousand prompts has a tenth of it."""

MAX_VALUES = 50_000
"""Keys and values of one text, with those that aliases repeat."""

MAX_DEPTH = 50
"""Levels of nesting; a config has seven."""

UNKNOWN_HERE = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")
"""YAML's dates and its `=`, which stay text."""

NULLS = ("", "~", "null", "Null", "NULL")
"""How YAML writes that there is no value."""

TEXT = "tag:yaml.org,2002:str"
REMEDY = "text with a colon, #, [, or { must be in quotes"

KeyPath: TypeAlias = Sequence[str | int]
"""Keys and places in lists, from the outermost in."""

IsText: TypeAlias = Callable[[KeyPath], bool]

Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The reader in C takes a tenth of the time; PyYAML has it on every platform that offers wheels."""


class _Loader(Base):  # type: ignore[misc]
    """Reads plain values only: null, booleans, numbers, and text.

    1e-4 is a number (YAML 1.1 requires 1.0e-4), dates and times such as 2026-11-28 and 12:30 are text, and duplicate
    keys are errors.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        strange = [key.start_mark for key, _ in node.value if not isinstance(key, yaml.ScalarNode)]
        if strange:
            raise yaml.constructor.ConstructorError(None, None, "a key is not plain text", strange[0])
        keys = Counter(str(self.construct_object(key)) for key, _ in node.value if key.tag != MERGE)
        repeated = sorted(key for key, times in keys.items() if times > 1)
        if repeated:
            said = f"duplicate keys: {shortened(', '.join(repeated))}"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


MERGE = "tag:yaml.org,2002:merge"
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,400}|0x[0-9a-fA-F]{1,64})$")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
)
_NUMBERS = {"tag:yaml.org,2002:int": _INT, "tag:yaml.org,2002:float": _FLOAT}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, _NUMBERS.get(tag, form)) for tag, form in forms if tag not in UNKNOWN_HERE]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _form in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, _form, list("-+0123456789"))


def _nothing_is_text(path: KeyPath) -> bool:
    return False


def parse_yaml(text: str, where: str, is_text: IsText = _nothing_is_text) -> Any:
    """The plain values of a YAML text: mappings, lists, null, booleans, numbers, and text.

    Args:
        where: what the text is, to begin a message with.
        is_text: which keys hold text; their values are taken as typed, even if they look like a number or a date.

    Raises:
        UserError: it is not valid YAML, has values of other kinds, or costs more than it may.
    """
    _check_length(text, where)
    try:
        _check_cost(text)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        return loader.construct_document(_as_typed(node, text, (), is_text))
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{where}: not valid YAML: {shortened(_in_words(error), 400)}; {REMEDY}") from error


def _in_words(error: Exception) -> str:
    """What a parser found, after the place where it found it."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return str(error)
    said = ", ".join(filter(None, (getattr(error, "context", None), getattr(error, "problem", None))))
    return f"line {mark.line + 1}, column {mark.column + 1}: {said}"


def _as_typed(node: Any, text: str, path: tuple[str | int, ...], is_text: IsText) -> Any:
    """The node of a YAML text with the values of text keys as they are typed; null stays null."""
    is_list = isinstance(node, yaml.SequenceNode)
    if is_text(path) and not (is_list and is_text((*path, 0))):
        return _text_node(node, text)
    if is_list:
        node.value = [_as_typed(each, text, (*path, place), is_text) for place, each in enumerate(node.value)]
    elif isinstance(node, yaml.MappingNode):
        node.value = [
            (key, _as_typed(each, text, path if key.tag == MERGE else (*path, str(key.value)), is_text))
            for key, each in node.value
        ]
    return node


def _text_node(node: Any, text: str) -> Any:
    if node.tag == "tag:yaml.org,2002:null":
        return node
    if not isinstance(node, yaml.ScalarNode):
        typed = text[node.start_mark.index : node.end_mark.index].strip()
        return node if "\n" in typed else yaml.ScalarNode(TEXT, typed, node.start_mark, node.end_mark)
    node.tag = TEXT
    return node


def _check_length(text: str, where: str) -> None:
    if len(text) > MAX_BYTES:
        raise UserError(f"{where}: found {len(text):,} characters, expected at most {MAX_BYTES:,}")


def _check_cost(text: str) -> None:
    """Go through the text without building anything.

    Raises:
        ValueError: it is nested too deeply, has too many values, an unknown tag, or text that no file can hold.
    """
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, _Loader):
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            total += _size_of_alias(anchor, sizes)
        elif isinstance(event, yaml.ScalarEvent):
            _check_scalar(event)
            total += 1
            sizes |= {anchor: 1} if anchor else {}
        elif isinstance(event, yaml.CollectionStartEvent):
            _check_tag(event.tag)
            open_.append((anchor, total))
            total += 1
            if anchor:
                sizes.pop(anchor, None)
        elif isinstance(event, yaml.CollectionEndEvent):
            name, before = open_.pop()
            sizes |= {name: total - before} if name else {}
        if len(open_) > MAX_DEPTH:
            raise ValueError(f"nested too deeply: expected at most {MAX_DEPTH} levels")
        if total > MAX_VALUES:
            raise ValueError(f"too many values: expected at most {MAX_VALUES:,}, with those that aliases repeat")


def _size_of_alias(anchor: Any, sizes: dict[str, int]) -> int:
    if anchor not in sizes:
        raise ValueError(f"the alias *{shortened(str(anchor))} has nothing before it that it could repeat")
    return sizes[anchor]


def _check_scalar(event: Any) -> None:
    _check_tag(event.tag)
    _check_text(event.value)


def _check_text(text: str) -> None:
    if any(ord(char) == 0 or 0xD800 <= ord(char) <= 0xDFFF for char in text):
        raise ValueError(f"{shortened(ascii(text))}: found a character that cannot be written to a file")


def _check_tag(tag: Any) -> None:
    if tag not in (None, "!", TEXT, "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
        raise ValueError(f"found the tag {shortened(str(tag))}, expected plain values; remove it")


def read_yaml(path: Path, is_text: IsText = _nothing_is_text) -> dict[str, Any]:
    """The mapping that a YAML file holds; `is_text`: which keys hold text.

    Raises:
        UserError: the file cannot be read, is not valid YAML, or does not hold a mapping.
    """
    content = parse_yaml(_text_of(path), str(path), is_text)
    if not isinstance(content, dict):
        found = "nothing" if content is None else "a list" if isinstance(content, list) else "a single value"
        raise UserError(f"{path}: found {found}, expected keys with their values; see `finetune-monitor config`")
    return content


def _text_of(path: Path) -> str:
    try:
        return read_regular(path, MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot read the config ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text; expected YAML; save the file as UTF-8") from error


def override(content: dict[str, Any], change: str, is_text: IsText = _nothing_is_text) -> None:
    """Apply one `dotted.key=value` override to the content of a config, in place.

    Args:
        is_text: which keys hold text, which is taken as typed: `#`, `:`, and brackets have no meaning there.

    Raises:
        UserError: it has another form, or the value is not valid YAML.
    """
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise UserError(f"{shortened(change)}: expected an override as dotted.key=value, such as train.max_steps=500")
    *parents, last = key.split(".")
    if len(parents) >= MAX_DEPTH:
        raise UserError(f"{shortened(change)}: found {len(parents) + 1} keys, expected at most {MAX_DEPTH}")
    read = _read_override(value, shortened(change), (*parents, last), is_text)
    for parent in parents:
        inner = content.get(parent)
        content[parent] = inner if isinstance(inner, dict) else {}
        content = content[parent]
    content[last] = read


def _read_override(value: str, where: str, path: tuple[str, ...], is_text: IsText) -> Any:
    quotes = value[:1] + value[-1:]
    is_list = quotes == "[]" and is_text((*path, 0))
    if not is_text(path) or is_list or quotes in ("''", '""') or value in NULLS:
        return parse_yaml(value, where, lambda below: is_text((*path, *below)))
    _check_length(value, where)
    try:
        _check_text(value)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    return value
