"""Choose which photos of the person to train on, and which to hold out for comparison."""

from dataclasses import dataclass
from pathlib import Path

from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.files import sha256
from finetune_monitor.base.images import first_images, list_images
from finetune_monitor.training.config import DataConfig


@dataclass(frozen=True)
class ChosenPhotos:
    """training: the photos that the model sees. held_out: those that it never sees; empty if none are held out."""

    training: list[Path]
    held_out: list[Path]


def choose_photos(data: DataConfig) -> ChosenPhotos:
    """The first `instance_count` photos to train on, and the last `held_out` in the folder (or those of another
    folder).

    The held-out photos are the same for every `instance_count`, so that runs can be compared on them.

    Raises:
        UserError: a folder has too few photos, or a held-out photo is also a training photo (files with the same
            content).
    """
    if data.held_out is None:
        return ChosenPhotos(first_images(data.instance_images, data.instance_count), [])
    if isinstance(data.held_out, int):
        chosen = _split(data.instance_images, data.instance_count, data.held_out)
    else:
        training = first_images(data.instance_images, data.instance_count)
        chosen = ChosenPhotos(training, list_images(data.held_out))
    _refuse_shared(chosen)
    return chosen


def _split(folder: Path, count: int | None, held_out: int) -> ChosenPhotos:
    paths = list_images(folder)
    if len(paths) < (count or 1) + held_out:
        asked = f"{count} to train on" if count else "at least 1 to train on"
        raise UserError(
            f"{folder}: found {len(paths)} photos, expected {(count or 1) + held_out} ({asked}, {held_out} held out); "
            "add photos, or lower data.instance_count or data.held_out"
        )
    return ChosenPhotos(paths[:-held_out][:count], paths[-held_out:])


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
