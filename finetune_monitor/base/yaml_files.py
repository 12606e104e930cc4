"""Read the YAML of a config and apply `dotted.key=value` overrides to it."""

import re
from pathlib import Path
from typing import Any

import yaml

from finetune_monitor.base.errors import UserError


class _Loader(yaml.SafeLoader):
    """Reads 1e-4 as a number (YAML 1.1 requires 1.0e-4) and rejects duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = sorted({str(key) for key in keys if keys.count(key) > 1})
        if repeated:
            raise yaml.constructor.ConstructorError(
                None, None, f"duplicate keys: {', '.join(repeated)}", node.start_mark
            )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        UserError: the file cannot be read, is not valid YAML, or does not hold a mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(f"{path}: cannot read the config ({error.strerror}); check --config") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: found {type(content).__name__}, expected keys such as model, output_dir, data")
    return content


def override(content: dict[str, Any], change: str) -> None:
    """Apply one `dotted.key=value` override to the content of a config, in place."""
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise UserError(f"{change}: expected an override as dotted.key=value, such as train.max_steps=500")
    *parents, last = key.split(".")
    for parent in parents:
        inner = content.get(parent)
        content[parent] = inner if isinstance(inner, dict) else {}
        content = content[parent]
    try:
        content[last] = yaml.load(value, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{change}: the value is not valid YAML: {error}") from error
