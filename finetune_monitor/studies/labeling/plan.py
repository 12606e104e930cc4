"""Choose the images that people will rate: a fair share of every person, run, and step, under opaque names."""

import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.files import sha256
from finetune_monitor.base.images import read_image
from finetune_monitor.base.text import printable
from finetune_monitor.studies.labeling.settings import PER_PERSON, REPEATS, SEED
from finetune_monitor.studies.labeling.sources import (
    AESTHETIC,
    METRICS,
    SIMILARITY,
    Candidate,
    Person,
    Stratum,
    find_persons,
    only,
    read_sources,
)
from finetune_monitor.studies.labeling.tasks import PLAN, TASKS, LabelingPlan, Task, read_plan, write_plan

ENOUGH_TO_REPEAT = 10
"""With this many images, at least one is shown twice, however small the share."""


@dataclass(frozen=True)
class DrawnPlan:
    """A plan as written.

    counts: how many images of a person are rated for a metric, not counting repeats.
    notes: sentences on what is left out and what there are too few of.
    """

    plan: LabelingPlan
    counts: dict[tuple[str, str], int]
    notes: tuple[str, ...]


def draw_plan(
    sources: Sequence[Path],
    folder: Path,
    per_person: int = PER_PERSON,
    repeats: float = REPEATS,
    seed: int = SEED,
    references: Mapping[str, Path] | None = None,
) -> DrawnPlan:
    """Choose the images that people will rate, and write `tasks.csv` and `plan.json`; nothing is copied.

    Each person's images are divided between the two metrics; no image is rated for both. Every step of every run
    contributes equally to each half. The same inputs and seed produce the same files.

    Args:
        sources: run directories, including those of runs in progress, and folders of images: of one person each, or
            with one subfolder per person. Runs that share a reference photo show the same person.
        folder: the folder to write the plan to.
        per_person: the number of images of each person, for both metrics together; all images if there are fewer.
        repeats: share of a metric's images that are shown a second time, 0 to 0.5.
        seed: determines the choice of images and every labeler's order.
        references: person to folder of photos, if no photos are recorded or they have moved.

    Raises:
        UserError: one error that lists all problems with the settings, the sources, and the photos.
    """
    problems = _unfit_settings(folder, per_person, repeats)
    found, unread = read_sources(sources)
    persons, notes, unshown = find_persons(found, references or {}, complete=not unread)
    all_problems([*problems, *unread, *unshown], f"{folder}: cannot make a plan:")
    try:
        plan, counts, left_out = _draw(persons, per_person, repeats, seed)
        write_plan(folder, plan)
    except OSError as error:
        raise UserError(f"{folder}: cannot write the plan ({error}); choose another folder or try again") from error
    return DrawnPlan(read_plan(folder), counts, tuple(map(printable, [*notes, *left_out])))


def _unfit_settings(folder: Path, per_person: int, repeats: float) -> list[str]:
    problems = []
    if per_person < 2:
        problems.append(f"per person: found {per_person}, expected at least 2 images, one for each metric")
    if not 0 <= repeats <= 0.5:
        problems.append(f"repeats: found {repeats:g}, expected a share from 0 to 0.5")
    held = [name for name in (TASKS, PLAN) if os.path.lexists(folder / name)]
    if held:
        problems.append(f"{folder}: holds {' and '.join(held)}, which ratings may depend on; choose another folder")
    return problems


def _distinct(persons: Sequence[Person], rng: random.Random) -> tuple[list[Person], list[str]]:
    """Identical files once per person, and only once overall for aesthetics, with notes on what was removed."""
    contents = _contents({image.file for person in persons for image in person.images})
    kept = [replace(person, images=_once(person.images, contents, rng)) for person in persons]
    notes = [
        f"{person.name}: {fewer} images are identical to others and are left out"
        for person, left in zip(persons, kept, strict=True)
        if (fewer := len(person.images) - len(left.images))
    ]
    owners = _owners(kept, contents, rng)
    if owners:
        notes.append(f"{len(owners)} images are the same for several people; each is rated once for {AESTHETIC}")
    return [_without_others(person, contents, owners) for person in kept], notes


def _contents(files: Iterable[Path]) -> dict[Path, str]:
    """Content keys that show which files are the same; only files of equal size are read."""
    sizes = {file: file.stat().st_size for file in files}
    alike = Counter(sizes.values())
    readable = {file for file, size in sizes.items() if alike[size] > 1 and os.access(file, os.R_OK)}
    return {file: sha256(file) if file in readable else str(file) for file in sizes}


def _once(images: Sequence[Candidate], contents: Mapping[Path, str], rng: random.Random) -> tuple[Candidate, ...]:
    """One image per content: the one that suits most metrics, from the step with the fewest so far."""
    copies: dict[str, list[Candidate]] = defaultdict(list)
    for image in rng.sample(images, len(images)):
        copies[contents[image.file]].append(image)
    load = Counter[Stratum]()
    for same in sorted(copies.values(), key=len):
        same.sort(key=lambda image: (-len(image.metrics), load[image.stratum]))
        load[same[0].stratum] += 1
    return tuple(same[0] for same in copies.values())


def _owners(persons: Sequence[Person], contents: Mapping[Path, str], rng: random.Random) -> dict[str, str]:
    """For content of several people, the name of the one for whom it is rated for aesthetics, in fair shares."""
    rivals: dict[str, list[str]] = defaultdict(list)
    for person in persons:
        for image in only(person.images, {AESTHETIC}):
            rivals[contents[image.file]].append(person.name)
    load, owners = Counter[str](), {}
    for content, names in rivals.items():
        if len(names) > 1:
            owners[content] = min(rng.sample(names, len(names)), key=lambda name: load[name])
            load[owners[content]] += 1
    return owners


