"""The ratings of a plan in SQLite: append-only, and on disk before a labeler sees "Saved"."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import private
from finetune_monitor.studies.labeling.ratings import RATING_COLUMNS, Rating

RATINGS = "ratings.sqlite"

RATINGS_FORMAT = 1

PATIENCE = 10.0
"""Seconds to wait for another process that is writing."""

_TABLE = (
    "CREATE TABLE IF NOT EXISTS ratings "
    "(number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, image_id TEXT NOT NULL, labeler TEXT NOT NULL, "
    "metric TEXT NOT NULL, label INTEGER NOT NULL CHECK (label BETWEEN 1 AND 5), timestamp TEXT NOT NULL, "
    "duration_ms INTEGER)"
)

_ADD = (
    f"INSERT INTO ratings (key, {', '.join(RATING_COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING"
)

_ALL = f"SELECT {', '.join(RATING_COLUMNS)} FROM ratings ORDER BY number"

_OWN = "SELECT metric, image_id, label FROM ratings WHERE labeler = ? ORDER BY timestamp, number"

_LABELERS = "SELECT labeler FROM ratings GROUP BY labeler ORDER BY min(number)"


class DiskFullError(UserError):
    """The disk has no room for another rating."""


@dataclass(frozen=True)
class RatingStore:
    """The file with all ratings; any number of threads and processes may use it concurrently."""

    file: Path

    def create(self) -> None:
        """Create the file if there is none, and check that it can be written.

        Raises:
            UserError: it is damaged or has another version, or the folder is not writable.
        """
        with private(), self.connect() as database:
            if database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("integrity check failed")
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, RATINGS_FORMAT):
                raise UserError(
                    f"{self.file}: found format {version}, expected {RATINGS_FORMAT}; "
                    "use the version of finetune_monitor that wrote it"
                )
            with database:
                database.execute("BEGIN IMMEDIATE")
                database.execute(_TABLE)
                database.execute(f"PRAGMA user_version = {RATINGS_FORMAT}")

    def add(self, key: str, rating: Rating) -> None:
        """Append a rating; it is on disk when this returns.

        Args:
            key: chosen by the sender; a rating that is sent again with the same key is not added again.
            rating: the rating to add.

        Raises:
            DiskFullError: the disk is full.
            UserError: the file is damaged or not writable, or another process has locked it for too long.
        """
        with self.connect() as database, database:
            database.execute(_ADD, (key, *astuple(rating)))

    def all(self) -> list[Rating]:
        """Every rating in order of arrival; none if there is no file yet, or if it is empty.

        Raises:
            UserError: the file cannot be read.
        """
        return [Rating(*row) for row in self._rows(_ALL)]

    def latest(self, labeler: str) -> dict[tuple[str, str], int]:
        """One labeler's current answers, by metric and image_id: those given last.

        Raises:
            UserError: the file cannot be read.
        """
        return {(metric, image_id): label for metric, image_id, label in self._rows(_OWN, labeler)}

    def labelers(self) -> list[str]:
        """Everyone with a rating, in the order of their first rating.

        Raises:
            UserError: the file cannot be read.
        """
        return [name for (name,) in self._rows(_LABELERS)]

    def _rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        if not os.path.lexists(self.file) or (self.file.is_file() and self.file.stat().st_size == 0):
            return []
        with self.connect() as database:
            return database.execute(query, values).fetchall()

    @contextmanager
    def connect(self) -> Iterator[sqlite3.Connection]:
        """A new connection for every use, so that threads never share one."""
        if self.file.is_symlink():
            raise UserError(f"{self.file}: found a link, expected the file of the ratings itself; move it here")
        if self.file.exists() and not self.file.is_file():
            raise UserError(f"{self.file}: not a regular file, expected a file with ratings; move it away")
        try:
            with closing(sqlite3.connect(self.file, timeout=PATIENCE)) as database:
                database.execute("PRAGMA synchronous = EXTRA")  # FULL does not flush the removal of the journal
                yield database
        except sqlite3.IntegrityError:  # a bug here, not a problem with the file
            raise
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter where even the message is damaged
            raise _explained(self.file, error) from error


def _explained(file: Path, error: Exception) -> UserError:
    if "full" in str(error):
        return DiskFullError(f"{file}: the disk is full; free some space; earlier ratings are safe")
    if isinstance(error, sqlite3.OperationalError):
        return UserError(f"{file}: {error}; check that its folder is writable and the disk works")
    return UserError(f"{file}: damaged ({error}); restore a copy, or move it away to start over")
