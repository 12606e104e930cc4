"""A sweep's YAML file: its keys, types, and defaults, and one message that lists all problems."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from finetune_monitor.base import sections
from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.redaction import redacted
from finetune_monitor.base.sections import Section, dotted_keys, nearest, problems_of
from finetune_monitor.base.text_keys import holds_text
from finetune_monitor.base.yaml_files import KeyPath, override, read_yaml
from finetune_monitor.training.config import Config, Seed, UserPath
from finetune_monitor.training.shipped import shipped, with_shipped

ONE_FOR_ALL = {
    "output_dir": "the sweep's own output_dir determines it",
    "train.resume": "every trial resumes from its own checkpoint",
}
"""Config keys that a sweep sets itself, with the reason."""

ONE_VALUE_FOR_ALL = {
    "monitor.grid": "one grid for all, because scores on different prompts are not comparable; use set",
    "monitor.metrics": "one set of metrics for all; use set",
    "monitor.enabled": "a trial without evaluations cannot be compared; leave it true",
    "data.resolution": "it changes the size of the grid's images, and images of different sizes are not comparable",
}
"""Config keys that must be the same in all trials, with the reason."""

FOR_PEOPLE = {
    "seed": "use seeds",
    "data.held_out": "the same photos for all, or the scores are not comparable; use set or people",
}
"""Config keys that neither axes nor a search can vary, with the reason."""

OPEN = ("monitor.metrics", "monitor.sinks")
"""Config sections whose keys may belong to the user's own classes."""

MAX_TRIALS = 10_000
"""Of one sweep; each is a training."""

MAX_CHOICES = 1_000
"""Of a search, over all keys; a config is checked with each before the start."""

RANGE_KEYS = {"low", "high", "log"}


class ResourcesConfig(Section):
    cpus: float = Field(1, gt=0, description="CPU cores for one trial.")
    gpus: float | None = Field(
        None, ge=0, le=1, description="GPUs for one trial; with 0.5, two trials share one. null: one if there is a GPU."
    )


class AshaConfig(Section):
    rule: Literal["asha"] = Field("asha", description="Asynchronous successive halving (Li et al. 2020).")
    metric: str | None = Field(None, description="Column to compare; null: the one that decides the best step.")
    grace_steps: int | None = Field(None, ge=1, description="No trial ends before this step; null: monitor.every.")
    reduction: float = Field(3, gt=1, description="Of this many trials at the same step, only the best one continues.")


class SearchConfig(Section):
    metric: str | None = Field(None, description="Column to optimize; null: the one that decides the best step.")
    trials: int = Field(ge=1, description="How many trials to run.")
    space: dict[str, Any] = Field(
        min_length=1, description="By dotted key, a list of choices, or a range {low, high, log}."
    )


def _rule(found: Any) -> Any:
    return {"rule": found} if isinstance(found, str) else found


def _or_a_name(schema: dict[str, Any]) -> None:
    """What `_rule` accepts, for the JSON Schema."""
    schema["anyOf"].insert(0, {"const": "asha"})


