"""The interface of a diffusers pipeline that the package needs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Pipeline(Protocol):
    """Any pipeline: its components and its configuration."""

    scheduler: Any

    @property
    def components(self) -> Mapping[str, Any]:
        """Every component by name, such as `unet` or `transformer`; None for one that is not used."""

    @property
    def config(self) -> Mapping[str, Any]: ...

    def save_pretrained(self, save_directory: Path) -> None: ...
