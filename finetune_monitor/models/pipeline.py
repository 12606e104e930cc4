"""What the package needs of a pipeline of diffusers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Pipeline(Protocol):
    """Any pipeline: its parts, and what it was made with."""

    scheduler: Any

    @property
    def components(self) -> Mapping[str, Any]:
        """Every part by its name, such as `unet` or `transformer`; None for one that it does without."""

    @property
    def config(self) -> Mapping[str, Any]: ...

    def save_pretrained(self, save_directory: Path) -> None: ...
