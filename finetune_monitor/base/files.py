"""Write files and folders atomically: stage, fsync, rename."""

import errno
import hashlib
import logging
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, BinaryIO

from finetune_monitor.base.errors import UserError

logger = logging.getLogger(__name__)

STAGING = ".staging-"
"""Prefix of files that are still being written; after a crash, anything with this prefix can be deleted."""

KEPT_OF_NAME = 200
"""Bytes of a name that its staging name begins with; file systems allow 255."""


UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
"""The answers of file systems that cannot flush, such as some network mounts for folders."""

RUST_ERROR = re.compile(r"\(os error (\d+)\)")
"""How libraries in Rust, such as safetensors, name the system's error in the text of an exception of their own."""


def fsync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        flush(handle)
    finally:
        os.close(handle)


def flush(handle: int) -> None:
    """Flush an open file or folder to disk; where the file system cannot do that, a warning says so once."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        _say_unflushed(str(error.strerror))


@cache
def _say_unflushed(answer: str) -> None:
    """Warn once in a process."""
    logger.warning(
        "the file system cannot flush files to disk (%s); the newest files may be lost if the system crashes",
        answer,
    )


class _Umask:
    """How many blocks of `private` are running, in all threads, and the umask before the first of them."""

    lock = threading.Lock()
    blocks = 0
    former = 0


@contextmanager
def private() -> Iterator[None]:
    """Only the owner can read what is created in this block, whatever the umask; files are 0600 and folders 0700."""
    with _Umask.lock:
        if _Umask.blocks == 0:
            _Umask.former = os.umask(0o077)
        _Umask.blocks += 1
    try:
        yield
    finally:
        with _Umask.lock:
            _Umask.blocks -= 1
            if _Umask.blocks == 0:
                os.umask(_Umask.former)


def make_private(folder: Path) -> None:
    """Create a folder that only its owner can read, unless it exists."""
    with private():
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading that anybody may have put there: a pipe or a device is an error, and never waited for.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a NUL character in the name
        raise OSError(errno.EINVAL, str(error)) from error
    with open(handle, "rb") as file:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        yield file


def read_regular(path: Path, most: int | None = None) -> bytes:
    """The content of a regular file.

    Args:
        most: in bytes.

    Raises:
        OSError: it cannot be read, is not a regular file, or is larger.
    """
    with open_regular(path) as file:
        content = file.read() if most is None else file.read(most + 1)
    if most is not None and len(content) > most:
        raise OSError(errno.EFBIG, f"it has over {most:,} bytes")
    return content


def open_own(path: Path) -> IO[str]:
    """Open a file of ours to lock it and to write in it; it is created if there is none.

    Raises:
        OSError: it is a link, has a second name elsewhere, or is not a file: writing would change something else.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(path, flags, 0o600)
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(handle)
        raise OSError(errno.EMLINK, "it is not a file of its own")
    return open(handle, "a+")


def staged_beside(path: Path) -> Path:
    """A new name in the same folder, which nobody can have put a link at."""
    kept = os.fsdecode(os.fsencode(path.name)[:KEPT_OF_NAME])
    return path.with_name(f"{STAGING}{kept}-{secrets.token_hex(4)}")


def _litter(target: Path) -> list[Path]:
    """What an earlier process has left of this target; links are not ours."""
    name = re.escape(os.fsdecode(os.fsencode(target.name)[:KEPT_OF_NAME]))
    ours = re.compile(f"{re.escape(STAGING)}(old-)?{name}(-[0-9a-f]{{8}})?")
    return [path for path in target.parent.glob(f"{STAGING}*") if ours.fullmatch(path.name) and not path.is_symlink()]


def write_atomic(path: Path, content: bytes) -> None:
    """Replace `path` atomically: after a crash, and for any reader, it holds either the old or the new content.

    Only the owner can read it.
    """
    make_private(path.parent)
    with _staged_file(path, content) as staged:
        fsync(staged)
    fsync(path.parent)


def check_named(path: Path) -> None:
    """Check, before the work, that a file that the user named can be written.

    Raises:
        UserError: it is a folder or a device, or its folder cannot be written to or, if there is none, created.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder, expected a file; name a file in it")
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is not a regular file, expected one or a new name; choose another place")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            number = errno.EACCES if folder.is_dir() else errno.ENOTDIR
            raise OSError(number, os.strerror(number))
    except OSError as error:
        raise _unwritable(path, error) from error


def write_named(path: Path, content: bytes) -> None:
    """Write a file that the user named.

    Raises:
        UserError: it cannot be written.
    """
    try:
        write_atomic(path, content)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot write it ({error.strerror}); choose another place")


def write_unflushed(path: Path, content: bytes) -> None:
    """Replace `path` for every reader at once, without waiting for the disk: a crash of the system may lose it.

    Only the owner can read it.
    """
    with _staged_file(path, content):
        pass


@contextmanager
def _staged_file(path: Path, content: bytes) -> Iterator[Path]:
    """A file with the content beside `path`, which it replaces after the block."""
    staged = staged_beside(path)
    try:
        with open(staged, "xb", opener=_for_owner) as file:  # never follows a link that is already there
            file.write(content)
        yield staged
        staged.replace(path)
    except BaseException as error:
        staged.unlink(missing_ok=True)
        _name(path, error)
        raise


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _name(path: Path, error: BaseException) -> None:
    """Say in an error of a full disk what was written; Python names only files that cannot be opened."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        error.filename = str(path)


def claim(folder: Path, names: Sequence[str]) -> None:
    """Create a folder for results, and check that none of these files in it would be overwritten.

    Raises:
        UserError: one of the files exists, or the folder cannot be created.
    """
    for name in names:
        if (folder / name).exists():
            raise UserError(
                f"{folder}: found {name}, which would be overwritten; choose another folder or move the file"
            )
    try:
        make_private(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot create the folder ({error.strerror}); expected a place for results"
        ) from error


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield a private folder to fill. It replaces `target` if the block succeeds and is deleted otherwise.

    Raises:
        OSError: it cannot be written, whatever the exception of the library that wrote.
    """
    make_private(target.parent)
    staged, old = staged_beside(target), staged_beside(target.with_name(f"old-{target.name}"))
    for litter in _litter(target):
        shutil.rmtree(litter, ignore_errors=True)
    make_private(staged)
    try:
        with private():
            yield staged
        for path in (*staged.rglob("*"), staged):
            fsync(path)
        if os.path.lexists(target):
            target.rename(old)
        staged.rename(target)
    except BaseException as error:
        shutil.rmtree(staged, ignore_errors=True)
        if os.path.lexists(old) and not os.path.lexists(target):
            old.rename(target)
        if found := RUST_ERROR.search(str(error)):
            number = int(found[1])
            raise OSError(number, os.strerror(number), str(target)) from error
        _name(target, error)
        raise
    fsync(target.parent)
    if old.is_symlink():
        old.unlink()
    shutil.rmtree(old, ignore_errors=True)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a regular file's content."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
