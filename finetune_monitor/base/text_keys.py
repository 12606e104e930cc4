"""Which keys of a config hold text: their values are taken as typed, even 2026, no, or photo: sks."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from finetune_monitor.base.sections import Section
from finetune_monitor.base.yaml_files import KeyPath

TEXTS = (str, Path)


def holds_text(section: type[Section], path: KeyPath) -> bool:
    """Whether the value at a path below a section is a text or a file name, or can be one instead of a list of them."""
    kinds: list[Any] = [section]
    for part in path:
        kinds = [inner for kind in kinds for inner in _below(kind, part)]
    found = [kind for kind in _alternatives(kinds) if kind is not NoneType]
    return any(kind in TEXTS for kind in found) and all(kind in TEXTS or _is_list_of_texts(kind) for kind in found)


def _is_list_of_texts(kind: Any) -> bool:
    inside = _in_container(kind, 0)
    return bool(inside) and all(each in TEXTS for each in inside)


def _below(kind: Any, part: str | int) -> list[Any]:
    """The types at a key or a place of a type; in Python 3.10, `list[int]` counts as a class, too."""
    return [
        inner
        for each in _alternatives([kind])
        for inner in (_in_container(each, part) if get_args(each) else _in_section(each, part))
    ]


def _in_section(kind: Any, part: str | int) -> list[Any]:
    fields = kind.model_fields if isinstance(kind, type) and issubclass(kind, Section) else {}
    return [fields[str(part)].annotation] if part in fields else []


def _in_container(kind: Any, part: str | int) -> list[Any]:
    origin, inside = get_origin(kind), get_args(kind)
    if not isinstance(origin, type) or not inside:
        return []
    if issubclass(origin, Mapping):
        return [inside[-1]]
    return [inside[0]] if issubclass(origin, Sequence) and isinstance(part, int) else []


def _alternatives(kinds: Iterable[Any]) -> list[Any]:
    """The types that these allow, without annotations and unions."""
    found = []
    for kind in kinds:
        origin = get_origin(kind)
        if origin is Annotated:
            found += _alternatives(get_args(kind)[:1])
        elif origin in (Union, UnionType):
            found += _alternatives(get_args(kind))
        else:
            found.append(kind)
    return found
