"""The fixed prompt grid: prompts with their seeds form the cells that every evaluation renders."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Real
from typing import Any, TypeAlias

from finetune_monitor.base.json_files import GREATEST
from finetune_monitor.base.numbers import whole_number
from finetune_monitor.base.redaction import without_secrets
from finetune_monitor.base.text import shortened

CellContent: TypeAlias = tuple[str, str, int]
"""Prompt, negative prompt and seed."""

DEFAULT_SAMPLER = "DPMSolverMultistepScheduler"
"""DPM-Solver++ (Lu et al. 2022): as good at 20 to 25 steps as older schedulers at 50."""

FULL, FAST = "full", "fast"

STEPS: Mapping[str, int] = {FULL: 25, FAST: 8}
"""Scheduler steps at each quality. With the demo's model, eight steps of DPM-Solver++ lead to as good a best step as
fifty, but not always to the same stop (benchmarks/COST.md)."""

ELSEWHERE = "another tool"
"""The sampler of images that were not rendered here: how they were sampled is unknown."""

SAMPLED_ELSEWHERE = "rendered by another tool, with settings that are not recorded"

MAY_DIFFER = (
    "another tool rendered the images of several runs: its settings are not recorded, and prompts and seeds that it "
    "does not tell are only numbered, so images of the same cell may have nothing in common"
)
"""What a reader of a comparison of such runs should know."""

FIRST_FIELDS = frozenset(
    {"prompts", "seeds", "negative_prompt", "steps", "guidance", "sampler", "karras", "size"},
)
"""Always part of the fingerprint. Newer fields are part of it only if not the default, so older records keep theirs."""


WHICH_CELLS = frozenset(
    {"prompts", "seeds", "images_per_prompt", "negative_prompt", "probe_prompts", "images_per_probe"}
)
"""The fields that define the cells; the others define how each is sampled."""

IMAGES_PER_PROMPT = 4
"""The default number of images per prompt."""

IMAGES_PER_PROBE = 6
"""18 images with three probe prompts: enough to detect a change among them."""

FIRST_PROBE_SEED = 1_000_000
"""Beyond the seeds of the prompts: no probe image shares its noise with an image of the subject."""

SEEDS_APART = 1000
"""Distance between the first seeds of two prompts, so that changing the number of images keeps the seeds."""


@dataclass(frozen=True)
class Cell:
    """One image of the grid: a prompt and the seed of its noise. The prompt of a probe does not name the subject."""

    index: int
    id: str
    prompt: str
    negative_prompt: str
    seed: int
    is_probe: bool = False

    @property
    def content(self) -> CellContent:
        """What identifies the cell in other grids with the same sampling."""
        return self.prompt, self.negative_prompt, self.seed

    @property
    def as_recorded(self) -> "Cell":
        """The cell as it is recorded and shown: without secrets in its prompts."""
        prompts = without_secrets(self.prompt), without_secrets(self.negative_prompt)
        return replace(self, prompt=prompts[0], negative_prompt=prompts[1])


@dataclass(frozen=True)
class PromptGrid:
    """Prompts, how many images of each, and how they are sampled.

    Every prompt has its own seeds, so all images are independent draws of noise. With an explicit list, all prompts
    share its seeds: images with the same seed resemble each other, and the sample size is the number of seeds.

    Args:
        prompts: at least one, without duplicates; each is one row of the grid.
        seeds: seeds shared by all prompts; None gives each prompt its own. A cell's noise depends only on its seed.
        negative_prompt: what guidance steers away from, in every cell.
        quality: how evaluations are rendered. full: in 25 steps. fast: in 8 steps of DPM-Solver++, a third of the work;
            at the end of a run, the best and the last step are rendered at full quality, too.
        steps: scheduler steps of an evaluation; None means those of the quality. A number takes precedence.
        guidance: classifier-free guidance scale; 1 or less turns guidance off.
        sampler: class name of a diffusers scheduler; None means DPM-Solver++ multistep, or the model's own scheduler if
            it was trained with flow matching.
        karras: space the noise levels as in Karras et al. 2022; the sampler must support it.
        size: (height, width) in pixels; None means the model's default size.
        images_per_prompt: images of each prompt, each with its own seed; 4 if neither this nor `seeds` is given.
        probe_prompts: additional prompts that do not name the subject; they show how the model renders other
            people. Their images do not count toward the subject's means.
        images_per_probe: images of each probe prompt, each with its own seed.

    Raises:
        ValueError: for an empty grid, repeated prompts or seeds, both `seeds` and `images_per_prompt`, fewer than one
            image or step, negative guidance, an unknown quality, `fast` with a sampler other than DPM-Solver++, or a
            value of the wrong type.
    """

    prompts: Sequence[str]
    seeds: Sequence[int] | None = None
    negative_prompt: str = ""
    steps: int | None = None
    guidance: float = 7.5
    sampler: str | None = None
    karras: bool = False
    size: tuple[int, int] | None = None
    images_per_prompt: int | None = None
    probe_prompts: Sequence[str] = field(default_factory=list)
    images_per_probe: int = IMAGES_PER_PROBE
    quality: str = FULL

    def __post_init__(self) -> None:
        self._keep_texts()
        self._keep_lists()
        self._keep_counts()
        self._keep_sampling()

    def _keep_texts(self) -> None:
        for name in ("negative_prompt", "sampler", "quality"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (name == "sampler" and value is None):
                what = "the class name of a diffusers scheduler" if name == "sampler" else "text"
                raise ValueError(f"PromptGrid.{name}: found {_quoted(value)}, expected {what}")
        check_quality(self.quality, self.sampler)

    def _keep_lists(self) -> None:
        self._keep("prompts", _texts("prompts", self.prompts))
        self._keep("seeds", None if self.seeds is None else _seeds(self.seeds))
        has_probes = not isinstance(self.probe_prompts, Sized) or len(self.probe_prompts) > 0
        self._keep("probe_prompts", _texts("probe_prompts", self.probe_prompts) if has_probes else ())
        if shared := set(self.prompts) & set(self.probe_prompts):
            raise ValueError(f"PromptGrid.probe_prompts: {shared.pop()!r} is also a prompt of the subject; remove it")

    def _keep_counts(self) -> None:
        if self.seeds is not None and self.images_per_prompt is not None:
            raise ValueError(
                f"PromptGrid.images_per_prompt: found {self.images_per_prompt} and a list of seeds; set only "
                "one of them and leave the other out or null"
            )
        if self.seeds is None:
            given = IMAGES_PER_PROMPT if self.images_per_prompt is None else self.images_per_prompt
            self._keep("images_per_prompt", _whole("images_per_prompt", given, SEEDS_APART))
        self._keep("images_per_probe", _whole("images_per_probe", self.images_per_probe, SEEDS_APART))
        self._keep("steps", _whole("steps", STEPS[self.quality] if self.steps is None else self.steps))

    def _keep_sampling(self) -> None:
        self._keep("guidance", _guidance(self.guidance))
        self._keep("size", None if self.size is None else _size(self.size))
        if not isinstance(self.karras, bool):
            raise ValueError(f"PromptGrid.karras: found {_quoted(self.karras)}, expected True or False")

    def _keep(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def step_count(self) -> int:
        """Scheduler steps of an image."""
        assert self.steps is not None
        return self.steps

    @property
    def at_full_quality(self) -> "PromptGrid":
        """The same cells at full quality; if the grid has as many steps already, only `quality` changes."""
        return replace(self, quality=FULL, steps=max(self.step_count, STEPS[FULL] if self.quality == FAST else 0))

    @property
    def sampling(self) -> dict[str, Any]:
        """How the images are sampled, as recorded with each of them."""
        return {"sampler": self.sampler, "steps": self.steps, "guidance": self.guidance}

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, prompt by prompt, with the probes last."""
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
        """The seeds of the prompt with this index: the first prompt's start at 0, the second's at 1000."""
        if self.seeds is not None:
            return self.seeds
        first = prompt * SEEDS_APART
        return range(first, first + (self.images_per_prompt or 0))

    def fingerprint(self) -> str:
        """SHA-256 of everything except the weights that affects how a cell looks."""
        usual = {each.name: each.default for each in fields(self)}
        content = {name: value for name, value in asdict(self).items() if name in FIRST_FIELDS or value != usual[name]}
        content["prompts"] = list(self.prompts)
        content["seeds"] = None if self.seeds is None else list(self.seeds)
        if not self.probe_prompts:
            del content["probe_prompts"]
            content.pop("images_per_probe", None)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _listed(name: str, values: Any, of: str) -> tuple[Any, ...]:
    """The entries of any kind of list, such as a range or an array."""
    try:
        found = () if isinstance(values, str | bytes | Mapping) else tuple(values)
    except TypeError:
        found = ()
    if not found:
        raise ValueError(f"PromptGrid.{name}: found {_quoted(values)}, expected a list with at least one entry: {of}")
    return found


