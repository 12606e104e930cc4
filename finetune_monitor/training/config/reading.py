"""Reading configs: from a YAML file with overrides, or as a run has recorded it; all problems in one message."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.sections import problems_of
from finetune_monitor.base.text_keys import holds_text
from finetune_monitor.base.yaml_files import override, read_yaml
from finetune_monitor.training.config.config import Config
from finetune_monitor.training.own import Reading
from finetune_monitor.training.shipped import shipped, with_shipped

EARLIER: Mapping[str, Any] = {"crop": "center", "captions": False}
"""Keys of `data` that earlier versions did not know, with what they did."""


def validated(content: Any, folder: Path) -> Config:
    """The config from a file's content; `folder` is that of the file, and the config may name modules in it.

    Raises:
        ValidationError: the problems; `problems_of` makes them readable.
    """
    return Config.model_validate(with_shipped(content), context=Reading(folder))


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply `dotted.key=value` overrides, and validate; imports the modules that it names.

    The file and the paths in it are found in the package if they exist only there (`training.shipped`).

    Raises:
        UserError: it is the config of a sweep; or lists all unknown keys (with the most similar known key), wrong
            types, and values out of range.
    """
    path = Path(shipped(str(path)))
    is_text = partial(holds_text, Config)
    content = read_yaml(path, is_text)
    for change in overrides:
        override(content, change, is_text)
    if "base" in content and "model" not in content:
        raise UserError(
            f"{path}: is the config of a sweep, expected that of a training; run finetune-monitor sweep {path}"
        )
    try:
        return validated(content, path.parent)
    except ValidationError as error:
        all_problems(problems_of(error, Config), f"{path}: the config is not valid")
        raise


def recorded_config(path: Path) -> tuple[Config, list[str]]:
    """The config.yaml of a recorded run, and its keys that this version does not know, which are left out.

    It may come from anybody, so the modules that it names are not imported: their options stay as written.

    Raises:
        UserError: it is not a training config, apart from such keys.
    """
    content: Any = read_yaml(path, partial(holds_text, Config))
    if is_of_earlier_version(content):
        content["data"] |= EARLIER
    unknown: list[str] = []
    while True:
        try:
            return Config.model_validate(content, context=Reading(imports=False)), unknown
        except ValidationError as error:
            strange = [found["loc"] for found in error.errors() if found["type"] == "extra_forbidden"]
            if len(strange) < error.error_count():
                all_problems(problems_of(error, Config), f"{path}: the config is not valid")
            for location in strange:
                unknown.append(_leave_out(location, content))


def is_of_earlier_version(content: Any) -> bool:
    """Whether a recorded config was written by a version that knew no crops, no captions, and one class prompt."""
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, dict) or isinstance(data.get("class_prompt"), list):
        return False
    return not data.keys() & EARLIER.keys()


def as_begun(config: Config, path: Path) -> tuple[Config, list[str]]:
    """The config that a run goes on with, and the keys that it takes from its beginning in an earlier version.

    Args:
        path: the run's recorded config, which may be missing.
    """
    if not path.exists() or not is_of_earlier_version(read_yaml(path, partial(holds_text, Config))):
        return config, []
    changed = [f"data.{key}={value}" for key, value in EARLIER.items() if getattr(config.data, key) != value]
    return config.model_copy(update={"data": config.data.model_copy(update=EARLIER)}), changed


def _leave_out(location: Sequence[Any], content: Any) -> str:
    """Remove a key from the content; returns its dotted name."""
    *way, last = location
    for key in way:
        content = content[key]
    del content[last]
    return ".".join(map(str, location))
