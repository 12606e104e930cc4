"""Keep secrets out of everything that is written to disk."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from finetune_monitor.base.yaml_files import parse_yaml

REDACTED = "<redacted>"
_SECRET_KEY = re.compile(r"(^|[._-])(token|api[_-]?key|password|passwd|secret|credentials?)$", re.IGNORECASE)
_SECRET_PAIR = re.compile(r"((?:^|[\s._-])(?:token|api[_-]?key|password|passwd|secret|credentials?)=)\S+", re.I)
_SECRET_VALUE = re.compile(r"\bhf_[A-Za-z0-9]{20,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")


def redacted(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without anything that looks like a secret by its key (`hub.token`), as `key=value`, or by its shape."""
    return {
        key: REDACTED if _SECRET_KEY.search(str(key)) and isinstance(value, str) and value else _without_secrets(value)
        for key, value in values.items()
    }


def redacted_yaml(text: str) -> str:
    """The YAML text, unchanged if it has no secrets, otherwise rewritten without them."""
    content = parse_yaml(text, "the config")
    if not isinstance(content, dict) or redacted(content) == content:
        return text
    return yaml.safe_dump(redacted(content), sort_keys=False, allow_unicode=True)


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return redacted(value)
    if isinstance(value, (list, tuple)):
        return [_without_secrets(inner) for inner in value]
    if isinstance(value, str):
        return _SECRET_VALUE.sub(REDACTED, _SECRET_PAIR.sub(rf"\g<1>{REDACTED}", value))
    return value
