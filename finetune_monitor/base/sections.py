"""Config sections: strict models, some built from a class's options, and readable messages for every problem."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter, cleandoc, signature
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticSerializationError

from finetune_monitor.base.text import shortened

LONGEST_KEY = 100
"""Characters; no similar key is looked for beyond, because that takes time that grows with the square."""

SAID = "said"
"""Key of an error's context that holds the readable text to follow the config key."""

EXPECTED = {
    **dict.fromkeys(("model_type", "dataclass_type", "dict_type"), "keys with values, as in {key: value}"),
    **dict.fromkeys(("list_type", "sequence_str", "is_instance_of"), "a list, as in [a, b]"),
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "finite_number": "a finite number",
    "path_type": "a path",
    "string_type": "text",
}
"""What is expected, for the types of pydantic's errors whose messages name types of Python."""

LIMITS = {
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "too_short": "{min_length} or more entries",
    "too_long": "at most {max_length} entries",
}
"""The same for errors whose context has the limit."""


class Section(BaseModel):
    """A config section: unknown keys are errors, and validated values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Choices(Section):
    """A config section with a key for each class of a registry; null turns one off."""

    model_config = ConfigDict(extra="allow")

    @property
    def chosen(self) -> dict[str, Any]:
        """The options of the chosen classes, by name."""
        found = ((name, getattr(self, name)) for name in (*type(self).model_fields, *(self.model_extra or {})))
        return {name: options for name, options in found if options is not None}

    @model_validator(mode="before")
    @classmethod
    def _others_with_their_key(cls, found: Any) -> Any:
        """Pass the key along with its value to the reader of keys that no registered class has."""
        if not isinstance(found, Mapping):
            return found
        return {key: value if key in cls.model_fields else (key, value) for key, value in found.items()}


def choices(
    title: str,
    registry: Mapping[str, Any],
    other: Callable[[Any, Any], Any],
    meanings: Callable[[type], Mapping[str, str]],
) -> type[Choices]:
    """A section with a key for each class of the registry; classes with `is_default` are on unless the config says
    otherwise.

    Args:
        other: reads any other key, as a pair of key and value; a pydantic validator that takes `info`.
        meanings: what the keys of a class's section mean.
    """
    keys: dict[str, Any] = {}
    for name, each in registry.items():
        section = section_of_options(options_of(each), meanings=meanings(each))
        default = section() if getattr(each, "is_default", False) else None
        keys[name] = (Annotated[section | None, Field(description=summary_of(each))], default)

    base: Any = create_model(title, __base__=Choices, **keys)

    class Open(base):  # older versions of pydantic need the annotation in the class itself
        __pydantic_extra__: dict[str, Annotated[Any, PlainValidator(other)]]

    return Open


def options_of(kind: type) -> type:
    """The dataclass of a registered class's options: its own `Options`, or the class itself."""
    return getattr(kind, "Options", kind)


def summary_of(kind: type) -> str:
    """The first line of a class's docstring."""
    return (kind.__doc__ or "").partition("\n")[0]


def arguments_of(kind: type) -> dict[str, str]:
    """What the `Args` of a class's docstring say of each argument, as one line."""
    block = re.search(r"^Args:\n((?: {4}.*\n?)+)", cleandoc(kind.__doc__ or ""), re.MULTILINE)
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", block[1], re.MULTILINE) if block else []
    return {name: _sentence(text) for name, text in entries}


def _sentence(text: str) -> str:
    words = " ".join(text.split())
    return words[:1].upper() + words[1:]


