"""The folder that a score is written to: which runs it holds, and which file each step of a run is."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import open_own, sha256, write_atomic
from finetune_monitor.base.image_names import files_below
from finetune_monitor.base.paths import Containment
from finetune_monitor.record.history import RunHistory, read_run
from finetune_monitor.record.rows import pretty
from finetune_monitor.record.run_directory import LOCK, OURS, RUN, SHARED, read_json

STATE = "score.json"

HERE = "."
"""The place of a run that is the only one: the folder itself is its run directory."""

UNSAFE = str.maketrans(dict.fromkeys('/\\:*?"<>|', "-"))


def source_files(folder: Path) -> list[str]:
    """Paths relative to the folder, sorted; without those in the folders of scores below it, which hold copies."""
    found = [PurePosixPath(name) for name in files_below(folder)]
    scores = {path.parent for path in found if path.name == STATE} - {PurePosixPath()}
    return [path.as_posix() for path in found if scores.isdisjoint(path.parents)]


class ScoreFolder:
    """The runs of a score, by name, in a new folder or in one that holds an earlier score of the same paths.

    Raises:
        UserError: it holds anything else, or cannot be written to.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], base: str | None) -> None:
        self.folder = folder
        asked = {"paths": [os.path.realpath(path) for path in paths], "base": base}
        self._hashed: dict[str, tuple[tuple[int, int], str]] = {}
        self._state: dict[str, Any] = {**asked, "runs": {}, "files": {}, "layouts": {}}
        if (folder / STATE).exists():
            self._state = _checked(folder, read_json(folder / STATE), asked)
        elif folder.exists():
            _check_empty(folder)
        _check_writable(folder)

    @property
    def runs(self) -> dict[str, Path]:
        """The run directories that have a record, by the name of the run."""
        found = {name: self.folder / place for name, place in self._state["runs"].items()}
        return {name: place for name, place in found.items() if (place / RUN).exists()}

    def plan(self, titles: Mapping[str, str]) -> None:
        """Give every run a place: the folder itself if it is the only one, and otherwise a folder in it.

        Args:
            titles: by run, what to call its folder.
        """
        places = self._state["runs"]
        for name, title in titles.items():
            if name not in places:
                free = _free(title.translate(UNSAFE) or "run", [*places.values(), *OURS, *SHARED])
                places[name] = HERE if not places and len(titles) == 1 else free

    def place(self, name: str) -> Path:
        """The run directory of a planned run."""
        return self.folder / str(self._state["runs"][name])

    def history(self, name: str) -> RunHistory | None:
        """The record of a run; None if there is none."""
        place = self.place(name)
        return read_run(place) if (place / RUN).exists() else None

    def files(self, name: str) -> dict[int, list[str]]:
        """The files of a run's steps."""
        return {int(step): [each["file"] for each in found] for step, found in self._entries(name).items()}

    def changed(self, name: str) -> list[str]:
        """The files that have changed since they were scored."""
        entries = [each for found in self._entries(name).values() for each in found if "sha256" in each]
        return [each["file"] for each in entries if self._is_other(each["file"], each["sha256"])]

    def _is_other(self, file: str, expected: str) -> bool:
        """Whether a file has another hash, computed when the file changes; one that is gone has not changed."""
        try:
            found = os.stat(file)
            stamp = (found.st_mtime_ns, found.st_size)
            if file not in self._hashed or self._hashed[file][0] != stamp:
                self._hashed[file] = (stamp, sha256(Path(file)))
        except OSError:
            return False
        return self._hashed[file][1] != expected

    def start(self) -> None:
        """Mark the folder as one of scores, which the same command continues."""
        self._write()

    def note(self, name: str, step: int, files: Sequence[Path], with_hash: bool) -> None:
        """Note the files of a step before it is scored."""
        entries = [{"file": os.path.abspath(file), **({"sha256": sha256(file)} if with_hash else {})} for file in files]
        self._state["files"].setdefault(name, {})[str(step)] = entries
        self._write()

    def layout(self, name: str) -> object:
        """What `keep_layout` noted for a run; None if nothing was."""
        return self._state.get("layouts", {}).get(name)

    def keep_layout(self, name: str, layout: Mapping[str, Any]) -> None:
        """Note which images the cells of a new run are for."""
        self._state.setdefault("layouts", {})[name] = layout
        self._write()

    def _entries(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._state["files"].get(name, {})
        return found

    def _write(self) -> None:
        write_atomic(self.folder / STATE, pretty(self._state))


def _free(title: str, taken: Collection[str]) -> str:
    """The title, numbered if it is taken."""
    numbered = (f"{title}-{number}" for number in count(2))
    return next(name for name in chain([title], numbered) if name not in taken)


def _checked(folder: Path, state: dict[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    if not _is_whole(folder, state):
        raise UserError(f"{folder / STATE}: damaged; restore it from a backup, or choose another folder with -o")
    for key, wanted in asked.items():
        if state.get(key) != wanted:
            found = f"found scores with {key} {json.dumps(state.get(key))}"
            raise UserError(f"{folder}: {found}, expected {json.dumps(wanted)}; choose another folder with -o")
    return state


def _is_whole(folder: Path, state: Mapping[str, Any]) -> bool:
    """Whether a state has places inside the folder, and the files of steps."""
    inside = Containment(folder)
    try:
        entries = [(step, each) for steps in state["files"].values() for step, each in steps.items()]
        files = [file for step, each in entries for file in each if int(step) >= 0]
        named = all(isinstance(file["file"], str) for file in files)
        named = named and isinstance(state.get("layouts", {}), dict)
        return named and all(inside.path(place) is not None for place in state["runs"].values())
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        open_own(folder / LOCK).close()
    except OSError as error:
        raise UserError(f"{folder}: cannot write to it ({error.strerror}); choose another folder with -o") from error


def _check_empty(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder}: found a file, expected a folder for the scores; choose another folder with -o")
    held = sorted(path.name for path in folder.iterdir() if path.name != LOCK)
    if held:
        raise UserError(
            f"{folder}: found {', '.join(held[:3])}, expected an empty folder or earlier scores; choose another folder "
            "with -o"
        )