class SweepConfig(Section):
    """The config of a sweep; `set`, `axes`, `people`, and `search.space` use dotted keys of the training config."""

    base: UserPath = Field(description="Config of the training runs.", examples=["configs/sd15_lora.yaml"])
    output_dir: UserPath = Field(description="Folder of the sweep.", examples=["runs/sweep"])
    set: dict[str, Any] = Field({}, description="Dotted keys that override the base config in every trial.")
    axes: dict[str, list[Any]] = Field({}, description="By dotted key, the values to try; all combinations are run.")
    people: dict[str, dict[str, Any]] = Field(
        {}, description="By person's name, the dotted keys that differ between people."
    )
    seeds: list[Seed] = Field([], description="Training seeds; every combination runs with each.")
    search: SearchConfig | None = Field(None, description="A search with Optuna's TPE, instead of axes.")
    early_termination: Annotated[AshaConfig | None, BeforeValidator(_rule)] = Field(
        None,
        description="Ends trials that lag behind the others; asha stands for a section with its defaults.",
        json_schema_extra=_or_a_name,
    )
    retries: int = Field(2, ge=0, description="How often a crashed trial resumes from its latest checkpoint.")
    resources: ResourcesConfig = Field(ResourcesConfig(), description="What one trial gets.")
    address: str | None = Field(
        None,
        description="A Ray cluster, as host:port or auto; its machines share output_dir. null: this machine.",
    )

    @model_validator(mode="after")
    def _whole(self) -> "SweepConfig":
        if too_many := _size_problems(self):
            raise ValueError(too_many)
        problems = [*_key_problems(self), *_axis_problems(self), *_search_problems(self), *_people_problems(self)]
        if self.address is not None and self.address.startswith("ray://"):
            problems.append(
                f"address: found {self.address}, expected host:port or auto; Ray's client protocol is not supported: "
                "start the command on a machine of the cluster, with address: auto"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Read a sweep's YAML file, apply `dotted.key=value` overrides, and validate; the files that it names are not read.

    Raises:
        UserError: lists all problems.
    """
    path = Path(shipped(str(path)))
    content = read_yaml(path, _holds_text)
    for change in overrides:
        override(content, change, _holds_text)
    if "base" not in content and "data" in content:
        raise UserError(
            f"{path}: is the config of a training, expected that of a sweep; run finetune-monitor train --config "
            f"{path}, or name it as base: in the file of a sweep"
        )
    content = with_shipped(content)
    for key in ("set", "axes"):
        content = _flattened(content, key)
    if isinstance(people := content.get("people"), dict):
        content["people"] = {name: flat(keys) if isinstance(keys, dict) else keys for name, keys in people.items()}
    if isinstance(search := content.get("search"), dict):
        content["search"] = _flattened(search, "space")
    try:
        return SweepConfig.model_validate(content)
    except ValidationError as error:
        problems = [line for problem in problems_of(error, SweepConfig) for line in problem.split("\n")]
        all_problems(problems, f"{path}: the sweep is not valid")
        raise


def _holds_text(path: KeyPath) -> bool:
    """Whether a key of a sweep holds text: one of its own, or one of the training config below set, axes, or people."""
    above = {"set": 1, "axes": 1, "people": 2}.get(str(path[0]) if path else "", 0)
    if not above:
        return holds_text(SweepConfig, path)
    is_value = path[0] == "axes" and isinstance(path[-1], int)
    below = path[above : -1 if is_value else None]
    keys = [key for part in below for key in (part.split(".") if isinstance(part, str) else [part])]
    return bool(keys) and (is_value or path[0] != "axes") and holds_text(Config, keys)


def flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys with their values; nested mappings are flattened, except the ranges of a search."""
    return sections.flat(content, lambda value: bool(RANGE_KEYS & value.keys()))


def _flattened(content: dict[str, Any], key: str) -> dict[str, Any]:
    found = content.get(key)
    return {**content, key: flat(found)} if isinstance(found, dict) else content


def _places(spec: SweepConfig) -> dict[str, list[str]]:
    """The places where the sweep names config keys that differ between trials, with the keys."""
    people = {f"people.{person}": list(keys) for person, keys in spec.people.items()}
    space = {"search.space": list(spec.search.space)} if spec.search else {}
    return {"axes": list(spec.axes), **people, **space}


def _key_problems(spec: SweepConfig) -> list[str]:
    known, places = dotted_keys(Config), _places(spec)
    problems = []
    for place, keys in {"set": list(spec.set), **places}.items():
        problems += [
            f"{place}: {key}: unknown key" + nearest_key(key, known) for key in keys if not _is_known(key, known)
        ]
        refused = {**ONE_FOR_ALL, **(ONE_VALUE_FOR_ALL if place != "set" else {})}
        refused |= FOR_PEOPLE if place in ("axes", "search.space") else {}
        problems += [f"{place}: {key}: {why}" for key in keys if (why := _refusal(key, refused))]
    if not spec.set.get("monitor.enabled", True):
        problems.append(f"set: monitor.enabled: {ONE_VALUE_FOR_ALL['monitor.enabled']}")
    return problems + _repeated_keys(spec, places)


def _is_known(key: str, known: Sequence[str]) -> bool:
    """Whether a key may exist; keys of the user's own metrics and sinks are checked with the trials' configs."""
    choice = ".".join(key.split(".")[:3])
    return key in known or (choice.rpartition(".")[0] in OPEN and choice not in known)


def _refusal(key: str, refused: Mapping[str, str]) -> str | None:
    if any(name.startswith(f"{key}.") for name in refused):
        return f"found an entire section, expected single keys; name the keys within {key}"
    return next((why for name, why in refused.items() if f"{key}.".startswith(f"{name}.")), None)


def nearest_key(key: str, known: Sequence[str]) -> str:
    """The most similar key of the config, or the keys of the section that it seems to belong to."""
    near = nearest(key, known)
    if "did you mean" in near:
        return near
    section = key.rpartition(".")[0]
    return nearest(key, [name for name in known if name.rpartition(".")[0] == section] or [*Config.model_fields])


def _repeated_keys(spec: SweepConfig, places: Mapping[str, list[str]]) -> list[str]:
    """Problems with keys that are set in more than one place."""
    people = dict.fromkeys(key for name, keys in places.items() if name.startswith("people.") for key in keys)
    varied = {
        "set": list(spec.set),
        "axes": places["axes"],
        "people": list(people),
        "seeds": ["seed"] * bool(spec.seeds),
    }
    varied["search.space"] = places.get("search.space", [])
    holders: dict[str, list[str]] = {}
    for place, keys in varied.items():
        for key in keys:
            holders.setdefault(key, []).append(place)
    return [f"{key}: found in {' and in '.join(names)}; keep only one" for key, names in holders.items() if names[1:]]


def _size_problems(spec: SweepConfig) -> str:
    """What makes the sweep too large to be planned, before its trials take memory; "" if it is not."""
    combinations = math.prod(map(len, spec.axes.values())) * (len(spec.people) or 1) * (len(spec.seeds) or 1)
    if combinations > MAX_TRIALS:
        return (
            f"axes, people, seeds: found {_shown(combinations)} combinations, expected at most {MAX_TRIALS:,} trials; "
            "leave out values, or use search"
        )
    if spec.search and spec.search.trials > MAX_TRIALS:
        return f"search.trials: found {_shown(spec.search.trials)}, expected at most {MAX_TRIALS:,}"
    choices = [len(found) for found in (spec.search.space.values() if spec.search else ()) if isinstance(found, list)]
    if sum(choices) > MAX_CHOICES:
        return f"search.space: found {sum(choices):,} choices, expected at most {MAX_CHOICES:,}; use ranges"
    return ""


def _shown(number: int) -> str:
    return f"{number:,}" if number < 10**15 else f"{float(number):.0e}" if number < 10**300 else "over 1e+300"


def _axis_problems(spec: SweepConfig) -> list[str]:
    problems = []
    for key, values in {**{f"axes: {key}": values for key, values in spec.axes.items()}, "seeds": spec.seeds}.items():
        if not values and key != "seeds":
            problems.append(f"{key}: found no values, expected at least one")
        if repeated := _repeated(values):
            problems.append(f"{key}: found {', '.join(repeated)} more than once, expected each value once")
    if spec.axes and spec.search:
        problems.append("axes and search: found both, expected one: every combination of axes, or a search")
    if not (spec.axes or spec.search or spec.people or spec.seeds):
        problems.append("found nothing to vary, expected axes, search, people, or seeds")
    return problems


def _repeated(values: Sequence[Any]) -> list[str]:
    seen, found = set(), []
    for value in values:
        known = repr(value) if isinstance(value, dict | list) else value
        if known in seen:
            found.append(repr(value))
        seen.add(known)
    return found


def _people_problems(spec: SweepConfig) -> list[str]:
    return [
        f"people.{person}: found no keys, expected keys such as data.instance_images"
        for person, keys in spec.people.items()
        if not keys
    ]


def _search_problems(spec: SweepConfig) -> list[str]:
    if spec.search is None:
        return []
    problems = [f"search.space: {key}: {why}" for key, found in spec.search.space.items() if (why := _unfit(found))]
    for key, found in (("people", spec.people), ("seeds", spec.seeds)):
        if len(found) > 1:
            problems.append(f"{key}: found {len(found)}, expected at most one with a search; use axes for several")
    combinations = math.inf if problems else math.prod(map(_size, spec.search.space.values()))
    if combinations < spec.search.trials:
        problems.append(
            f"search.trials: found {spec.search.trials}, but the space has {combinations} combinations; lower it, or "
            "use axes instead"
        )
    if redacted(spec.search.space) != spec.search.space:
        problems.append("search.space: found what looks like a secret, which is never written to disk; use set")
    return problems


def _size(found: Any) -> float:
    """The number of values to choose from."""
    if isinstance(found, list):
        return len(found)
    low, high = found["low"], found["high"]
    return high - low + 1 if isinstance(low, int) and isinstance(high, int) else math.inf


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _unfit(found: Any) -> str | None:
    """Why something is neither a range nor a list of values to choose from."""
    if isinstance(found, list):
        simple = all(value is None or isinstance(value, str | int | float) for value in found)
        unlike = len({repr(value) for value in found}) == len(found)
        return None if found and simple and unlike else f"found {found!r}, expected distinct plain values"
    if not isinstance(found, dict):
        return f"found {found!r}, expected a list of values or {{low, high, log}}"
    if unknown := found.keys() - RANGE_KEYS:
        return f"found {', '.join(map(str, unknown))}, expected only low, high, and log"
    low, high, log = found.get("low", ""), found.get("high", ""), found.get("log", False)
    numbers = is_number(low) and is_number(high) and _is_finite(low) and _is_finite(high)
    if not numbers or not low < high or not isinstance(log, bool) or (log and low <= 0):
        return f"found {found!r}, expected finite numbers low < high, both above 0 with log: true"
    return None
