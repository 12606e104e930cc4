"""The fixed prompt grid: prompts x seeds give the cells that every evaluation renders."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TypeAlias

CellContent: TypeAlias = tuple[str, str, int]
"""Prompt, negative prompt and seed."""

DEFAULT_SAMPLER = "DPMSolverMultistepScheduler"
"""DPM-Solver++ (Lu et al. 2022): as good in 20 to 25 steps as older schedulers in 50."""

FIRST_FIELDS = frozenset(
    {"prompts", "seeds", "negative_prompt", "steps", "guidance", "sampler", "karras", "size"},
)
"""Always in the fingerprint; a later field only where it is not as usual, so that older records keep theirs."""


@dataclass(frozen=True)
class Cell:
    """One image of the grid: a prompt and the seed of its noise."""

    index: int
    id: str
    prompt: str
    negative_prompt: str
    seed: int

    @property
    def content(self) -> CellContent:
        """What makes it the same in another grid of the same sampling."""
        return self.prompt, self.negative_prompt, self.seed


@dataclass(frozen=True)
class PromptGrid:
    """Prompts x seeds, and how they are sampled.

    Args:
        prompts: one row of the grid each; at least one, none twice.
        seeds: one column each; a cell's noise depends on its seed alone.
        negative_prompt: what guidance steers away from, for every cell.
        steps: scheduler steps.
        guidance: classifier-free guidance scale; 1 or less turns guidance off.
        sampler: class name of a diffusers scheduler; None is DPM-Solver++ multistep, or the model's own scheduler where
            it was trained by flow matching.
        karras: noise levels spaced as in Karras et al. 2022, by a sampler that can do so.
        size: (height, width) in pixels; None is the model's own size.

    Raises:
        ValueError: for an empty grid, repeated prompts or seeds, fewer than one step, or negative guidance.
    """

    prompts: Sequence[str]
    seeds: Sequence[int] = (0, 1, 2, 3)
    negative_prompt: str = ""
    steps: int = 25
    guidance: float = 7.5
    sampler: str | None = None
    karras: bool = False
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, values in (("prompts", self.prompts), ("seeds", self.seeds)):
            if isinstance(values, str) or not values:
                raise ValueError(f"PromptGrid.{name}: found {values!r}, expected a list with at least one entry")
            if len(set(values)) != len(values):
                raise ValueError(f"PromptGrid.{name}: entries are repeated in {list(values)!r}; each must stand once")
            object.__setattr__(self, name, tuple(values))  # a range, say, could not be recorded
        if self.steps < 1:
            raise ValueError(f"PromptGrid.steps: found {self.steps}, expected 1 or more")
        if not self.guidance >= 0:
            raise ValueError(f"PromptGrid.guidance: found {self.guidance}, expected 0 or more")

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, prompt by prompt."""
        pairs = ((p, prompt, seed) for p, prompt in enumerate(self.prompts) for seed in self.seeds)
        return tuple(
            Cell(index, f"p{p:02d}-s{seed}", prompt, self.negative_prompt, seed)
            for index, (p, prompt, seed) in enumerate(pairs)
        )

    def fingerprint(self) -> str:
        """SHA-256 of everything that decides what a cell looks like, weights apart."""
        usual = {each.name: each.default for each in fields(self)}
        content = {name: value for name, value in asdict(self).items() if name in FIRST_FIELDS or value != usual[name]}
        content |= {"prompts": list(self.prompts), "seeds": list(self.seeds)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