def _texts(name: str, values: Any) -> tuple[str, ...]:
    found = _listed(name, values, "texts")
    if wrong := [each for each in found if not isinstance(each, str)]:
        raise ValueError(f"PromptGrid.{name}: found the entry {_quoted(wrong[0])}, expected text")
    return _distinct(name, found)


def _seeds(values: Any) -> tuple[int, ...]:
    return _distinct("seeds", tuple(map(_seed, _listed("seeds", values, "whole numbers"))))


def _seed(value: Any) -> int:
    found = whole_number(value)
    if found is None or abs(found) >= GREATEST:
        raise ValueError(
            f"PromptGrid.seeds: found the entry {_quoted(value)}, expected a whole number between -2**63 and 2**63"
        )
    return found


def _distinct(name: str, found: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(found)) != len(found):
        raise ValueError(f"PromptGrid.{name}: found repeated entries in {list(found)!r}; list each one once")
    return found


def _whole(name: str, value: object, most: int | None = None) -> int:
    found = whole_number(value)
    if found is None:
        raise ValueError(f"PromptGrid.{name}: found {_quoted(value)}, expected a whole number")
    if found < 1 or (most is not None and found > most):
        raise ValueError(f"PromptGrid.{name}: found {found}, expected 1 {'or more' if most is None else f'to {most}'}")
    return found


