"""Remove every image from a run directory, and keep its numbers."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_monitor.base.files import fsync, open_regular, private, staged_beside
from finetune_monitor.base.paths import Containment, links_in
from finetune_monitor.record.kept_weights import BEST, KOHYA_ENDING, LAST, SAMPLES, WEIGHTS
from finetune_monitor.record.references import REFERENCES
from finetune_monitor.record.run_directory import CONTACT_SHEET, IN_PROGRESS, RUN, lock, read_json
from finetune_monitor.record.sweep_directory import is_sweep, read_state
from finetune_monitor.sinks import wandb_opening
from finetune_monitor.sinks.console import TENSORBOARD

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

IMAGES, PAGE = "images", "page"

THUMBNAIL = "modelspec.thumbnail"
"""The key under which a LoRA file in kohya's format holds an image."""

LARGEST_HEADER = 100_000_000
"""Bytes of a safetensors header; the format allows no more."""

HELD = ("checkpoints",)
"""Folders whose lock a training holds, besides that of the run."""

RECORD = 16
"""Bytes of TensorBoard's around each record in a file: its length and two checksums."""


@dataclass(frozen=True)
class Purged:
    """How many files were removed, how many were rewritten without their images, and what may still hold some."""

    removed: int
    rewritten: int
    problems: tuple[str, ...] = ()

    def __add__(self, other: "Purged") -> "Purged":
        return Purged(self.removed + other.removed, self.rewritten + other.rewritten, (*self.problems, *other.problems))


def check_purgeable(folder: Path) -> None:
    """Before anybody is asked to confirm.

    Raises:
        UserError: the folder is neither a run's nor a sweep's.
    """
    if not is_sweep(folder):
        read_json(folder / RUN)


def purge_folder(folder: Path) -> Purged:
    """`purge_run` for a run, or for all runs of a sweep and the sweep's page.

    Raises:
        UserError: it is neither, or is in use.
        OSError: as for `purge_run`.
    """
    if not is_sweep(folder):
        return purge_run(folder)
    state = read_state(folder)
    found = Purged(0, 0)
    with lock(folder):
        runs = [run for run in map(state.run_dir, (*state.trials, *state.set_aside)) if (run / RUN).exists()]
        for run in runs:
            found += purge_run(run)
        return found + Purged(_remove(folder, folder / PAGE), 0)


def purge_run(run_dir: Path) -> Purged:
    """Remove images, thumbnails, and reference photos of a run, also in its page, TensorBoard, and W&B.

    Scores, curves, prompts, and weights stay, and so do the photos themselves, which are elsewhere.

    Raises:
        UserError: it is no run directory, or is in use.
        OSError: a file cannot be removed or rewritten; the same command can be repeated.
    """
    read_json(run_dir / RUN)
    folders = [run_dir, *(run_dir / name for name in HELD if (run_dir / name).is_dir())]
    locks = [lock(folder) for folder in folders]
    try:
        removed = sum(_remove(run_dir, folder) for folder in _folders(run_dir))
        removed += _remove_file(run_dir / CONTACT_SHEET)
        rewritten = sum(map(_without_images, _files_below(run_dir / TENSORBOARD, "*tfevents*")))
        return Purged(removed, rewritten) + sum(map(_without_thumbnail, _lora_files(run_dir)), Purged(0, 0))
    finally:
        for held in locks:
            held.close()


def _folders(run_dir: Path) -> Iterator[Path]:
    """The folders that hold nothing but images."""
    yield from (run_dir / name for name in (IMAGES, REFERENCES, PAGE, IN_PROGRESS))
    yield from (folder / SAMPLES for folder in _weights(run_dir))
    yield from (run_dir / wandb_opening.FOLDER).glob("*run-*/files/media/images")
    yield run_dir / wandb_opening.FOLDER / wandb_opening.STAGED


def _weights(run_dir: Path) -> list[Path]:
    found = [run_dir / BEST, run_dir / LAST, *run_dir.glob(f"{BEST}-step-*"), *run_dir.glob(f"{WEIGHTS}/step-*")]
    return [folder for folder in found if folder.is_dir() and not folder.is_symlink()]


def _lora_files(run_dir: Path) -> Iterator[Path]:
    for folder in _weights(run_dir):
        yield from (file for file in folder.glob(f"*{KOHYA_ENDING}") if not file.is_symlink())


def _files_below(folder: Path, pattern: str) -> list[Path]:
    """Regular files below a folder; links are not followed."""
    if folder.is_symlink():
        return []
    linked = set(links_in(folder))
    return [path for path in folder.rglob(pattern) if path.is_file() and not linked & {path, *path.parents}]


def _remove(root: Path, folder: Path) -> int:
    """Remove a folder in a root; returns the number of its files. What is behind a link stays."""
    if Containment(root).path(str(folder.relative_to(root))) is None:
        return 0
    count = sum(path.is_file() for path in folder.rglob("*"))
    if folder.exists():
        shutil.rmtree(folder)
    return count


def _remove_file(file: Path) -> int:
    """Remove a file, or a link in its place; returns how many there were."""
    found = os.path.lexists(file)
    file.unlink(missing_ok=True)
    return int(found)


def _without_thumbnail(file: Path) -> Purged:
    """Rewrite a safetensors file without the thumbnail in its header."""
    with open_regular(file) as source:
        size = int.from_bytes(source.read(8), "little")
        try:
            content = json.loads(source.read(min(size, LARGEST_HEADER)))
            about = content.get("__metadata__", {})
            has_thumbnail = THUMBNAIL in about
        except (ValueError, AttributeError, TypeError) as error:
            damaged = f"{file}: its header is damaged ({error}), and may hold an image; delete the file"
            return Purged(0, 0, (damaged,))
        if not has_thumbnail:
            return Purged(0, 0)
        del about[THUMBNAIL]
        header = json.dumps(content, ensure_ascii=False).encode()
        header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8
        staged = staged_beside(file)
        with private(), staged.open("xb") as target:
            target.write(len(header).to_bytes(8, "little") + header)
            shutil.copyfileobj(source, target)
    _replace(staged, file)
    return Purged(0, 1)


def _without_images(file: Path) -> int:
    """Rewrite a file of TensorBoard's without its images; returns 1 if it had any.

    TensorBoard reads up to the first damaged record. What is behind that may hold images, and is left out, too.
    """
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    staged, found, read = staged_beside(file), 0, 0
    with private(), staged.open("xb") as target:
        writer = RecordWriter(target)
        for record in RawEventFileLoader(str(file)).Load():
            event = Event.FromString(record)
            found += _drop_images(event)
            read += len(record) + RECORD
            writer.write(event.SerializeToString())
        writer.flush()
    if not found and read == file.stat().st_size:
        staged.unlink()
        return 0
    _replace(staged, file)
    return 1


def _drop_images(event: "Event") -> int:
    """Remove the images of an event in place; returns how many there were."""
    values = event.summary.value
    images = [index for index, value in enumerate(values) if _is_image(value)]
    for index in reversed(images):
        del values[index]
    return len(images)


def _is_image(value: "Summary.Value") -> bool:
    return bool(value.HasField("image")) or value.metadata.plugin_data.plugin_name == "images"


def _replace(staged: Path, file: Path) -> None:
    fsync(staged)
    staged.replace(file)
