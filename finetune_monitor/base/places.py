"""Import what a config names as `module:name`: a class or function of the user or of an installed package."""

import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from finetune_monitor.base.sections import did_you_mean


def is_place(text: object) -> bool:
    """Whether the text has the form `module:name`."""
    module, colon, name = text.partition(":") if isinstance(text, str) else ("", "", "")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), name))


def imported(place: str, folders: Sequence[Path] = ()) -> Any:
    """The class or function at a place.

    Args:
        folders: searched for the module after Python's own path; they stay on the path, for imports that the module
            makes later.

    Raises:
        ValueError: the module cannot be imported, or does not have this name.
    """
    module_name, _, name = place.partition(":")
    sys.path += [text for text in dict.fromkeys(map(str, folders)) if text not in sys.path]
    module = _module(module_name, place, folders)
    if not hasattr(module, name):
        where = getattr(module, "__file__", None) or "built in"
        raise ValueError(f"found {place!r}, but {module_name} ({where}) has no {name}{did_you_mean(name, dir(module))}")
    return getattr(module, name)


def _module(name: str, place: str, folders: Sequence[Path]) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ValueError(_failed(place, error)) from error
        looked = " and ".join(["the installed packages", *dict.fromkeys(map(str, folders))])
        raise ValueError(
            f"found {place!r}, but no module {error.name} in {looked}; correct the name or set PYTHONPATH"
        ) from error
    except Exception as error:
        raise ValueError(_failed(place, error)) from error


def _failed(place: str, error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"found {place!r}, but importing its module fails: {error!r} ({frame.filename}:{frame.lineno})"
