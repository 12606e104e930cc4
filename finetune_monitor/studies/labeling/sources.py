"""The sources of images: runs and folders of images, and the people they show."""

import os
import shlex
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

from finetune_monitor.base.errors import EXAMPLES_NAMED, UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.base.images import each_image, list_images
from finetune_monitor.base.json_files import as_text, damage_named
from finetune_monitor.base.paths import Containment, check_folder
from finetune_monitor.base.text import printable
from finetune_monitor.metrics.aesthetic import Aesthetic
from finetune_monitor.metrics.face_similarity import FaceSimilarity
from finetune_monitor.record.evaluation import ScoredImage
from finetune_monitor.record.history import RunHistory, read_run
from finetune_monitor.record.run_directory import RUN
from finetune_monitor.studies.labeling.questions import QUESTIONS

SIMILARITY, AESTHETIC = FaceSimilarity.name, Aesthetic.name

METRICS = tuple(QUESTIONS)
"""The scores that people are asked about."""

Stratum = tuple[Path | None, int | None]
"""Run and step."""


@dataclass(frozen=True)
class Candidate:
    """An image that may be chosen, and the metrics that it can be rated for."""

    file: Path
    metrics: frozenset[str]
    run: Path | None = None
    step: int | None = None
    cell: str | None = None

    @property
    def stratum(self) -> Stratum:
        return self.run, self.step


