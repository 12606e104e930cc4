"""Which cell of a grid each image of another trainer belongs to: that of its prompt and seed, in every step."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.json_files import GREATEST, as_flag, as_list, as_object
from finetune_monitor.record.grid import ELSEWHERE, SEEDS_APART, PromptGrid
from finetune_monitor.scoring.images import FoundImage, Group

Key: TypeAlias = tuple[int | None, int]
"""The seed of an image, None if unknown, and which one it is of those that have the same prompt and seed in a step."""

Rows: TypeAlias = Mapping[str, Mapping[Key, FoundImage]]
"""The images of a step, by prompt and key."""


@dataclass(frozen=True)
class Layout:
    """A grid, and which images its cells are for.

    rows: by prompt, the key of each cell; a row may end before its cells do.
    changing: no seed is in two steps, so the images of a step are placed in the order of their seeds, and a key only
        says the place.
    """

    grid: PromptGrid
    rows: Mapping[str, Sequence[Key]]
    changing: bool

    def place(self, group: Group) -> dict[int, FoundImage]:
        """The images of a step by the index of their cell; those that have no cell are left out."""
        width = len(self.grid.seeds_of(0))
        found = _ranked(keyed(group.images)) if self.changing else keyed(group.images)
        cells = {
            (label, key): number * width + place
            for number, (label, row) in enumerate(self.rows.items())
            for place, key in enumerate(row)
        }
        return {
            cells[label, key]: image
            for label, row in found.items()
            for key, image in row.items()
            if (label, key) in cells
        }

    def to_json(self) -> dict[str, Any]:
        """The layout without its grid, which is in the run's record."""
        return {"changing": self.changing, "rows": [list(map(list, row)) for row in self.rows.values()]}


def recorded_layout(grid: PromptGrid, content: Any) -> Layout:
    """The layout that `to_json` gave, with the grid of the record.

    Raises:
        ValueError, TypeError, KeyError: it is damaged.
    """
    found = as_object(content)
    rows = [tuple(map(_key, as_list(row))) for row in as_list(found["rows"])]
    return Layout(grid, dict(zip(grid.prompts, rows, strict=True)), as_flag(found["changing"]))


def _key(content: Any) -> Key:
    seed, number = as_list(content)
    if type(number) is not int or not (seed is None or type(seed) is int):
        raise TypeError(f"found {content!r}, expected a seed and a number")
    return seed, number


def layout_of(groups: Sequence[Group]) -> Layout:
    """The layout of all steps: a row for each prompt, with a cell for each seed that any step has of it.

    Where the prompts share their seeds, the grid has these seeds, so that images of one noise count as one draw.
    Otherwise, every image counts as its own.

    Raises:
        UserError: a prompt has too many images.
    """
    steps = [keyed(group.images) for group in groups]
    changing = _change(steps)
    placed = [_ranked(step) for step in steps] if changing else steps
    labels = dict.fromkeys(label for step in steps for label in step)
    rows = {label: _ordered(step.get(label, ()) for step in placed) for label in labels}
    most = max(map(len, rows.values()))
    if most > SEEDS_APART:
        raise UserError(
            f"found {most} images of one prompt with different seeds, expected at most {SEEDS_APART}; score fewer"
        )
    every = _ordered(rows.values())
    options: dict[str, Any] = {"images_per_prompt": most}
    if changing and len(rows) > 1 and all(map(_share_seeds, steps)):
        options = {"seeds": tuple(range(most))}
    elif _are_known(every) and len(every) == most:
        options, rows = {"seeds": _recordable([seed for seed, _ in every])}, dict.fromkeys(rows, every)
    grid = PromptGrid(tuple(rows), steps=1, guidance=0.0, sampler=ELSEWHERE, **options)
    return Layout(grid, rows, changing)


def keyed(images: Sequence[FoundImage]) -> dict[str, dict[Key, FoundImage]]:
    """The images of a step by prompt, in the trainer's order, and by key."""
    rows: dict[str, dict[Key, FoundImage]] = {}
    for image in sorted(images, key=lambda image: (image.index is None, image.index or 0)):
        rows[image.label] = {}
    numbers: Mapping[tuple[str, int | None], count[int]] = defaultdict(count)
    for image in sorted(images, key=lambda image: image.path.as_posix()):
        rows[image.label][image.seed, next(numbers[image.label, image.seed])] = image
    return rows


def seeds_in(rows: Rows) -> set[tuple[str, Key]]:
    """The prompts and keys of the images whose seed is known."""
    return {(label, key) for label, row in rows.items() for key in row if key[0] is not None}


def _change(steps: Sequence[Rows]) -> bool:
    """Whether seeds are known, and no step has one of another step."""
    found = [seeds_in(step) for step in steps]
    return len(steps) > 1 and any(found) and len(set().union(*found)) == sum(map(len, found))


def _ordered(rows: Iterable[Iterable[Key]]) -> tuple[Key, ...]:
    """The keys of all rows in the order of their seeds, the unknown ones last."""
    return tuple(sorted({key for row in rows for key in row}, key=lambda key: (key[0] is None, key[0] or 0, key[1])))


def _are_known(keys: Sequence[Key]) -> bool:
    """Whether each key is a seed of its own."""
    return all(seed is not None and number == 0 for seed, number in keys)


def _recordable(seeds: Sequence[int | None]) -> Sequence[int]:
    """The seeds, or others in their place if a record cannot hold them all."""
    found = [seed for seed in seeds if seed is not None and abs(seed) < GREATEST]
    return found if len(found) == len(seeds) else range(len(seeds))


def _share_seeds(rows: Rows) -> bool:
    """Whether the rows of a step have the same seeds, of which some may be missing."""
    every = _ordered(rows.values())
    return _are_known(every) and len(every) == max(map(len, rows.values()))


def _ranked(rows: Rows) -> dict[str, dict[Key, FoundImage]]:
    """The images of a step by prompt and place; where rows share their seeds, a seed has the same place in all."""
    every = _ordered(rows.values()) if _share_seeds(rows) else None
    return {
        label: {(None, place): row[key] for place, key in enumerate(every or _ordered([row])) if key in row}
        for label, row in rows.items()
    }
