"""The user's own metrics, sinks, rules, and hooks: imported as named in a config, checked, and created."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.places import imported, is_place
from finetune_monitor.base.sections import (
    Choices,
    Section,
    arguments_of,
    did_you_mean,
    joined,
    nearest,
    options_of,
    problem,
    read_section,
    section_of_options,
    section_of_parameters,
)
from finetune_monitor.metrics import Metric, RunContext, problem_of, said_columns
from finetune_monitor.metrics.identified import Identified
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.training.registry import HOOKS, METRICS, RULES, SINKS, Registry

CLASS, RULE, HOOK = "class", "rule", "hook"
"""The keys that name a class."""

METRIC_METHODS, SINK_METHODS, RULE_METHODS = ("score",), ("start", "write", "close"), ("decide",)

TRACKER_METHODS = ("store_init_configuration", "log", "finish")
"""Those of a tracker of Accelerate, which may stand in for a sink."""


@dataclass(frozen=True)
class Reading:
    """How a config is read.

    folder: the config's folder; modules in it can be named, like those in the working directory.
    imports: False leaves sections of classes outside the package as written, and runs none of their code.
    """

    folder: Path | None = None
    imports: bool = True

    @property
    def folders(self) -> list[Path]:
        """The folders that are searched for modules in addition to the installed packages."""
        return [*([self.folder.absolute()] if self.folder else []), Path.cwd()]


class AsWritten(Section):
    """A section with any keys, which are those of another library."""

    model_config = ConfigDict(extra="allow")


class Unread(AsWritten):
    """A section of a class that was not imported."""


def with_reading(read: Callable[[Any, Reading], Any]) -> Callable[[Any, Any], Any]:
    """A validator for pydantic that passes the `Reading`, which is its context."""
    return lambda found, info: read(found, info.context or Reading())


def metric_section(found: tuple[str, Any], reading: Reading) -> Any:
    """The section of a key of `monitor.metrics` that is not one of the package's metrics."""
    return _choice(METRICS, [METRIC_METHODS], *found, reading)


def sink_section(found: tuple[str, Any], reading: Reading) -> Any:
    """The section of a key of `monitor.sinks` that is not one of the package's sinks."""
    return _choice(SINKS, [SINK_METHODS, TRACKER_METHODS], *found, reading)


def rule_section(found: Any, reading: Reading, default: str) -> Section:
    """The section of an entry of `monitor.stopping`; `default` is the rule if the entry names none."""
    if isinstance(found, Section):
        return found
    if not isinstance(found, Mapping):
        raise problem(f": found {found!r}, expected the keys of a stopping rule, such as rule and metric")
    name = found.get(RULE, default)
    if name not in RULES.names and not is_place(name):
        known = ", ".join(RULES.names)
        raise problem(f": found {name!r}, expected {known}, or module:name{did_you_mean(str(name), RULES.names)}", RULE)
    if name not in RULES.classes and not reading.imports:
        return Unread.model_validate(found)
    kind = _found(RULES, name, [RULE_METHODS], reading, RULE)
    section = read_section(_section(kind, RULE, name, RULE), found)
    _try_rule(kind, section)
    return section


def read_hook(found: Any, reading: Reading) -> str | Section:
    """An entry of `monitor.hooks`: the place of a function, or the section of one of the package's hooks."""
    if isinstance(found, (str, Section)):
        return found if isinstance(found, Section) else checked_hook(found, reading)
    if not isinstance(found, Mapping) or found.get(HOOK) not in HOOKS:
        shown = found.get(HOOK) if isinstance(found, Mapping) else found
        raise problem(f": found {shown!r}, expected module:name, or a section with hook: {' or '.join(HOOKS)}")
    if not reading.imports:
        return Unread.model_validate(found)
    return read_section(hook_section(found[HOOK]), found)


@cache
def hook_section(name: str) -> type[Section]:
    """The section of one of the package's hooks."""
    kind = HOOKS[name]
    key: dict[str, Any] = {HOOK: (Literal[name], ...)}
    return section_of_options(kind, meanings=arguments_of(kind), **key)


def checked_hook(place: str, reading: Reading) -> str:
    """The place of a hook, after checking that it can be called with an evaluation and a decision.

    Raises:
        ValueError: it cannot be imported, or cannot be called this way.
    """
    if not is_place(place):
        raise ValueError(f"found {place!r}, expected module:name, such as my_module:on_evaluation")
    if not reading.imports:
        return place
    hook = imported(place, reading.folders)
    if not callable(hook):
        raise ValueError(f"found {place!r}, which is {hook!r}, expected a function of an evaluation and a decision")
    if not _takes_two(hook):
        raise ValueError(f"found {place!r} with the parameters {signature(hook)}, expected (evaluation, decision)")
    return place


def classes_of(registry: Registry, chosen: Choices) -> dict[str, Any]:
    """The classes that a config section names, by key, except those that were not imported."""
    read = {name: section for name, section in chosen.chosen.items() if not isinstance(section, Unread)}
    return {name: registry.find(getattr(section, CLASS, name)) for name, section in read.items()}


def options_in(section: Section, name: str = CLASS) -> dict[str, Any]:
    """The options of a class: all keys except the one that names the class."""
    return {key: value for key, value in section if key != name}


