"""Write the folder of a page: static files, data as scripts, thumbnails; only changed files are rewritten."""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL.Image import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import make_private, open_own, write_atomic
from finetune_monitor.base.locks import try_lock
from finetune_monitor.base.paths import links_in
from finetune_monitor.record.kept_weights import BEST, LAST, WEIGHTS
from finetune_monitor.record.references import REFERENCES
from finetune_monitor.record.run_directory import EVALUATIONS, RUN
from finetune_monitor.report.data_scripts import call
from finetune_monitor.report.manifest import FORMAT, RunFiles, manifest, now, on_demand
from finetune_monitor.report.page_runs import PageRun, Unreadable, read_runs
from finetune_monitor.report.thumbnails import (
    ThumbnailPlan,
    contact_sheet_copy,
    make_thumbnails,
    plan_thumbnails,
    reference_thumbnail,
)

STATIC = Path(__file__).parent / "page"
INDEX, PLOTLY, LOCK = "index.html", "plotly.min.js", ".lock"
MANIFEST = Path("data") / "runs.js"

PLACEHOLDERS = b"<!-- plotly placeholders -->"

TAKEN = frozenset({"images", "references", "checkpoints", BEST, WEIGHTS, LAST, "tensorboard", "wandb"})
"""Folders of a run directory that others may replace or empty."""

RUN_ID_PATTERN = re.compile("[0-9a-f]{8}")


@dataclass(frozen=True)
class Written:
    """The content of a written page."""

    runs: int
    evaluations: int
    images: int
    unreadable: tuple[Unreadable, ...] = ()


def write_page(
    folder: Path,
    run_dirs: Sequence[Path],
    sweep: Mapping[str, Any] | None = None,
    processes: int = 1,
    decoded: Mapping[Path, Image] | None = None,
) -> Written:
    """Write the page of these runs, or update the one in `folder`; the runs are not changed.

    Args:
        run_dirs: run directories, including those of runs in progress; the page lists what cannot be read.
        sweep: the result of `Answer.to_json`; the `folder` of its trials is a path in `run_dirs` as text.
        processes: used to make many thumbnails; with more than one, the caller's main module must be importable.
        decoded: the content in RGB of recorded images that need not be read.

    Raises:
        UserError: none of the runs can be read, or `folder` holds something other than a page.
        OSError: the page cannot be written completely, or another process is writing it; the next call continues.
    """
    runs, unreadable = read_runs(run_dirs)
    _claim(folder)
    with _locked(folder):
        _write_static(folder)
        plans = {run.id: plan_thumbnails(run, folder / "thumbnails" / run.id) for run in runs}
        make_thumbnails(plans.values(), processes, decoded)
        files = {run.id: _files(run, folder) for run in runs}
        presences = {run.id: plans[run.id].presences for run in runs}
        full = {run.id: part.presences for run in runs if (part := plans[run.id].at_full_quality) is not None}
        for run in runs:
            _write_changed(
                folder / "data" / f"{run.id}.js",
                call("images", run.id, on_demand(run, presences[run.id], full.get(run.id, {}))),
            )
        content = manifest(runs, unreadable, presences, files, sweep)
        write_atomic(folder / MANIFEST, call("manifest", content))
        _remove_stale(folder, plans, files)
    images = sum(len(names) for plan in plans.values() for part in plan.parts for names in part.kept.values())
    return Written(len(runs), sum(len(run.evaluations) for run in runs), images, tuple(unreadable))


def _claim(folder: Path) -> None:
    """Check that the folder holds nothing but a page, and mark it as one before the long work starts."""
    _keep_out_of_runs(folder)
    try:
        make_private(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot create the folder ({error.strerror}); expected a place for the page"
        ) from error
    if planted := next(links_in(folder), None):
        raise UserError(f"{planted}: found a link, expected only what earlier reports wrote; remove it")
    if (folder / MANIFEST).is_file():
        return
    others = sorted(path.name for path in folder.iterdir() if path.name != LOCK)
    if others:
        raise UserError(f"{folder}: found {others[0]}, expected a page or an empty folder; choose another one")
    write_atomic(folder / MANIFEST, call("manifest", _empty()))


