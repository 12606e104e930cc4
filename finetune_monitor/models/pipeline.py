"""The interface of a diffusers pipeline that the package needs."""

import inspect
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


def settings_of(pipeline: Pipeline) -> dict[str, Any]:
    """What a pipeline was made with besides its components, such as how SDXL encodes an empty prompt."""
    names = inspect.signature(type(pipeline)).parameters
    return {name: value for name, value in pipeline.config.items() if name in names}
