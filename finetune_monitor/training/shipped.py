"""The configs and the demo's assets that come with the package, for commands that run outside a checkout."""

from pathlib import Path
from typing import Any

SHIPPED = Path(__file__).parents[1] / "shipped"
"""They lie here as in a checkout, which it links to."""

FOLDERS = ("assets/demo/", "configs/")
"""What comes with the package, as configs and commands name it."""


def shipped(path: str) -> str:
    """The path; if it exists only in the package, where it lies there."""
    found = SHIPPED / path
    return str(found) if path.startswith(FOLDERS) and not Path(path).exists() and found.exists() else path


def with_shipped(content: Any) -> Any:
    """The content of a config with its paths as `shipped` finds them."""
    if isinstance(content, dict):
        return {key: with_shipped(each) for key, each in content.items()}
    if isinstance(content, list):
        return [with_shipped(each) for each in content]
    return shipped(content) if isinstance(content, str) else content
