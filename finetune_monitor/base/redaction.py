"""Keep secrets out of everything that is written to disk, sent, or shown."""

import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any

import yaml

from finetune_monitor.base.warnings_in_words import warnings_as_they_are
from finetune_monitor.base.yaml_files import parse_yaml

REDACTED = "<redacted>"

_WORDS = (
    r"(?:(?:access|auth|api|bot|client|hf|hub|id|refresh)?token|secret|password|passwd|passphrase|pwd|credentials?|"
    r"authorization|(?:api|access|account|auth|encryption|private|secret|session|signing|ssh)[._-]?key)"
)
"""The last word of a name whose value is a secret, in lower case."""

_SECRET_NAME = re.compile(rf"(?:^|[\s._-]){_WORDS}$")
_FLAG = re.compile(rf"(--?(?:[\w.]{{1,30}}-){{0,6}}{_WORDS}[ =]+)[^\s<]\S*", re.I)
_PAIR = re.compile(
    rf"((?:^|[^A-Za-z0-9])(?:[A-Za-z0-9]{{1,30}}[._-]){{0,6}}(?:[a-z0-9]{{1,30}}(?=[A-Z]))?{_WORDS}"
    r"[\"']?\s*(?:=|:(?=\s*\S{6}))\s*[\"']?)"
    r"(?!<redacted>|Bearer |Basic )[^\s\"',;&)}\]]+",
    re.I,
)
_BEARER = re.compile(r"(\b(?:bearer|basic)\s+)(?=\S*\d)[\w.~+/=-]{8,}", re.I)

_ADDRESS = re.compile(r"(\burl[\"']?\s*[:=]\s*[\"']?https?://[^/\s\"'?#]+[/?#])[^\s\"']+", re.I)
"""An address, such as that of a webhook, behind its key; whoever knows it may send there."""

_SHAPES = (
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*-----|\Z)",
    r"(?<=://)[^/\s@]+(?=@)",  # user, password or token in an address
    r"\bhf_[A-Za-z0-9]{20,}",
    r"\b(?:gh[opsur]_|github_pat_)[A-Za-z0-9_]{20,}",
    r"\bsk-[A-Za-z0-9_-]{20,}",
    r"\beyJ[\w-]+\.[\w-]+\.[\w.+/=-]*",
    r"\bAIza[0-9A-Za-z_-]{35}",
    r"\bnpm_[0-9A-Za-z]{36}",
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
)
"""Secrets that show by their shape, besides those of detect-secrets."""

_NOT_USED = frozenset(
    f"{name}Detector" for name in ("IPPublic", "Keyword", "BasicAuth", "PrivateKey", "OpenAI", "Npm", "JwtToken")
)
"""Detectors of detect-secrets for what is no secret here, or is covered above, some of which take quadratic time."""


def redacted(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without anything that looks like a secret by its key (`hub.token`), as `key=value`, or by its shape."""
    return {key: _redacted_value(str(key), value) for key, value in values.items()}


def hidden_address(url: str) -> str:
    """An address without anything but its host."""
    return _ADDRESS.sub(rf"\g<1>{REDACTED}", without_secrets(f"url={url}")).removeprefix("url=")


def _redacted_value(key: str, value: Any) -> Any:
    if key.lower() == "url" and isinstance(value, str):
        return hidden_address(value)
    return _blank(value) if _names_secret(key) else _without_secrets(value)


@lru_cache(256)
def without_secrets(text: str) -> str:
    """The text without anything that looks like a secret."""
    for named in (_FLAG, _PAIR, _BEARER, _ADDRESS):
        text = named.sub(rf"\g<1>{REDACTED}", text)
    for shape in _shapes():
        text = shape.sub(REDACTED, text)
    return text


def redacted_yaml(text: str) -> str:
    """The YAML text, unchanged if it has no secrets, otherwise rewritten without them."""
    content = parse_yaml(text, "the config")
    if isinstance(content, dict) and redacted(content) != content:
        return yaml.safe_dump(redacted(content), sort_keys=False, allow_unicode=True)
    return text if without_secrets(text) == text else without_secrets(text)


def _names_secret(key: str) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower()
    return _SECRET_NAME.search(words) is not None


def _blank(value: Any) -> Any:
    """What is under the name of a secret, without its texts."""
    if isinstance(value, Mapping):
        return {key: _blank(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_blank(inner) for inner in value]
    return REDACTED if isinstance(value, str) and value else value


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return redacted(value)
    if isinstance(value, (list, tuple)):
        return [_without_secrets(inner) for inner in value]
    return without_secrets(value) if isinstance(value, str) else value


@cache
def _shapes() -> tuple[re.Pattern[str], ...]:
    """Every shape of a secret, read when first needed: importing detect-secrets takes a third of a second."""
    with warnings_as_they_are():
        from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
        from detect_secrets.plugins.base import RegexBasedDetector

    own = [re.compile(shape, re.S) for shape in _SHAPES]
    kinds: Iterable[Any] = get_mapping_from_secret_type_to_class().values()
    used = [kind for kind in kinds if issubclass(kind, RegexBasedDetector) and kind.__name__ not in _NOT_USED]
    return (*own, *(pattern for kind in used for pattern in kind.denylist))
