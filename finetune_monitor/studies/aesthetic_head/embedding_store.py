"""CLIP embeddings on disk, keyed by the content of their images: never computed twice, intact after any crash."""

import hashlib
import json
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float16, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import STAGING, open_own, write_atomic
from finetune_monitor.base.locks import try_lock, unlock
from finetune_monitor.models.clip import ClipSource, clip_width

logger = logging.getLogger(__name__)

STORE_VERSION = 1

SHARD_ROWS = 8192
"""12 MB for ViT-L/14: rewriting the newest shard every minute is cheap, and 250,000 rows take only 32 files."""

SAVE_SECONDS = 60.0
"""The maximum time of work that a killed process loses."""

FILES = "files.sqlite"

_SHARD = re.compile(r"shard-(\d{5,})\.safetensors")

_TABLE = (
    "CREATE TABLE IF NOT EXISTS files "  # paths are bytes, because a file name may not be valid text
    "(path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT, problem TEXT) WITHOUT ROWID"
)


class FileState(NamedTuple):
    """The state by which an unchanged file is recognized without reading it."""

    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Seen:
    """The recorded result for an image file: the hexadecimal SHA-256 of its content, or why it is not usable."""

    digest: str | None = None
    problem: str | None = None


class EmbeddingStore:
    """The L2-normalized embeddings of one CLIP, in its own folder below `root`.

    They are stored in float16: this halves disk and memory use, and rounding changes a head's score by about 0.0001.
    Reading needs no lock, and works while another process is writing.

    Args:
        root: the folder of the stores of all CLIPs.
        clip: the CLIP of this store.

    Raises:
        UserError: the store has a different version, or cannot be read.
    """

    def __init__(self, root: Path, clip: ClipSource) -> None:
        self.clip, self.width = clip, clip_width(clip)
        self.folder = _folder(root, clip)
        self._places: dict[str, tuple[int, int]] = {}
        _check_version(self.folder)
        for number, file in self._shards():
            self._index(number, _digests(file, self.width) or [])

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, digest: str) -> bool:
        return digest in self._places

    def known(self) -> frozenset[str]:
        """Hexadecimal SHA-256 of every image file with an embedding in the store."""
        return frozenset(self._places)

    def rows(self, digests: Sequence[str]) -> Float16[np.ndarray, "n d"]:
        """The saved embeddings of these contents, in order, with one shard in memory at a time.

        Raises:
            KeyError: one of them is not in the store.
            UserError: a shard was damaged after the store was opened.
        """
        found = np.empty((len(digests), self.width), dtype=np.float16)
        places = np.array([self._places[digest] for digest in digests], dtype=np.int64).reshape(-1, 2)
        wanted = _from_hex(digests)
        for number in np.unique(places[:, 0]).tolist():
            here = np.flatnonzero(places[:, 0] == number)
            rows = places[here, 1]
            embeddings, contents = _read(self._file(number), int(rows.max()) + 1)
            if not np.array_equal(contents[rows], wanted[here]):
                raise UserError(f"{self._file(number)}: changed while it was being read; run the same command again")
            found[here] = embeddings[rows]
        return found

    def seen(self, states: Mapping[Path, FileState]) -> dict[Path, Seen]:
        """The recorded results for files that have not changed since, without opening any file.

        Files whose embedding was lost are not included. Problems are recorded too; to retry such files, for example
        with a newer Pillow, delete files.sqlite.
        """
        if not (self.folder / FILES).is_file():
            return {}
        found = {}
        try:
            with _database(self.folder / FILES) as database:
                for path, state in states.items():
                    query = "SELECT sha256, problem FROM files WHERE path = ? AND size = ? AND mtime_ns = ?"
                    row = database.execute(query, (_key(path), *state)).fetchone()
                    if row is not None and (row[0] is None or row[0] in self):
                        found[path] = Seen(*row)
        except sqlite3.OperationalError as error:
            raise UserError(f"{self.folder / FILES}: cannot read it ({error}); try again") from error
        except sqlite3.DatabaseError:  # damaged: the writer moves it aside
            return {}
        return found

    @contextmanager
    def writing(self) -> Iterator["StoreWriter"]:
        """Add to the store as its only writer; everything added is saved at the end, even after an exception.

        Raises:
            UserError: another process is writing, or the disk cannot be written.
        """
        with _disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = open_own(self.folder / "lock")
            if not try_lock(lock):
                lock.close()
                raise UserError(f"{self.folder}: another process is embedding into this folder; wait for it or stop it")
        try:
            writer = StoreWriter(self)
            try:
                yield writer
            finally:
                writer.save()
        finally:
            unlock(lock)

    def _repair(self) -> None:
        """Move damaged files aside, remove leftovers, and load what others have written; needs the lock."""
        for litter in self.folder.glob(f"{STAGING}*"):
            litter.unlink()
        if not (self.folder / "store.json").is_file():
            write_atomic(self.folder / "store.json", self._description())
        self._places.clear()
        for number, file in self._shards():
            digests = _digests(file, self.width)
            if digests is None:
                _set_aside(file, "its embeddings will be computed again")
            else:
                self._index(number, digests)
        if _is_damaged(self.folder / FILES):
            _set_aside(self.folder / FILES, "all files will be read again; embeddings are kept")
            (self.folder / f"{FILES}-journal").unlink(missing_ok=True)

    def _description(self) -> bytes:
        content = {
            "version": STORE_VERSION,
            "clip": self.clip.id,
            "sha256": self.clip.sha256,
            "width": self.width,
            "dtype": "float16",
        }
        return (json.dumps(content, indent=2) + "\n").encode()

    def _shards(self) -> list[tuple[int, Path]]:
        if not self.folder.is_dir():
            return []
        matches = [_SHARD.fullmatch(path.name) for path in self.folder.iterdir()]
        return sorted((int(match[1]), self.folder / match[0]) for match in matches if match)

    def _file(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.safetensors"

    def _index(self, number: int, digests: Sequence[str], first: int = 0) -> None:
        self._places.update((digest, (number, row)) for row, digest in enumerate(digests, first))


class StoreWriter:
    """Appends to a store: to its newest shard until that is full, then to a new one.

    Created by `EmbeddingStore.writing`. Added embeddings are in the store immediately, and can be read once saved.
    """

    def __init__(self, store: EmbeddingStore) -> None:
        self._store, self._saved_at = store, time.monotonic()
        self._embeddings = np.empty((SHARD_ROWS, store.width), dtype=np.float16)
        self._digests: list[str] = []
        self._unsaved = 0
        self._notes: list[tuple[bytes, int, int, str | None, str | None]] = []
        with _disk_errors(store.folder):
            store._repair()
            self._number = self._reopen(store._shards())

    def _reopen(self, shards: Sequence[tuple[int, Path]]) -> int:
        """The number of the shard to append to: the newest with its content, or the next one if that is full."""
        if not shards:
            return 0
        number, file = shards[-1]
        embeddings, contents = _read(file)
        if len(embeddings) >= SHARD_ROWS:
            return number + 1
        self._digests = _to_hex(contents)
        self._embeddings[: len(embeddings)] = embeddings
        return number

    def add(self, digests: Sequence[str], embeddings: Sequence[Float[np.ndarray, "d"]]) -> None:
        """Add embeddings, keyed by the contents of their images."""
        for digest, row in zip(digests, embeddings, strict=True):
            self._embeddings[len(self._digests)] = row
            self._store._index(self._number, [digest], len(self._digests))
            self._digests.append(digest)
            self._unsaved += 1
            if len(self._digests) == SHARD_ROWS:
                with _disk_errors(self._store.folder):
                    self._write_shard()
                self._number, self._digests = self._number + 1, []

    def note(self, path: Path, state: FileState, seen: Seen) -> None:
        """Record the result for a file; its embedding, if any, was added before."""
        problem = seen.problem and seen.problem.encode(errors="backslashreplace").decode()
        self._notes.append((_key(path), *state, seen.digest, problem))

    def save_if_due(self) -> None:
        """Save if the last save was more than a minute ago."""
        if time.monotonic() - self._saved_at >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write everything added since the last save: first the embeddings, then the files that they belong to."""
        with _disk_errors(self._store.folder):
            self._write_shard()
            if self._notes:
                with _database(self._store.folder / FILES) as database:
                    database.executemany("REPLACE INTO files VALUES (?, ?, ?, ?, ?)", self._notes)
        self._notes = []
        self._saved_at = time.monotonic()

    def _write_shard(self) -> None:
        if self._unsaved:
            rows = {"embeddings": self._embeddings[: len(self._digests)], "sha256": _from_hex(self._digests)}
            write_atomic(self._store._file(self._number), save(rows))
            self._unsaved = 0


def file_state(path: Path) -> FileState:
    """The size and modification time of a file, which change when its content does."""
    found = path.stat()
    return FileState(found.st_size, found.st_mtime_ns)


def _folder(root: Path, clip: ClipSource) -> Path:
    """A folder keyed by everything that affects an embedding: weights, model, and preprocessing, but not paths."""
    settings = {key: value for key, value in clip.arguments.items() if key not in ("model_name", "pretrained")}
    if clip.tag is None:
        name, model = Path(clip.id).resolve().name, (clip.file.parent / "open_clip_config.json").read_text()
    else:
        name, model = clip.id, clip.arguments["model_name"]
    identity = json.dumps([clip.sha256, model, settings], sort_keys=True)
    short = hashlib.sha256(identity.encode()).hexdigest()[:12]
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", name)[:40].strip("-.") or "clip"
    existing = sorted(root.glob(f"*-{short}"))  # including that of a CLIP whose folder has been renamed
    return existing[0] if existing else root / f"{slug}-{short}"


def _check_version(folder: Path) -> None:
    file = folder / "store.json"
    if not file.is_file():
        return
    try:
        version = json.loads(file.read_text())["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: damaged ({error!r}); remove {folder} to compute its embeddings again") from error
    if version != STORE_VERSION:
        raise UserError(
            f"{file}: found version {version}, expected {STORE_VERSION}; use the version of finetune_monitor that "
            f"wrote it, or remove {folder} to compute its embeddings again"
        )


def _digests(file: Path, width: int) -> list[str] | None:
    """The contents with embeddings in a shard; None if it is damaged."""
    try:
        with safe_open(file, "np") as shard:
            contents = shard.get_tensor("sha256")
            embeddings = shard.get_slice("embeddings")
            if (embeddings.get_shape(), embeddings.get_dtype()) != ([len(contents), width], "F16"):
                return None
    except (SafetensorError, FileNotFoundError):  # or another process has just moved it aside
        return None
    return _to_hex(contents) if contents.dtype == np.uint8 and contents.shape[1:] == (32,) else None


def _read(file: Path, count: int | None = None) -> tuple[Float16[np.ndarray, "n d"], UInt8[np.ndarray, "n 32"]]:
    """The embeddings of a shard and the contents that they belong to: all, or the first `count`."""
    try:
        with safe_open(file, "np") as shard:
            return shard.get_slice("embeddings")[:count], shard.get_slice("sha256")[:count]
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: cannot read it ({error}); run the same command again to repair it") from error


def _to_hex(contents: UInt8[np.ndarray, "n 32"]) -> list[str]:
    text = contents.tobytes().hex()
    return [text[start : start + 64] for start in range(0, len(text), 64)]


def _from_hex(digests: Iterable[str]) -> UInt8[np.ndarray, "n 32"]:
    return np.frombuffer(bytes.fromhex("".join(digests)), dtype=np.uint8).reshape(-1, 32)


def _key(path: Path) -> bytes:
    return os.fsencode(os.path.abspath(path))


@contextmanager
def _database(file: Path) -> Iterator[sqlite3.Connection]:
    """A short-lived connection, so that no other process, including forks of this one, ever holds it."""
    with closing(sqlite3.connect(file, timeout=SAVE_SECONDS)) as database:
        database.execute(_TABLE)
        with database:
            yield database


def _is_damaged(file: Path) -> bool:
    if not file.is_file():
        return False
    try:
        with _database(file) as database:
            return bool(database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",))
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return True


def _set_aside(file: Path, consequence: str) -> None:
    aside = file.with_name(f"{file.name}.damaged")
    file.replace(aside)
    logger.warning("%s: damaged, moved to %s; %s", file, aside.name, consequence)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full or read-only disk into an error that the user can fix."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        raise UserError(
            f"{folder}: cannot save the embeddings ({error}); free some space or choose another folder, then run the "
            "same command again: it resumes from what is saved"
        ) from error
