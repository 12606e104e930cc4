"""Optional packages: if one is missing, the error names it and the command that installs it."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from finetune_monitor.base.errors import UserError

EXTRAS = {
    "bitsandbytes": "optimizers",
    "jinja2": "study",
    "lightning.pytorch": "lightning",
    "matplotlib": "study",
    "onnxruntime": "onnx",
    "optuna": "sweep",
    "pillow_heif": "heic",
    "prodigyopt": "optimizers",
    "ray.tune": "sweep",
    "wandb": "wandb",
}
"""The extra in pyproject.toml that installs each package; packages without one are installed by their own name."""


def require(package: str, purpose: str, otherwise: str = "") -> Any:
    """Import a package that `purpose` needs. Call this before long work starts, not in the middle of it.

    Args:
        otherwise: an alternative to installing it.

    Raises:
        UserError: the package or one of its dependencies is missing.
    """
    try:
        return import_module(package)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == package.partition(".")[0]
        why = "" if absent else f" ({error})"
        alternative = f", or {otherwise}" if otherwise else ""
        raise UserError(f"{purpose}: {needs(package)}{alternative}{why}") from error


def is_installed(package: str) -> bool:
    """Whether the package is installed, without importing it: that can take seconds."""
    try:
        return find_spec(package) is not None
    except ImportError:
        return False


def needs(package: str) -> str:
    """Text to follow a colon: that the package is needed, and how to install it."""
    line = f'"finetune_monitor[{EXTRAS[package]}]"' if package in EXTRAS else package
    return f"needs the package {package}; pip install {line}"
