"""Small WebP images beside a page: made once, made anew where their source has changed."""

import errno
import os
import signal
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from enum import Enum
from functools import cache
from multiprocessing import get_context
from pathlib import Path

from tqdm.auto import tqdm

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import STAGING, sha256
from finetune_monitor.base.images import read_image, thumbnail
from finetune_monitor.record.references import reference_path
from finetune_monitor.report.page_runs import PageRun, Reference

QUALITY = 80

MANY = 200
"""Images that take long enough to be worth a progress bar."""


class Presence(str, Enum):
    """Whether a cell's image is on the page; the value is what is said of it."""

    SHOWN = "shown"
    NOT_RENDERED = "were not rendered"
    MISSING = "are missing"
    OUTSIDE = "are named by files that lie outside the run directory, and are not shown"
    UNREADABLE = "cannot be read"


Presences = Mapping[int, list[Presence]]
"""By step: one a cell, in the grid's order."""


@dataclass(frozen=True)
class Job:
    """One thumbnail to make; the target gets the source's time, by which it is known as its thumbnail."""

    source: Path
    target: Path
    changed_ns: int


@dataclass(frozen=True)
class ThumbnailPlan:
    """What one run's thumbnails need.

    presences: as far as is known without opening a file; a job that fails changes its entry.
    jobs: by step and position of the cell.
    kept: names of the thumbnails by folder, made or to be made.
    """

    presences: dict[int, list[Presence]]
    jobs: dict[tuple[int, int], Job]
    kept: dict[str, set[str]]


def plan_thumbnails(run: PageRun, folder: Path) -> ThumbnailPlan:
    """Compare a run's images with the thumbnails in `folder`."""
    plan = ThumbnailPlan({}, {}, {})
    inside = _inside(run.folder)
    for evaluation in run.evaluations:
        files = {image.cell.id: image.file for image in evaluation.images}
        name = step_folder(evaluation.step)
        there = _listed(folder / name)
        presences = [Presence.NOT_RENDERED] * len(run.cells)
        for position, cell in enumerate(run.cells):
            source = files.get(cell.id)
            if source is None:
                continue
            presences[position], changed_ns = _presence(run.folder / str(source), inside)
            if presences[position] is Presence.SHOWN and there.get(f"{cell.id}.webp") != changed_ns:
                job = Job(run.folder / str(source), folder / name / f"{cell.id}.webp", changed_ns)
                plan.jobs[evaluation.step, position] = job
        plan.presences[evaluation.step] = presences
        shown = zip(run.cells, presences, strict=True)
        plan.kept[name] = {f"{cell.id}.webp" for cell, presence in shown if presence is Presence.SHOWN}
    return plan


def step_folder(step: int) -> str:
    """The folder of one evaluation's thumbnails."""
    return f"step-{step:06d}"


def make_thumbnails(plans: Iterable[ThumbnailPlan], processes: int = 1) -> None:
    """Make what is missing, and note in the plans what cannot be made.

    Args:
        processes: to share many among; threads would not help, as Pillow reads PNG under Python's lock.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    waiting = [(plan, key, job) for plan in plans for key, job in plan.jobs.items()]
    made = _each([job for _, _, job in waiting], processes)
    bar = tqdm(made, "thumbnails", len(waiting), unit="", disable=len(waiting) < MANY, leave=False)
    for (plan, (step, position), job), success in zip(waiting, bar, strict=True):
        if not success:
            plan.presences[step][position] = Presence.UNREADABLE
            plan.kept[job.target.parent.name].discard(job.target.name)


def _each(jobs: Sequence[Job], processes: int) -> Iterator[bool]:
    if processes == 1 or len(jobs) < MANY:
        yield from map(make_thumbnail, jobs)
        return
    # A fork would take over locks that threads of this process hold.
    with ProcessPoolExecutor(processes, get_context("spawn"), _leave_interrupts_to_the_parent) as pool:
        try:
            yield from pool.map(make_thumbnail, jobs, chunksize=16)
        except BrokenProcessPool as error:
            raise ChildProcessError(errno.ECHILD, "a process that made thumbnails was killed") from error


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def make_thumbnail(job: Job) -> bool:
    """Make one, smaller than its source or as large; False where the source is no image."""
    try:
        image = read_image(job.source)
    except UserError:
        return False
    job.target.parent.mkdir(parents=True, exist_ok=True)
    staged = job.target.with_name(STAGING + job.target.name)
    # Without fsync: what a crash of the machine leaves empty is told by its size, and made again.
    thumbnail(image).save(staged, "WEBP", quality=QUALITY)
    os.utime(staged, ns=(job.changed_ns, job.changed_ns))
    staged.replace(job.target)
    return True


def reference_thumbnail(run: PageRun, reference: Reference, folder: Path) -> str | None:
    """Make a photo's thumbnail in `folder` unless it is there; its name, or None where no file of it is left."""
    own = reference_path(run.folder, reference.sha256)
    name = own.name
    if _listed(folder).get(name):
        return name
    kept = _presence(own, _inside(run.folder))[0] is Presence.SHOWN
    for source, usable in ((own, kept), (Path(reference.file), not kept and _is_unchanged(reference))):
        if usable and make_thumbnail(Job(source, folder / name, source.stat().st_mtime_ns)):
            return name
    return None


def _is_unchanged(reference: Reference) -> bool:
    """Whether the photo that was used is still where it was."""
    file = Path(reference.file)
    try:
        return file.is_file() and sha256(file) == reference.sha256
    except OSError:
        return False


def _inside(run_dir: Path) -> Callable[[Path], bool]:
    """Whether a folder lies in the run directory, links followed; the answers are kept, as all images ask."""
    root = run_dir.resolve()

    @cache
    def inside(folder: Path) -> bool:
        return folder.resolve().is_relative_to(root)

    return inside


def _presence(source: Path, inside: Callable[[Path], bool]) -> tuple[Presence, int]:
    """What can be said of an image without opening it, and when it was changed last, in nanoseconds."""
    try:
        if not inside(source.parent):
            return Presence.OUTSIDE, 0
        found = source.lstat()
    except (OSError, ValueError, RuntimeError):
        return Presence.MISSING, 0
    if stat.S_ISLNK(found.st_mode):
        return Presence.OUTSIDE, 0
    return (Presence.SHOWN, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else (Presence.MISSING, 0)


def _listed(folder: Path) -> dict[str, int]:
    """Names of the files that are not empty, and their times in nanoseconds."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    except FileNotFoundError:
        return {}
    return {name: status.st_mtime_ns for name, status in found if status.st_size}
