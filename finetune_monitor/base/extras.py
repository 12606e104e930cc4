"""Packages that only some work needs: each is named with the line that installs it, where it is missing."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from finetune_monitor.base.errors import UserError

EXTRAS = {
    "bitsandbytes": "optimizers",
    "flask": "study",
    "jinja2": "study",
    "matplotlib": "study",
    "onnxruntime": "onnx",
    "optuna": "sweep",
    "prodigyopt": "optimizers",
    "ray.tune": "sweep",
    "waitress": "study",
    "wandb": "wandb",
}
"""The extra of pyproject.toml that brings each."""


def require(package: str, purpose: str, otherwise: str = "") -> Any:
    """Import a package that `purpose` needs; call it before long work, not in the middle.

    Args:
        otherwise: what else the user could do.

    Raises:
        UserError: it is missing, or something that it needs is.
    """
    try:
        return import_module(package)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == package.partition(".")[0]
        why = "" if absent else f" ({error})"
        alternative = f", or {otherwise}" if otherwise else ""
        raise UserError(f"{purpose}: {needs(package)}{alternative}{why}") from error


def is_installed(package: str) -> bool:
    """Whether it is there; importing some takes seconds."""
    try:
        return find_spec(package) is not None
    except ImportError:
        return False


def needs(package: str) -> str:
    """That a package is needed and how it is installed, in words that follow a colon."""
    return f'needs the package {package}; pip install "finetune_monitor[{EXTRAS[package]}]"'