def section_of_options(
    options: type, *, leaving: Sequence[str] = (), meanings: Mapping[str, str] | None = None, **more: Any
) -> type[Section]:
    """A section whose keys are a dataclass's fields, with their types and defaults; the dataclass's own checks apply.

    Args:
        leaving: fields that do not become keys.
        meanings: descriptions of keys, for the reference and for editors.
        more: additional keys or different defaults, as for pydantic's `create_model`.
    """
    keys = {name: key for name, key in _keys_of_fields(options).items() if name not in leaving}

    def checked(section: Section) -> Section:
        try:
            made = options(**{name: getattr(section, name) for name in keys})
        except ValueError as error:
            raise ValueError(str(error).removeprefix(f"{options.__name__}.")) from error
        for name in keys:  # values that the dataclass chose for None
            if getattr(section, name) is None:
                object.__setattr__(section, name, getattr(made, name))
        return section

    title = options.__qualname__.replace(".", "")
    validators: dict[str, Any] = {"checked": model_validator(mode="after")(checked)}
    described = _described({**more, **keys, **more}, meanings or {})
    return create_model(title, __base__=Section, __validators__=validators, **described)


def _described(keys: Mapping[str, Any], meanings: Mapping[str, str]) -> dict[str, Any]:
    """The keys, each with its meaning where one is known."""
    found = dict(keys)
    for name in keys.keys() & meanings.keys():
        kind, default = keys[name]
        found[name] = (Annotated[kind, Field(description=meanings[name])], default)
    return found


def section_of_parameters(kind: type, **more: Any) -> type[Section]:
    """A section whose keys are the parameters of a class's constructor; the class is not instantiated to check them.

    A parameter whose default cannot be written in a config does not become a key.
    """
    keys = _keys_of_fields(kind) if is_dataclass(kind) else _keys_of_signature(kind)
    return create_model(kind.__qualname__, __base__=_AnyTypes, **{**more, **keys, **more})


class _AnyTypes(Section):
    model_config = ConfigDict(arbitrary_types_allowed=True)


def _keys_of_fields(options: type) -> dict[str, Any]:
    hints = get_type_hints(options, include_extras=True)
    return {each.name: (hints[each.name], _default(each)) for each in fields(options) if each.init}


def _keys_of_signature(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind.__init__, include_extras=True)  # type: ignore[misc]
    return {
        each.name: (hints.get(each.name, Any), ... if each.default is Parameter.empty else each.default)
        for each in signature(kind).parameters.values()
        if each.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY) and _is_plain(each.default)
    }


def _is_plain(default: Any) -> bool:
    if default is Parameter.empty:
        return True
    try:
        TypeAdapter(Any).dump_python(default, mode="json")
    except PydanticSerializationError:
        return False
    return True


def _default(field: Any) -> Any:
    if field.default_factory is not MISSING:
        return Field(default_factory=field.default_factory)
    return ... if field.default is MISSING else field.default


def flat(content: Mapping[str, Any], whole: Callable[[Mapping[str, Any]], bool] = lambda _: False) -> dict[str, Any]:
    """Nested mappings flattened to dotted keys; empty mappings and those that are `whole` count as values."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value and not whole(value):
            found |= {f"{key}.{inner}": each for inner, each in flat(value, whole).items()}
        else:
            found[key] = value
    return found


def problem(said: str, *location: str, kind: str = "value_error") -> ValidationError:
    """One problem as an error, at a location below the current one: the text to follow the key, and pydantic's type."""
    return _errors([(said, location, kind, None)])


def read_section(section: type[Section], found: Any) -> Section:
    """A validated section whose class depends on the content; its errors become readable here, where its keys are
    known.

    Raises:
        ValidationError: the problems; `problems_of` adds the key of the section.
    """
    try:
        return section.model_validate(found)
    except ValidationError as error:
        told = [(_explain(each, section)[1], each["loc"], each["type"], each["input"]) for each in error.errors()]
        raise _errors(told) from error


def _errors(told: Sequence[tuple[str, Sequence[int | str], str, Any]]) -> ValidationError:
    lines = [
        InitErrorDetails(type=PydanticCustomError(kind, "{said}", {SAID: said}), loc=tuple(location), input=found)
        for said, location, kind, found in told
    ]
    return ValidationError.from_exception_data("", lines)


def problems_of(error: ValidationError, model: type[Section]) -> list[str]:
    """A readable message for everything that is wrong with a config."""
    explained = [_explain(found, model) for found in error.errors()]
    told = [(shortened(key), said) for key, said in explained]
    return [key + said if key else re.sub(r"^(: |\.)", "", said) for key, said in told]