def columns_of(kind: Any) -> tuple[Mapping[str, ScoreColumn], bool]:
    """The columns of a metric class, and whether these are known to be all: an instance may describe more."""
    if columns := said_columns(kind):
        return columns, True
    bounds = getattr(kind, "bounds", None)
    known = bounds if isinstance(bounds, tuple) else ScoreColumn.bounds
    return {kind.name: ScoreColumn(getattr(kind, "higher_is_better", True), known)}, False


def make_metric(kind: Any, section: Section, run: RunContext) -> Metric | None:
    """A metric as configured for a run; the class of a metric from outside the package is recorded.

    Raises:
        UserError: it cannot be created, or it is not a metric.
    """
    options = options_in(section)
    if kind in METRICS.classes.values():
        return _made(kind, options, run)  # type: ignore[no-any-return]
    where = f"monitor.metrics.{kind.name}: {place_of(kind)}"
    try:
        metric = _made(kind, options, run)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{where}: cannot create the metric: {error!r}") from error
    if metric is None and run.photos is None:
        return None
    if wrong := _wrong_with_metric(metric, kind.name):
        raise UserError(f"{where}: {wrong}")
    plain = section.model_dump(mode="json", exclude={CLASS})
    return Identified(metric, place_of(kind), plain)


def _made(kind: Any, options: Mapping[str, Any], run: RunContext) -> Any:
    return kind.for_run(kind.Options(**options), run) if hasattr(kind, "for_run") else kind(**options)


def place_of(kind: Any) -> str:
    """The place of a class, as a config names it."""
    return f"{kind.__module__}:{kind.__qualname__}"


def _choice(registry: Registry, methods: Sequence[Sequence[str]], name: str, found: Any, reading: Reading) -> Any:
    """The section of a class that a key names, by `class` or through another package's entry point.

    Args:
        methods: those that the class must have; one of several sets.

    Raises:
        ValidationError: its problems, as readable text.
    """
    named = isinstance(found, Mapping) and CLASS in found
    if not named and name not in registry.names:
        near = nearest(name, registry.names)
        raise problem(f": unknown key{near}; your own class needs class: module:Name", kind="extra_forbidden")
    if found is None:
        return None
    if name in registry.others and not named:
        return read_section(AsWritten, found)
    if not reading.imports:
        return Unread.model_validate(found)
    key = (CLASS,) if named else ()
    kind = _found(registry, found[CLASS] if named else name, methods, reading, *key)
    if getattr(kind, "name", None) != name:
        raise problem(f": {place_of(kind)} has the name {_name(kind)}, expected the name of its key, {name!r}", *key)
    return read_section(_section(kind, CLASS, found[CLASS] if named else None, *key), found)


def _name(kind: Any) -> str:
    found = getattr(kind, "name", None)
    return repr(found) if isinstance(found, str) else "none (a class attribute)"


def _found(registry: Registry, name: Any, methods: Sequence[Sequence[str]], reading: Reading, *key: str) -> Any:
    """The class, after checking that it has one of the sets of methods."""
    if not isinstance(name, str):
        raise problem(f": found {name!r}, expected module:name, such as my_module:Own", *key)
    try:
        kind = registry.find(name, reading.folders)
    except ValueError as error:
        raise problem(f": {error}", *key) from error
    if not isinstance(kind, type):
        raise problem(f": found {name!r}, which is {kind!r}, expected a class", *key)
    lacking = [[each for each in needed if not callable(getattr(kind, each, None))] for needed in methods]
    if all(lacking):
        expected = " or ".join(", ".join(needed) for needed in methods)
        raise problem(f": found {name!r}, a class without {', '.join(lacking[0])}, expected {expected}", *key)
    if hasattr(kind, "for_run") and not is_dataclass(getattr(kind, "Options", None)):
        raise problem(f": found {name!r} with for_run but no Options, expected a dataclass of that name", *key)
    return kind


def _section(kind: Any, key: str, place: str | None, *where: str) -> type[Section]:
    try:
        return _made_section(kind, key, place)
    except Exception as error:
        raise problem(f": found {place_of(kind)}, but its options cannot be read: {error!r}", *where) from error


@cache
def _made_section(kind: Any, key: str, place: str | None) -> type[Section]:
    more: dict[str, Any] = {} if place is None else {key: (Literal[place], place)}
    options = options_of(kind)
    return section_of_parameters(kind, **more) if options is kind else section_of_options(options, **more)


def _try_rule(kind: Any, section: Section) -> None:
    """Check that the rule can be created, and that it says what it watches."""
    try:
        rule = kind(**options_in(section, RULE))
    except Exception as error:
        text = str(error).removeprefix(f"{kind.__name__}.") if isinstance(error, ValueError) else repr(error)
        raise problem(joined(text, list(type(section).model_fields))) from error
    if not isinstance(getattr(rule, "metric", None), str):
        raise problem(f": {place_of(kind)} has no metric, expected the name of the column that it watches", RULE)


def _takes_two(hook: Callable[..., object]) -> bool:
    try:
        signature(hook).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # it has no signature
        return True
    return True


def _wrong_with_metric(metric: Any, name: str) -> str:
    if not isinstance(metric, Metric):
        lacking = [each for each in ("name", "higher_is_better", "bounds", "score") if not hasattr(metric, each)]
        return f"found {metric!r} without {', '.join(lacking)}, expected a metric (finetune_monitor.metrics.Metric)"
    if metric.name != name:
        return f"found the name {metric.name!r}, expected the name of its key, {name!r}"
    return problem_of(metric)
