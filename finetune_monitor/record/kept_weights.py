"""Find the weights that a run directory holds, by step."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import read_regular
from finetune_monitor.base.paths import Containment, links_in

BEST, LAST, WEIGHTS = "best", "last", "weights"
"""Folders in the run directory: of the best step, of the last one, and of every step whose weights are kept."""

NOTE = "finetune_monitor.json"
"""File next to weights: the step they belong to, or a notice that applies to everything made with them."""

OTHER_ADAPTERS = "other_adapters"
"""The key in that file for the active adapters that are not among these weights: their own weights, by name."""

LARGEST_NOTE = 1_000_000
"""Bytes of that file; a larger one is not ours."""

LORA_FILE = "pytorch_lora_weights.safetensors"
"""LoRA layers as diffusers loads them; a folder without this file holds a complete pipeline."""

DIFFUSERS, KOHYA = "diffusers", "kohya"
"""Formats of a LoRA file."""

CARD, SAMPLES = "README.md", "images"
"""The model card in `best/`, and the folder of its images."""

KOHYA_ENDING = "_kohya.safetensors"
"""End of the name of a file with the same layers under kohya's names."""


@dataclass(frozen=True)
class KeptWeights:
    """The weights of one step, and the folder that holds them."""

    step: int
    folder: Path

    @property
    def is_lora(self) -> bool:
        """Whether it is a LoRA, and not a complete pipeline."""
        return (self.folder / LORA_FILE).is_file()

    @property
    def kohya_file(self) -> Path | None:
        """The file for ComfyUI and others; None for a complete pipeline, or where kohya's names are not known."""
        return next((file for file in sorted(self.folder.glob(f"*{KOHYA_ENDING}")) if file.is_file()), None)

    @property
    def place(self) -> Path:
        """What diffusers loads: the file of a LoRA, the folder of a pipeline."""
        return self.folder / LORA_FILE if self.is_lora else self.folder


def step_folder(run_dir: Path, step: int) -> Path:
    """The folder for the weights of a step."""
    return run_dir / WEIGHTS / f"step-{step:06d}"


def step_of(folder: Path) -> int | None:
    """The step of weights according to the file next to them; None if there are no weights, or the file is damaged."""
    try:
        step = json.loads(read_regular(folder / NOTE, LARGEST_NOTE))["step"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if type(step) is int else None


def adapters_in_words(found: Mapping[str, Sequence[float]]) -> str:
    """Adapters with their weights, such as `style (weight 0.8)`."""
    weights = {name: ", ".join(f"{each:g}" for each in own) for name, own in found.items()}
    return ", ".join(
        f"{name} (weight{'s' if len(found[name]) > 1 else ''} {own})" if own else name for name, own in weights.items()
    )


def kept_weights(run_dir: Path, patterns: Sequence[str] = (f"{WEIGHTS}/step-*", BEST, LAST)) -> dict[int, KeptWeights]:
    """The weights in a run directory by step, in the order of the steps; the first pattern that has a step counts.

    Weights behind a link, or with a link among their files, do not count: they may be anywhere.
    """
    found: dict[int, KeptWeights] = {}
    inside = Containment(run_dir)
    for folder in (folder for pattern in patterns for folder in sorted(run_dir.glob(pattern))):
        step = step_of(folder)
        if step is not None and inside.path(str(folder.relative_to(run_dir))) and not any(links_in(folder)):
            found.setdefault(step, KeptWeights(step, folder))
    return dict(sorted(found.items()))


def weights_at(run_dir: Path, step: int, kept: Mapping[int, KeptWeights]) -> KeptWeights:
    """The weights of a step after 0.

    Raises:
        UserError: they were not kept; names the steps that were.
    """
    if step in kept:
        return kept[step]
    if not kept:
        raise UserError(
            f"{run_dir}: holds no weights, expected a folder in {WEIGHTS}, {BEST}, or {LAST}; training writes them "
            "from its first evaluation of a trained step on, `finetune-monitor score` does not"
        )
    steps = ", ".join(map(str, kept))
    raise UserError(f"{run_dir}: has no weights of step {step}, expected {steps}; monitor.keep decides which are kept")