def _without_others(person: Person, contents: Mapping[Path, str], owners: Mapping[str, str]) -> Person:
    own = {file for file, content in contents.items() if owners.get(content, person.name) == person.name}
    parts = [only([one], set(METRICS) if one.file in own else {SIMILARITY}) for one in person.images]
    return replace(person, images=tuple(chain.from_iterable(parts)))


def _draw(
    persons: Sequence[Person], per_person: int, repeats: float, seed: int
) -> tuple[LabelingPlan, dict[tuple[str, str], int], list[str]]:
    """The plan, the number of images by person and metric, and notes on what is left out."""
    rng = random.Random(f"plan {seed}")  # a number would lose its sign
    ids = _ids(rng)
    persons, notes = _distinct(persons, rng)
    tasks: list[Task] = []
    counts: dict[tuple[str, str], int] = {}
    for person in persons:
        drawn, unreadable = _deal(person.images, per_person, rng)
        counts |= {(person.name, metric): len(images) for metric, images in drawn.items()}
        for metric, images in drawn.items():
            tasks += [_task(next(ids), metric, person.name, image) for image in images]
        notes += _shortages(person.name, drawn, unreadable, per_person)
    if not tasks:
        all_problems(notes, "found no image that can be rated; expected images:")
    tasks += _repeat(tasks, repeats, rng, ids)
    compared = {task.person for task in tasks if task.metric == SIMILARITY}
    photos = {person.name: person.photos for person in persons if person.name in compared}
    return LabelingPlan(tuple(sorted(tasks, key=lambda task: task.image_id)), photos, seed), counts, notes


def _shortages(
    name: str, drawn: Mapping[str, Sequence[Candidate]], unreadable: Sequence[str], wanted: int
) -> list[str]:
    notes = [f"{name}: {len(unreadable)} images cannot be read and are left out: {unreadable[0]}"] if unreadable else []
    if sum(map(len, drawn.values())) < wanted:
        parts = " and ".join(f"{len(images)} for {metric}" for metric, images in drawn.items())
        notes.append(f"{name}: found fewer than {wanted} images: {parts or 'none of its own'}")
    return notes


def _deal(images: Sequence[Candidate], number: int, rng: random.Random) -> tuple[dict[str, list[Candidate]], list[str]]:
    """Images for each metric, in equal numbers and equally from each stratum; and why others cannot be used.

    The metric with fewer images is next, and takes one from the stratum that has given it the fewest so far.
    """
    piles: dict[str, dict[Stratum, list[Candidate]]] = {metric: defaultdict(list) for metric in METRICS}
    # The last of a pile is used first: images that suit only one metric.
    for one in sorted(rng.sample(images, len(images)), key=lambda one: -len(one.metrics)):
        for metric in one.metrics:
            piles[metric][one.stratum].append(one)
    open_ = [metric for metric in METRICS if piles[metric]]
    wanted = {metric: (number + place) // len(open_) for place, metric in enumerate(reversed(open_))}
    drawn: dict[str, list[Candidate]] = {metric: [] for metric in open_}
    given, used, unreadable = Counter[tuple[str, Stratum]](), set[Path](), []
    while open_ := [metric for metric in open_ if len(drawn[metric]) < wanted[metric]]:
        metric = min(open_, key=lambda metric: len(drawn[metric]))
        image = _next(metric, piles[metric], used, given)
        if image is None:
            open_.remove(metric)  # there are no more images for it
            continue
        used.add(image.file)
        try:
            read_image(image.file)
        except UserError as error:
            unreadable.append(str(error))
        else:
            drawn[metric].append(image)
            given[metric, image.stratum] += 1
    return drawn, unreadable


def _next(
    metric: str, piles: Mapping[Stratum, list[Candidate]], used: Set[Path], given: Mapping[tuple[str, Stratum], int]
) -> Candidate | None:
    for pile in piles.values():
        while pile and pile[-1].file in used:
            pile.pop()
    totals = {key: sum(given[any_, key] for any_ in METRICS) for key in piles}
    # Small strata come first, or one half might take everything from several that are nearly empty.
    ranks = {key: (given[metric, key], totals[key], len(pile)) for key, pile in piles.items() if pile}
    return piles[min(ranks, key=lambda key: ranks[key])].pop() if ranks else None


def _task(image_id: str, metric: str, person: str, image: Candidate) -> Task:
    place = (image.run, image.step, image.cell)
    return Task(image_id, metric, person, image.file, sha256(image.file), *place)


def _repeat(tasks: Sequence[Task], share: float, rng: random.Random, ids: Iterator[str]) -> list[Task]:
    """A share of each metric's tasks under different ids, taking people in turn."""
    repeated = []
    for metric in METRICS:
        mixed = [task for task in rng.sample(tasks, len(tasks)) if task.metric == metric]
        least = 1 if share > 0 and len(mixed) >= ENOUGH_TO_REPEAT else 0
        seen = Counter[str]()
        turns = []
        for task in mixed:
            turns.append((seen[task.person], task))
            seen[task.person] += 1
        chosen = sorted(turns, key=lambda turn: turn[0])[: max(round(share * len(mixed)), least)]
        repeated += [replace(task, image_id=next(ids), repeat_of=task.image_id) for _, task in chosen]
    return repeated


def _ids(rng: random.Random) -> Iterator[str]:
    """Distinct ids of ten hexadecimal digits, letter first: spreadsheets read 12e4567890 as a number."""
    taken = set[str]()
    while True:
        name = rng.choice("abcdef") + f"{rng.getrandbits(36):09x}"
        if name not in taken:
            taken.add(name)
            yield name
