"""Parts of a config: strict models, also made of a dataclass of options, and in words everything that is wrong."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator


class Section(BaseModel):
    """A part of a config: unknown keys are errors, and nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Choices(Section):
    """A part of a config with a key for each class of a registry; null leaves one out."""

    @property
    def chosen(self) -> dict[str, Any]:
        """The options of those that are wanted, by name."""
        found = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: options for name, options in found if options is not None}


def choices(title: str, registry: Mapping[str, Any], wanted: Sequence[str] = ()) -> type[Choices]:
    """A key for each class of the registry; `wanted` are on where the config does not say otherwise."""
    keys: dict[str, Any] = {}
    for name, each in registry.items():
        section = section_of_options(options_of(each))
        keys[name] = (section | None, section() if name in wanted else None)
    return create_model(title, __base__=Choices, **keys)


def options_of(kind: type) -> type:
    """The dataclass of a registered class's options: its own `Options`, or the class itself."""
    return getattr(kind, "Options", kind)


def section_of_options(options: type, *, leaving: Sequence[str] = (), **more: Any) -> type[Section]:
    """The section whose keys are a dataclass's fields, with their types and defaults; its own checks hold, too.

    Args:
        leaving: fields that are no keys.
        more: further keys, or other defaults, as pydantic's `create_model` takes them.
    """
    hints = get_type_hints(options, include_extras=True)
    keys = {each.name: (hints[each.name], _default(each)) for each in fields(options) if each.name not in leaving}

    def checked(section: Section) -> Section:
        try:
            made = options(**{name: getattr(section, name) for name in keys})
        except ValueError as error:
            raise ValueError(str(error).removeprefix(f"{options.__name__}.")) from error
        for name in keys:  # what the dataclass has found for what was left open
            if getattr(section, name) is None:
                object.__setattr__(section, name, getattr(made, name))
        return section

    title = options.__qualname__.replace(".", "")
    validators: dict[str, Any] = {"checked": model_validator(mode="after")(checked)}
    return create_model(title, __base__=Section, __validators__=validators, **{**more, **keys, **more})


def _default(field: Any) -> Any:
    if field.default_factory is not MISSING:
        return Field(default_factory=field.default_factory)
    return ... if field.default is MISSING else field.default


def flat(content: Mapping[str, Any], whole: Callable[[Mapping[str, Any]], bool] = lambda _: False) -> dict[str, Any]:
    """Everything in nested mappings by dotted keys; an empty mapping, or one that is `whole`, is a value."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value and not whole(value):
            found |= {f"{key}.{inner}": each for inner, each in flat(value, whole).items()}
        else:
            found[key] = value
    return found


def problems_of(error: ValidationError, model: type[Section]) -> list[str]:
    """Everything that is wrong with the content of a config, in words."""
    return [_explain(found, model) for found in error.errors()]


def _explain(found: Mapping[str, Any], model: type[Section]) -> str:
    """One problem in words: the key, what was found, what is allowed."""
    key, beside, within = _walk([str(part) for part in found["loc"]], model)
    if found["type"] == "extra_forbidden":
        return f"{key}: unknown key" + _elsewhere(key, model, beside)
    if found["type"] == "missing":
        return f"{key}: missing; give it a value"
    if found["type"] == "value_error":
        text = str(found["ctx"]["error"])
        joint = "." if text.partition(":")[0] in within else ": "
        return f"{key}{joint}{text}" if key else text
    message = found["msg"][0].lower() + found["msg"][1:]
    return f"{key}: found {found['input']!r}; {message.replace('input', 'it')}"


def _walk(location: Sequence[str], model: type[Section]) -> tuple[str, list[str], list[str]]:
    """The dotted key at a location, the keys beside it and within it; of several sections pydantic names one."""
    parts: list[str] = []
    sections, beside = [model], [model]
    for part in location:
        tagged = [each for each in sections if sections[1:] and each.model_fields["rule"].default == part]
        if tagged:
            sections = tagged
            continue
        parts.append(part)
        beside, sections = sections, sections if part.isdigit() else sections_of(sections, part)
    return ".".join(parts), _keys(beside), _keys(sections)


def _keys(sections: Sequence[type[Section]]) -> list[str]:
    return list(dict.fromkeys(key for each in sections for key in each.model_fields))


def _elsewhere(key: str, model: type[Section], beside: Sequence[str]) -> str:
    """What may have been meant: a key beside it, or one of the same name in another section."""
    name = key.rpartition(".")[2]
    others = [other for other in dotted_keys(model) if other.rpartition(".")[2] == name]
    return nearest(name, beside) if len(others) != 1 else f" (did you mean {others[0]}?)"


def dotted_keys(section: type[Section], prefix: str = "") -> list[str]:
    """Every key below a section, sections among them; a list's entries have none."""
    found = []
    for name, field in section.model_fields.items():
        found.append(prefix + name)
        if get_origin(field.annotation) is not list:
            inner = sections_of([section], name)
            found += [key for each in inner for key in dotted_keys(each, f"{prefix}{name}.")]
    return found


def sections_of(sections: Sequence[type[Section]], key: str) -> list[type[Section]]:
    """The sections that may stand under a key of these."""
    kinds = [each.model_fields[key].annotation for each in sections if key in each.model_fields]
    return [found for kind in kinds for found in _sections_in(kind)]


def _sections_in(annotation: Any) -> list[type[Section]]:
    if inside := get_args(annotation):  # first: in Python 3.10 list[int] passes for a type
        return [found for inner in inside for found in _sections_in(inner)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, Section) else []


def nearest(found: str, known: Sequence[str]) -> str:
    """` (did you mean X?)`, or the known words where none is near."""
    return did_you_mean(found, known) or f" (known here: {', '.join(known)})"


def did_you_mean(found: str, known: Sequence[str]) -> str:
    """` (did you mean X?)`, or "" where none is near."""
    close = difflib.get_close_matches(found, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""
