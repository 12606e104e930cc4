"""Choose which photos of the person to train on, and which to hold out for comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.files import sha256
from finetune_monitor.base.images import Square
from finetune_monitor.training.config import DataConfig
from finetune_monitor.training.photo_folder import Photo, read_photos, without_captions


@dataclass(frozen=True)
class TrainingPhoto:
    """A photo with what it is trained as.

    prompt: its caption, or the instance prompt.
    repeats: how often an epoch contains it.
    square: the crop; None for the largest one in the center.
    """

    path: Path
    prompt: str
    repeats: int = 1
    square: Square | None = None


@dataclass(frozen=True)
class ChosenPhotos:
    """training: the photos that the model sees. held_out: those that it never sees; empty if none are held out.

    found: each photo as it was found in its folder.
    """

    training: list[Path]
    held_out: list[Path]
    found: Mapping[Path, Photo] = field(default_factory=dict, compare=False)

    def described(self, instance_prompt: str, squares: Mapping[Path, Square] | None = None) -> list[TrainingPhoto]:
        """The training photos with their prompts and repeats, and their crops, if they are known."""
        photos = [self.found[path] for path in self.training]
        return [
            TrainingPhoto(photo.path, photo.caption or instance_prompt, photo.repeats, (squares or {}).get(photo.path))
            for photo in photos
        ]

    @property
    def captions(self) -> dict[Path, str]:
        """The captions of all photos that have one."""
        return {path: photo.caption for path, photo in self.found.items() if photo.caption is not None}


def choose_photos(data: DataConfig) -> ChosenPhotos:
    """The first `instance_count` photos to train on, and the last `held_out` in the folder (or those of another
    folder).

    The held-out photos are the same for every `instance_count`, so that runs can be compared on them.

    Raises:
        UserError: a folder has too few photos, or captions that cannot be used; or a held-out photo is also a training
            photo (files with the same content).
    """
    photos = _read(data, data.instance_images)
    others: list[Photo] = []
    if isinstance(data.held_out, int):
        photos, others = _split(data.instance_images, photos, data.instance_count, data.held_out)
    else:
        photos = _first(data.instance_images, photos, data.instance_count)
        others = [] if data.held_out is None else _read(data, data.held_out)
    found = {photo.path: photo for photo in (*photos, *others)}
    chosen = ChosenPhotos([photo.path for photo in photos], [photo.path for photo in others], found)
    _refuse_shared(chosen)
    return chosen


def _read(data: DataConfig, folder: Path) -> list[Photo]:
    return read_photos(folder) if data.captions else without_captions(folder)


def _first(folder: Path, photos: Sequence[Photo], count: int | None) -> list[Photo]:
    if count is not None and len(photos) < count:
        raise UserError(f"{folder}: found {len(photos)} photos, expected {count}; add photos or ask for fewer")
    return list(photos[:count])


def _split(folder: Path, photos: list[Photo], count: int | None, held_out: int) -> tuple[list[Photo], list[Photo]]:
    if len(photos) < (count or 1) + held_out:
        asked = f"{count} to train on" if count else "at least 1 to train on"
        raise UserError(
            f"{folder}: found {len(photos)} photos, expected {(count or 1) + held_out} ({asked}, {held_out} held out); "
            "add photos, or lower data.instance_count or data.held_out"
        )
    return photos[:-held_out][:count], photos[-held_out:]


def _refuse_shared(chosen: ChosenPhotos) -> None:
    try:
        trained = {sha256(path): path for path in chosen.training}
        shared = [(path, trained[digest]) for path in chosen.held_out if (digest := sha256(path)) in trained]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot read it ({error.strerror}); expected a photo") from error
    all_problems(
        [f"{path}: the same as {other}; remove one of them" for path, other in shared],
        f"{len(shared)} of {len(chosen.held_out)} held-out photos are also training photos, expected different ones:",
    )
