"""The fixed prompt grid: its prompts, each with its seeds, give the cells that every evaluation renders."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TypeAlias

CellContent: TypeAlias = tuple[str, str, int]
"""Prompt, negative prompt and seed."""

DEFAULT_SAMPLER = "DPMSolverMultistepScheduler"
"""DPM-Solver++ (Lu et al. 2022): as good in 20 to 25 steps as older schedulers in 50."""

FIRST_FIELDS = frozenset(
    {"prompts", "seeds", "negative_prompt", "steps", "guidance", "sampler", "karras", "size"},
)
"""Always in the fingerprint; a later field only where it is not as usual, so that older records keep theirs."""


WHICH_CELLS = frozenset(
    {"prompts", "seeds", "images_per_prompt", "negative_prompt", "probe_prompts", "images_per_probe"}
)
"""Fields that say which cells there are; the others say how each is sampled."""

IMAGES_PER_PROMPT = 4
"""Where nothing else is asked for."""

IMAGES_PER_PROBE = 6
"""With three probe prompts 18 images, so that a change among them can be told."""

FIRST_PROBE_SEED = 1_000_000
"""Beyond those of the prompts: no image of a probe shares its noise with one of the subject."""

SEEDS_APART = 1000
"""From the first seed of a prompt to that of the next, so that another number of images keeps the seeds."""


@dataclass(frozen=True)
class Cell:
    """One image of the grid: a prompt and the seed of its noise; a probe's prompt does not name the subject."""

    index: int
    id: str
    prompt: str
    negative_prompt: str
    seed: int
    is_probe: bool = False

    @property
    def content(self) -> CellContent:
        """What makes it the same in another grid of the same sampling."""
        return self.prompt, self.negative_prompt, self.seed


@dataclass(frozen=True)
class PromptGrid:
    """Prompts, how many images of each, and how they are sampled.

    Every prompt has seeds of its own, so that all images are independent draws of noise. With an explicit list all
    prompts share its seeds: images of one seed resemble each other, and only the seeds count as the sample.

    Args:
        prompts: one row of the grid each; at least one, none twice.
        seeds: of every prompt; None gives each prompt seeds of its own. A cell's noise depends on its seed alone.
        negative_prompt: what guidance steers away from, for every cell.
        steps: scheduler steps.
        guidance: classifier-free guidance scale; 1 or less turns guidance off.
        sampler: class name of a diffusers scheduler; None is DPM-Solver++ multistep, or the model's own scheduler where
            it was trained by flow matching.
        karras: noise levels spaced as in Karras et al. 2022, by a sampler that can do so.
        size: (height, width) in pixels; None is the model's own size.
        images_per_prompt: 4 where neither this nor `seeds` is given.
        probe_prompts: further prompts, which do not name the subject: what the model makes of other people. Their
            images are in no mean of the subject's.
        images_per_probe: each with a seed of its own.

    Raises:
        ValueError: for an empty grid, repeated prompts or seeds, both `seeds` and `images_per_prompt`, fewer than one
            image or step, or negative guidance.
    """

    prompts: Sequence[str]
    seeds: Sequence[int] | None = None
    negative_prompt: str = ""
    steps: int = 25
    guidance: float = 7.5
    sampler: str | None = None
    karras: bool = False
    size: tuple[int, int] | None = None
    images_per_prompt: int | None = None
    probe_prompts: Sequence[str] = field(default_factory=list)
    images_per_probe: int = IMAGES_PER_PROBE

    def __post_init__(self) -> None:
        self._keep_list("prompts", self.prompts)
        if self.seeds is not None:
            self._keep_list("seeds", self.seeds)
        if self.seeds is not None and self.images_per_prompt is not None:
            raise ValueError(
                f"PromptGrid.images_per_prompt: found {self.images_per_prompt} beside a list of seeds; name one of "
                "them, and leave the other out or null"
            )
        if self.seeds is None and self.images_per_prompt is None:
            object.__setattr__(self, "images_per_prompt", IMAGES_PER_PROMPT)
        if self.images_per_prompt is not None and not 1 <= self.images_per_prompt <= SEEDS_APART:
            raise ValueError(
                f"PromptGrid.images_per_prompt: found {self.images_per_prompt}, expected 1 to {SEEDS_APART}"
            )
        if self.probe_prompts:
            self._keep_list("probe_prompts", self.probe_prompts)
        object.__setattr__(self, "probe_prompts", tuple(self.probe_prompts))
        if shared := set(self.prompts) & set(self.probe_prompts):
            raise ValueError(f"PromptGrid.probe_prompts: {shared.pop()!r} is a prompt of the subject too; take it out")
        if not 1 <= self.images_per_probe <= SEEDS_APART:
            raise ValueError(f"PromptGrid.images_per_probe: found {self.images_per_probe}, expected 1 to {SEEDS_APART}")
        if self.steps < 1:
            raise ValueError(f"PromptGrid.steps: found {self.steps}, expected 1 or more")
        if not self.guidance >= 0:
            raise ValueError(f"PromptGrid.guidance: found {self.guidance}, expected 0 or more")

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, prompt by prompt; the probes last."""
        own = ((f"p{p:02d}", prompt, seed, False) for p, prompt in enumerate(self.prompts) for seed in self.seeds_of(p))
        probes = (
            (f"q{q:02d}", prompt, FIRST_PROBE_SEED + q * SEEDS_APART + image, True)
            for q, prompt in enumerate(self.probe_prompts)
            for image in range(self.images_per_probe)
        )
        return tuple(
            Cell(index, f"{place}-s{seed}", prompt, self.negative_prompt, seed, is_probe)
            for index, (place, prompt, seed, is_probe) in enumerate((*own, *probes))
        )

    def seeds_of(self, prompt: int) -> Sequence[int]:
        """The seeds of a prompt, given by its place; the first prompt's begin with 0, the second's with 1000."""
        if self.seeds is not None:
            return self.seeds
        first = prompt * SEEDS_APART
        return range(first, first + (self.images_per_prompt or 0))

    def fingerprint(self) -> str:
        """SHA-256 of everything that decides what a cell looks like, weights apart."""
        usual = {each.name: each.default for each in fields(self)}
        content = {name: value for name, value in asdict(self).items() if name in FIRST_FIELDS or value != usual[name]}
        content["prompts"] = list(self.prompts)
        content["seeds"] = None if self.seeds is None else list(self.seeds)
        if not self.probe_prompts:
            del content["probe_prompts"]
            content.pop("images_per_probe", None)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _keep_list(self, name: str, values: Sequence[object]) -> None:
        """A range, say, could not be recorded."""
        if isinstance(values, str) or not values:
            raise ValueError(f"PromptGrid.{name}: found {values!r}, expected a list with at least one entry")
        if len(set(values)) != len(values):
            raise ValueError(f"PromptGrid.{name}: entries are repeated in {list(values)!r}; each must stand once")
        object.__setattr__(self, name, tuple(values))
