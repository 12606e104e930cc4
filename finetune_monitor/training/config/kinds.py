"""Kinds of values that several sections of the config hold, and what keys mean."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.json_files import GREATEST
from finetune_monitor.base.paths import user_path
from finetune_monitor.base.sections import arguments_of


def _user_path(found: Path) -> Path:
    try:
        return user_path(found)
    except UserError as error:
        raise ValueError(f"found {error}") from error


UserPath = Annotated[Path, AfterValidator(_user_path)]

Seed = Annotated[int, Field(ge=0, lt=GREATEST)]
"""Of numpy, which takes none below 0, of torch, which takes 64 bits, and of the records."""


MEANINGS = {
    "clip": "Name of an open_clip model, or a folder in open_clip's layout.",
    "pretrained": "Tag of CLIP's weights in open_clip; ignored for a folder.",
    "recognizer": "vggface2, casia-webface, sface, dlib (comes with the package), or the path of a recognizer in ONNX "
    "format. In metrics other than face_similarity, null means the recognizer of face_similarity.",
    "metric": "Column that the rule watches; the first rule's column also decides which step is best.",
    "window": "How many evaluations are averaged on each side.",
    "patience": "How many evaluations in a row may fail to beat the best.",
    "min_delta": "Smallest improvement that counts, in the metric's unit.",
}
"""Of keys that mean the same in several sections, or less in a config than in Python."""


def meanings_of(kind: type) -> dict[str, str]:
    """What the keys of a class's section mean: as its docstring says, in the words of a config."""
    said = {name: re.sub(r"\bNone\b", "null", text) for name, text in arguments_of(kind).items()}
    return {**said, **MEANINGS}