@dataclass(frozen=True)
class ImageSource:
    """A run or a folder of images of one person; `photos` are the files and SHA-256 of a run's reference photos."""

    folder: Path
    images: tuple[Candidate, ...]
    photos: tuple[tuple[Path, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Person:
    """Everything about one person; `photos` is empty if there is nothing to compare with."""

    name: str
    images: tuple[Candidate, ...]
    photos: tuple[Path, ...]


def read_sources(sources: Sequence[Path]) -> tuple[list[ImageSource], list[str]]:
    """The sources that could be read, each folder once, and the problems with the rest."""
    found: dict[str, ImageSource] = {}
    problems = [] if sources else ["found no sources; expected run directories or folders of images"]
    for source in sources:
        try:
            read = [_read_run(source)] if os.path.lexists(source / RUN) else _read_folder(source)
        except (UserError, OSError) as error:
            problems.append(str(error))
        else:
            found.update({os.path.realpath(one.folder): one for one in read})
    return list(found.values()), problems


def find_persons(
    sources: Sequence[ImageSource], given: Mapping[str, Path], complete: bool
) -> tuple[list[Person], list[str], list[str]]:
    """Everyone in the sources, with notes and problems; `complete` means that every source could be read."""
    groups = _group_by_person(sources)
    homes = [_home(group) for group in groups]
    names = _names(homes)
    notes = [note for source in sources for note in source.notes]
    notes += [
        f"{home}: several people are called {_name(home)}; this one is {name} in the plan"
        for home, name in zip(homes, names, strict=True)
        if name != _name(home)
    ]
    persons, problems = [], []
    for name, group in zip(names, groups, strict=True):
        try:
            person, remark = _person(name, group, given.get(name))
        except (UserError, OSError) as error:
            problems.append(str(error))
        else:
            persons.append(person)
            notes += remark
    unknown = sorted(set(given) - set(names)) if complete else []
    problems += [f"references: found {name}, expected one of the people {', '.join(names)}" for name in unknown]
    return persons, notes, problems


def only(images: Iterable[Candidate], metrics: Set[str]) -> tuple[Candidate, ...]:
    """The images that can be rated for exactly these metrics."""
    return tuple(replace(one, metrics=one.metrics & metrics) for one in images if one.metrics & metrics)


def _read_run(folder: Path) -> ImageSource:
    history = read_run(folder)
    images = [(evaluation.step, image) for evaluation in history.evaluations for image in evaluation.images]
    scored = [(step, image, metrics) for step, image in images if (metrics := _metrics(image))]
    if not images:
        raise UserError(f"{folder}: found a run without images; wait for its first evaluation, or leave it out")
    if not scored:
        raise UserError(
            f"{folder}: found no scores of {' or '.join(METRICS)}, so there is nothing to compare ratings with"
        )
    inside = Containment(folder)
    places = [(inside.path(image.file), step, image, metrics) for step, image, metrics in scored]
    found = tuple(
        Candidate(path, metrics, folder, step, image.cell.id)
        for path, step, image, metrics in places
        if path is not None and path.is_file()
    )
    outside = sum(path is None and image.file is not None for path, _, image, _ in places)
    if not found:
        where = f", and {outside} of them outside of it" if outside else ""
        raise UserError(f"{folder}: found none of its {len(scored)} images{where}; restore its folder images")
    gone = {"have no file": len(scored) - len(found) - outside, "are outside the run directory": outside}
    notes = tuple(f"{folder}: {n} of {len(scored)} images {why} and are left out" for why, n in gone.items() if n)
    return ImageSource(folder, found, _recorded_photos(history), notes)


def _metrics(image: ScoredImage) -> frozenset[str]:
    """What an image can be rated for: not that it shows the subject if its prompt does not ask for the subject."""
    return frozenset(METRICS).intersection(image.scores)


def _recorded_photos(history: RunHistory) -> tuple[tuple[Path, str], ...]:
    photos = history.weights.get(SIMILARITY, {}).get("references", [])
    with damage_named(f"{history.output_dir / RUN}: its reference photos"):
        return tuple((Path(as_text(photo["file"])), as_text(photo["sha256"])) for photo in photos)


def _read_folder(folder: Path) -> list[ImageSource]:
    """The folder's own images, or otherwise those of each of its subfolders."""
    check_folder(folder, "a run directory or a folder of images")
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    within = [(path, images) for path in inner if (images := _images(path))]
    if own := _images(folder):
        names = ", ".join(path.name for path, _ in within[:EXAMPLES_NAMED])
        notes = (f"{folder}: the images in its subfolders ({names}) are left out; name the subfolders to include them",)
        return [ImageSource(folder, own, notes=notes if within else ())]
    runs = [str(path) for path in inner if (path / RUN).exists()]
    if runs:
        raise UserError(f"{folder}: found runs in it; name them directly, such as {', '.join(runs[:EXAMPLES_NAMED])}")
    if not within:
        raise UserError(f"{folder}: found no images and no {RUN}; expected a run directory or a folder of images")
    return [ImageSource(path, images) for path, images in within]


def _images(folder: Path) -> tuple[Candidate, ...]:
    try:
        return tuple(Candidate(file, frozenset(METRICS)) for file in list_images(folder))
    except UserError:  # there are no images
        return ()


def _group_by_person(sources: Iterable[ImageSource]) -> list[list[ImageSource]]:
    """Groups of sources that share photos with the same SHA-256, directly or indirectly."""
    groups: list[tuple[set[str], list[ImageSource]]] = []
    for source in sources:
        linked, members, apart = {digest for _, digest in source.photos}, [source], []
        for digests, group in groups:
            if digests & linked:
                linked, members = linked | digests, [*group, *members]
            else:
                apart.append((digests, group))
        groups = [*apart, (linked, members)]
    return [group for _, group in groups]


def _home(group: Sequence[ImageSource]) -> Path:
    """The folder that a person is named after: the one with most of the photos, or the first source itself."""
    folders = Counter(file.parent for source in group for file, _ in source.photos if file.parent != Path())
    home = folders.most_common(1)[0][0] if folders else group[0].folder
    return Path(os.path.abspath(home))


def _name(home: Path) -> str:
    return printable(home.name or str(home))


def _names(homes: Sequence[Path]) -> list[str]:
    """A name for each folder: its own, if necessary with its parent's, or with a number."""
    short = [_name(home) for home in homes]
    longer = [
        f"{_name(home.parent)}/{name}" if short.count(name) > 1 else name
        for home, name in zip(homes, short, strict=True)
    ]
    names: list[str] = []
    for name in longer:
        numbered = chain([name], (f"{name}-{number}" for number in count(2)))
        names.append(next(one for one in numbered if one not in names))
    return names


def _person(name: str, group: Sequence[ImageSource], given: Path | None) -> tuple[Person, list[str]]:
    """One person with notes.

    Raises:
        UserError: the recorded photos are missing, or nothing can be rated without photos.
    """
    images = tuple(image for source in group for image in source.images)
    if not any(SIMILARITY in image.metrics for image in images):
        notes = [f"{name}: photos are not needed because there are no scores of {SIMILARITY}"] if given else []
        return Person(name, images, ()), notes
    photos, notes = _find_photos(name, group, given)
    if photos:
        return Person(name, images, photos), notes
    images = only(images, {AESTHETIC})
    if not images:
        raise UserError(f"{name}: found no photos to compare with; name them with {_option(name)}")
    remark = f"{name}: no photos to compare with, so only {AESTHETIC} is rated; name them with {_option(name)}"
    return Person(name, images, ()), [remark]


def _find_photos(name: str, group: Sequence[ImageSource], given: Path | None) -> tuple[tuple[Path, ...], list[str]]:
    """The recorded photos, from their original path or the given folder; otherwise all in that folder, with a note."""
    places: dict[str, list[Path]] = defaultdict(list)
    for file, digest in chain.from_iterable(source.photos for source in group):
        places[digest].append(file)
    listed = list_images(given) if given else []
    deque(each_image(listed), maxlen=0)  # raises for photos that cannot be shown
    copies = {sha256(file): file for file in listed}
    found = {digest: next((f for f in files if _is(f, digest)), copies.get(digest)) for digest, files in places.items()}
    photos = tuple(file for file in found.values() if file is not None)
    lost = [files[0] for digest, files in places.items() if found[digest] is None]
    if lost and not given:
        raise UserError(
            f"{name}: {len(lost)} of {len(found)} recorded photos are missing or have changed: {_changes(lost)}; "
            f"restore them, or name their folder with {_option(name)}"
        )
    if lost:
        note = f"{name}: {len(lost)} of {len(found)} recorded photos are not in {given}; all photos there are shown"
        return tuple(listed), [note]
    unused = bool(listed and photos) and not set(photos) & set(listed)
    notes = [f"{name}: {given} is not needed because the recorded photos are still available"] if unused else []
    return photos or tuple(listed), notes


def _is(file: Path, digest: str) -> bool:
    return file.is_file() and sha256(file) == digest


def _changes(lost: Sequence[Path]) -> str:
    shown = [f"{file} ({'changed' if file.exists() else 'missing'})" for file in lost[:EXAMPLES_NAMED]]
    return ", ".join(shown + ["..."] * (len(lost) > EXAMPLES_NAMED))


def _option(name: str) -> str:
    return f"--references {shlex.quote(f'{name}=FOLDER')}"
