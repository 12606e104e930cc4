"""Manifests of checkpoints as earlier versions wrote them."""

from typing import Any

from finetune_monitor.training.manifest import OWN_HASH, UNHASHED


def as_of_an_earlier_version(content: dict[str, Any]) -> dict[str, Any]:
    """The manifest without the hash of itself."""
    return {**{key: value for key, value in content.items() if key != OWN_HASH}, "format": UNHASHED}