def _keep_out_of_runs(folder: Path) -> None:
    place = Path(os.path.realpath(folder))
    if (place / RUN).exists() or (place / EVALUATIONS).exists():
        raise UserError(f"{folder}: is a run directory, expected a separate folder for the page, such as page in it")
    for parent in place.parents:
        if (parent / RUN).is_file() and place.relative_to(parent).parts[0] in TAKEN:
            raise UserError(f"{folder}: belongs to the run in {parent}, expected a separate folder for the page")


def _empty() -> dict[str, Any]:
    """The manifest of a page that is being written for the first time."""
    lists: dict[str, Any] = {key: [] for key in ("metrics", "cells", "unreadable", "runs")}
    notes = ["the page is being written"]
    return {"format": FORMAT, "written": now(), "title": "", "live": True, "notes": notes, "sweep": None, **lists}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the page: training and a command may write the same one. Neither waits, as that could take minutes."""
    with open_own(folder / LOCK) as file:
        if not try_lock(file):
            raise BlockingIOError(errno.EWOULDBLOCK, "another process is writing it", str(folder))
        yield


def _write_static(folder: Path) -> None:
    """Write the page's own files, which are the same for every report."""
    for path in STATIC.glob("*"):
        content = path.read_bytes()
        _write_changed(folder / path.name, finished(content) if path.name == INDEX else content)
    source, target = _plotly(), folder / PLOTLY
    if not target.is_file() or target.stat().st_size != source.stat().st_size:
        write_atomic(target, source.read_bytes())


def finished(index: bytes) -> bytes:
    """`index.html` with elements that keep plotly's map library from adding styles, which the policy forbids."""
    return index.replace(PLACEHOLDERS, b"".join(b'<meta id="%s">' % identity for identity in _placeholders()))


@cache
def _placeholders() -> tuple[bytes, ...]:
    found = re.findall(rb'getElementById\("([0-9a-f]{64})"\)', _plotly().read_bytes())
    return tuple(dict.fromkeys(found))


def _plotly() -> Path:
    """The JavaScript file of the installed package, found without importing it."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise UserError("found no plotly, which the page's charts need; pip install plotly")
    return Path(spec.origin).parent / "package_data" / PLOTLY


def _write_changed(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        write_atomic(path, content)


def _files(run: PageRun, folder: Path) -> RunFiles:
    """Make thumbnails of the reference photos, and copy the contact sheet."""
    place = Path("thumbnails") / run.id / REFERENCES

    def below(name: str | None) -> str | None:
        return None if name is None else (place / name).as_posix()

    photos = [below(reference_thumbnail(run, reference, folder / place)) for reference in run.references]
    way = Path(os.path.relpath(os.path.realpath(run.folder), os.path.realpath(folder)))
    return RunFiles(photos, below(contact_sheet_copy(run, folder / place)), way.as_posix())


def _remove_stale(folder: Path, plans: Mapping[str, ThumbnailPlan], files: Mapping[str, RunFiles]) -> None:
    """Remove runs that are no longer on the page, and steps and images that are no longer recorded."""
    for path in [*(folder / "data").glob("*.js"), *(folder / "thumbnails").glob("*")]:
        if RUN_ID_PATTERN.fullmatch(path.stem) and path.stem not in plans:
            _remove(path)
    for identity, plan in plans.items():
        photos = {Path(photo).name for photo in (*files[identity].photos, files[identity].sheet) if photo}
        kept = {name: names for part in plan.parts for name, names in part.kept.items()} | {REFERENCES: photos}
        for inner in (folder / "thumbnails" / identity).glob("*"):
            names = kept.get(inner.name, set())
            for path in [path for path in inner.glob("*") if path.name not in names] if names else [inner]:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