def _guidance(value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"PromptGrid.guidance: found {_quoted(value)}, expected a number")
    found = value if isinstance(value, int | float) else float(value)
    if not 0 <= found < math.inf:
        raise ValueError(f"PromptGrid.guidance: found {value}, expected 0 or more")
    return found


def _size(value: Any) -> tuple[int, int]:
    match [whole_number(each) for each in value] if isinstance(value, Iterable) else []:
        case [int(height), int(width)] if height > 0 and width > 0:
            return height, width
    raise ValueError(f"PromptGrid.size: found {_quoted(value)}, expected (height, width) in pixels, such as (512, 512)")


def _quoted(value: object) -> str:
    return shortened(repr(value))


def check_quality(quality: str, sampler: str | None) -> None:
    """Check that the quality exists, and that it was measured with the sampler.

    Raises:
        ValueError: it is unknown, or it is fast and the sampler is not DPM-Solver++.
    """
    if quality not in STEPS:
        raise ValueError(f"PromptGrid.quality: found {quality!r}, expected one of {', '.join(STEPS)}")
    if quality == FAST and sampler not in (None, DEFAULT_SAMPLER):
        raise ValueError(
            f"PromptGrid.quality: found {FAST} with the sampler {sampler}, expected {DEFAULT_SAMPLER}, the only one "
            f"that it was measured with; set quality to {FULL}, and choose the steps"
        )


def sampling_in_words(grid: PromptGrid) -> str:
    """Everything that affects how a cell looks, except prompts and seed."""
    if grid.sampler == ELSEWHERE:
        return SAMPLED_ELSEWHERE
    size = "the model's own size" if grid.size is None else f"{grid.size[1]} x {grid.size[0]}"
    sampler = (grid.sampler or "default sampler") + (" with Karras noise levels" if grid.karras else "")
    usual = {each.name: each.default for each in fields(grid) if each.name not in FIRST_FIELDS | WHICH_CELLS}
    more = [f", {name} {getattr(grid, name)}" for name in usual if getattr(grid, name) != usual[name]]
    return f"{sampler}, {grid.steps} steps, guidance {grid.guidance:g}, {size}{''.join(more)}"


def trigger_prompt(grid: PromptGrid, hparams: Mapping[str, Any]) -> str:
    """The words that ask for the subject, without secrets: what the photos were trained with, or the first prompt."""
    return without_secrets(str(hparams.get("data.instance_prompt") or grid.prompts[0]))