def _explain(found: Mapping[str, Any], model: type[Section]) -> tuple[str, str]:
    """One problem as its key and the text to follow it: what was found, what is allowed."""
    key, beside, within = _walk([str(part) for part in found["loc"]], model)
    if SAID in found.get("ctx", {}):
        return key, found["ctx"][SAID]
    if found["type"] == "extra_forbidden":
        return key, ": unknown key" + _elsewhere(key, model, beside)
    if found["type"] == "json_invalid":
        return key, ": not valid JSON"
    if found["type"] == "missing":
        return key, ": missing; give it a value"
    if found["type"] == "value_error":
        return key, joined(str(found["ctx"]["error"]), within)
    if expected := _expected(found):
        return key, f": found {shortened(repr(found['input']))}, expected {expected}"
    message = found["msg"][0].lower() + found["msg"][1:]
    return key, f": found {shortened(repr(found['input']))}; {message.replace('input', 'it')}"


def _expected(found: Mapping[str, Any]) -> str:
    """What a value should be; "" for a type of error that is rare."""
    if found["type"] == "literal_error":
        words = str(found["ctx"]["expected"]).replace("True", "true").replace("False", "false")
        return words.replace(" or ", ", or ") if "," in words else words
    limits = {key: f"{limit:g}" if isinstance(limit, float) else limit for key, limit in found.get("ctx", {}).items()}
    return EXPECTED.get(found["type"]) or LIMITS.get(found["type"], "").format(**limits)


def joined(text: str, keys: Sequence[str]) -> str:
    """The separator and text to follow a section's key; the text may start with one of the section's own keys."""
    return ("." if text.partition(":")[0] in keys else ": ") + text


def _walk(location: Sequence[str], model: type[Section]) -> tuple[str, list[str], list[str]]:
    """The dotted key at a location, its sibling keys, and the keys below it."""
    sections, beside = [model], [model]
    for part in location:
        beside, sections = sections, sections if part.isdigit() else sections_of(sections, part)
    return ".".join(location), _keys(beside), _keys(sections)


def _keys(sections: Sequence[type[Section]]) -> list[str]:
    return list(dict.fromkeys(key for each in sections for key in each.model_fields))


def _elsewhere(key: str, model: type[Section], beside: Sequence[str]) -> str:
    """A suggestion: a similar key in the same section, or the same key in another section."""
    name = key.rpartition(".")[2]
    others = [other for other in dotted_keys(model) if other.rpartition(".")[2] == name]
    return nearest(name, beside) if len(others) != 1 else f" (did you mean {others[0]}?)"


def dotted_keys(section: type[Section], prefix: str = "") -> list[str]:
    """Every key below a section, including nested sections; entries of lists have no keys."""
    found = []
    for name, field in section.model_fields.items():
        found.append(prefix + name)
        if get_origin(field.annotation) is not list:
            inner = sections_of([section], name)
            found += [key for each in inner for key in dotted_keys(each, f"{prefix}{name}.")]
    return found


def sections_of(sections: Sequence[type[Section]], key: str) -> list[type[Section]]:
    """The section types that a key of these sections may hold."""
    kinds = [each.model_fields[key].annotation for each in sections if key in each.model_fields]
    return [found for kind in kinds for found in _sections_in(kind)]


def _sections_in(annotation: Any) -> list[type[Section]]:
    if inside := get_args(annotation):  # checked first: in Python 3.10, list[int] counts as a type
        return [found for inner in inside for found in _sections_in(inner)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, Section) else []


def nearest(found: str, known: Sequence[str]) -> str:
    """` (did you mean X?)`, or the list of known words if none is similar."""
    return did_you_mean(found, known) or f" (known here: {', '.join(known)})"


def did_you_mean(found: str, known: Sequence[str]) -> str:
    """` (did you mean X?)`, or "" if no known word is similar."""
    if len(found) > LONGEST_KEY:
        return ""
    close = difflib.get_close_matches(found, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""
