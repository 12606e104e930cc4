"""Embed every image only once, regardless of its name and of interruptions."""

import os
import stat
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from finetune_monitor.base.batching import Batches
from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.base.images import read_image
from finetune_monitor.base.workers import Workers
from finetune_monitor.models.clip import ClipEncoder, ClipSource
from finetune_monitor.studies.aesthetic_head.embedding_store import (
    EmbeddingStore,
    FileState,
    Seen,
    StoreWriter,
    file_state,
)

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

WORKERS = min(8, CORES)
"""Processes that read and decode; a GPU would wait for fewer, and more only use memory."""

NARROWEST = 100
"""Maximum ratio of the longer side to the shorter."""

CHUNK = 16
"""Images that a worker passes on at once, 10 MB at 224 px; two such batches are queued per worker."""


@dataclass(frozen=True)
class Embedded:
    """Which embeddings belong to the requested files.

    digests: hexadecimal SHA-256 of each file's content, in the requested order; None if the file is not usable.
    problems: the reason for each of those, naming the file.
    """

    digests: list[str | None]
    problems: dict[Path, str]


@dataclass(frozen=True)
class ImageToEmbed:
    """A file as read by a worker.

    state: None if the failure may be temporary, as with a network drive, so that the file is retried next time.
    pixels: for CLIP; None if the file is not usable, or if its embedding is known.
    """

    path: Path
    seen: Seen
    state: FileState | None = None
    pixels: Float32[np.ndarray, "3 h w"] | None = None


@dataclass(frozen=True)
class ImageFiles(Dataset[ImageToEmbed]):
    """Files that are read on demand; an unusable file is a result, never an exception."""

    paths: Sequence[Path]
    preprocess: Callable[[Image], Tensor]
    known: frozenset[str]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> ImageToEmbed:
        path = self.paths[index]
        try:
            return self._read(path)
        except Exception as error:  # one bad file in a quarter of a million must not stop the work
            return ImageToEmbed(path, Seen(problem=f"{path}: cannot read it ({error!r}); check the file"))

    def _read(self, path: Path) -> ImageToEmbed:
        state, digest = file_state(path), sha256(path)
        image = ImageToEmbed(path, Seen(digest), state)
        if digest not in self.known:
            try:  # the second read comes from memory: the system has just read the file
                image = replace(image, pixels=self.preprocess(_not_too_narrow(path, read_image(path))).numpy())
            except UserError as error:
                passing = (
                    getattr(error.__cause__, "errno", None) is not None
                )  # a failure of the system, not of the file
                image = ImageToEmbed(path, Seen(problem=str(error)), None if passing else state)
        if file_state(path) != state:
            return ImageToEmbed(
                path, Seen(problem=f"{path}: changed while it was being read; run the same command again")
            )
        return image


def embed_images(
    paths: Sequence[Path],
    clip: ClipSource,
    root: Path,
    device: str | torch.device = "cpu",
    workers: int = WORKERS,
) -> tuple[EmbeddingStore, Embedded]:
    """CLIP embeddings of image files, from the store, or computed and stored.

    A file that has not changed, by size and time, is not read again; an image whose content is known under a different
    name is read but not encoded; CLIP is loaded only if something remains. After an interruption, even a kill, it
    resumes where it stopped. Images are processed in batches; torch's random state is not changed.

    Args:
        paths: any number of image files.
        clip: the result of `resolve_clip`.
        root: the folder of the stores, one for each CLIP.
        device: the device that CLIP runs on.
        workers: processes that read the files; 0 reads them in this process.

    Raises:
        UserError: another process is embedding into the store, the disk cannot be written, or a process that reads
            files has ended.
    """
    store = EmbeddingStore(root, clip)
    states, seen = _look(paths)
    seen |= store.seen(states)
    if len(seen) < len(states.keys() | seen.keys()):
        with store.writing() as writer:
            seen |= store.seen(states)  # another process may have been writing until now
            todo = [path for path in states if path not in seen]
            with tqdm(total=len(seen) + len(todo), initial=len(seen), desc="embedding", unit="image") as bar:
                for group in _embed(todo, clip, device, workers, store, writer):
                    seen |= group
                    bar.update(len(group))
    problems = {path: entry.problem for path, entry in seen.items() if entry.problem is not None}
    return store, Embedded([seen[path].digest for path in paths], problems)


def _look(paths: Sequence[Path]) -> tuple[dict[Path, FileState], dict[Path, Seen]]:
    """The states of files, and the problems with paths that are not files."""
    states, problems = {}, {}
    for path in dict.fromkeys(paths):
        try:
            found = path.stat()
        except OSError as error:
            problems[path] = Seen(problem=f"{path}: {error.strerror or error}; expected an image")
            continue
        if stat.S_ISREG(found.st_mode):
            states[path] = FileState(found.st_size, found.st_mtime_ns)
        else:
            problems[path] = Seen(problem=f"{path}: not a file; expected an image")
    return states, problems


def _embed(
    paths: Sequence[Path],
    clip: ClipSource,
    device: str | torch.device,
    workers: int,
    store: EmbeddingStore,
    writer: StoreWriter,
) -> Iterator[dict[Path, Seen]]:
    """Embed files into a store in batches; returns the result for each."""
    if not paths:
        return
    encoder = ClipEncoder(clip, device=device)
    first = 16 if encoder.device.type == "cpu" else 64
    batches = Batches(first, "images")

    def encode(batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(encoder.encode(torch.from_numpy(np.stack(batch))).cpu().numpy())

    with closing(_read_all(ImageFiles(paths, encoder.preprocess, store.known()), workers)) as images:
        while group := list(islice(images, first)):
            new = _new(group, store)
            writer.add(list(new), batches.map(list(new.values()), encode))
            for image in group:
                if image.state is not None:
                    writer.note(image.path, image.state, image.seen)
            writer.save_if_due()
            yield {image.path: image.seen for image in group}


def _new(group: Sequence[ImageToEmbed], store: EmbeddingStore) -> dict[str, np.ndarray]:
    """The pixels to encode: content that several files share is encoded once."""
    new = {}
    for image in group:
        digest = image.seen.digest
        if digest is not None and image.pixels is not None and digest not in store:
            new[digest] = image.pixels
    return new


def _not_too_narrow(path: Path, image: Image) -> Image:
    """The image, unless it is too narrow: CLIP's preprocessing would enlarge a line of pixels to gigabytes."""
    if max(image.size) > NARROWEST * min(image.size):
        raise UserError(
            f"{path}: found {image.width} x {image.height} pixels, expected sides of at most 1 to {NARROWEST}"
        )
    return image


def _read_all(images: ImageFiles, workers: int) -> Generator[ImageToEmbed, None, None]:
    """The files in order, read ahead by other processes unless there are too few.

    Pixels are NumPy arrays sent through pipes: tensors would need shared memory, of which a container has only 64 MB.
    """
    loader = DataLoader(
        images,
        batch_size=CHUNK,
        collate_fn=list,
        num_workers=min(workers, len(images) // CHUNK),
        worker_init_fn=_follow_the_parent,
        generator=torch.Generator(),  # not torch's default generator, whose state it would change
    )
    if loader.num_workers:
        with Workers[list[ImageToEmbed]](loader, "--workers") as groups:
            yield from chain.from_iterable(groups)
    else:
        yield from chain.from_iterable(loader)


def _follow_the_parent(worker: int) -> None:
    """Make a worker exit when the parent is gone.

    DataLoader's own check for a killed parent does not stop a worker that is blocked on a full pipe.
    """
    threading.Thread(target=_end_after, args=(os.getppid(),), daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
