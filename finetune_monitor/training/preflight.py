"""Look for everything that could end a run early, before anything long begins, and name all of it at once."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from PIL.Image import Image

from finetune_monitor import ranks, record
from finetune_monitor.errors import UserError, all_problems
from finetune_monitor.hub import resolve_hub_model
from finetune_monitor.images import first_images, read_images
from finetune_monitor.metrics import Metric
from finetune_monitor.training.config import Config

T = TypeVar("T")

GIB = 2**30


@dataclass(frozen=True)
class Inputs:
    """What a run needs from outside, found and read."""

    model: str | Path
    photos: list[Image]
    metrics: list[Metric]


@dataclass
class _Attempts:
    """Goes on after a problem, so that the user hears of all of them."""

    problems: list[str] = field(default_factory=list)

    def __call__(self, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except UserError as error:
            self.problems.append(str(error).replace("\n", "\n    "))
            return None


def find_inputs(config: Config, device: torch.device) -> Inputs:
    """Check the run directory, read the photos, find the model and load the metrics, on every process.

    Raises:
        UserError: lists everything that is missing or wrong.
    """
    attempt = _Attempts()
    if ranks.is_main():
        attempt(lambda: _check_output(config.output_dir))
    paths = attempt(lambda: first_images(config.data.instance_images, config.data.instance_count))
    photos = attempt(lambda: read_images(paths)) if paths else None
    model = attempt(lambda: resolve_hub_model(config.model))
    metrics = _metrics(config, paths if photos else None, device, attempt) if config.monitor.enabled else []
    everyones = dict.fromkeys(problem for problems in ranks.gather(attempt.problems) for problem in problems)
    all_problems(list(everyones), "the run cannot start:")
    assert model is not None
    assert photos is not None
    return Inputs(model, photos, metrics)


def _metrics(config: Config, paths: list[Path] | None, device: torch.device, attempt: _Attempts) -> list[Metric]:
    """The metrics that the config names; without photos only the recogniser is looked for."""
    from finetune_monitor.faces import load_recogniser
    from finetune_monitor.metrics.aesthetic import Aesthetic
    from finetune_monitor.metrics.face_similarity import FaceSimilarity

    chosen = config.monitor.metrics
    found: list[Metric | None] = []
    if face := chosen.face_similarity:
        if paths is None:
            attempt(lambda: load_recogniser(face.recogniser, device))
        else:
            found.append(attempt(lambda: FaceSimilarity(paths, face.recogniser, device)))
    if looks := chosen.aesthetic:
        found.append(attempt(lambda: Aesthetic(looks.clip, looks.pretrained, looks.head, device)))
    return [metric for metric in found if metric is not None]


def _check_output(output_dir: Path) -> None:
    """The directory can be written to, and no other run holds it."""
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        record.lock(output_dir).close()
    except OSError as error:
        raise UserError(f"{output_dir}: cannot write there ({error.strerror}); choose another output_dir") from error


def check_space(config: Config, trained: int, frozen: int) -> None:
    """Refuse a run whose checkpoints cannot fit on the disk.

    Args:
        trained: parameters that get gradients; each checkpoint holds them and AdamW's two moments in fp32.
        frozen: the other parameters; a `full` export holds them too.

    Raises:
        UserError: names the space that is free and the space that is needed.
    """
    copies = 4 if config.train.ema_decay else 3
    checkpoints = 4 * trained * copies * (config.train.keep_checkpoints + 1)
    exports = 4 * 3 * (trained + (frozen if config.train.method == "full" else 0))
    needed, free = checkpoints + exports, shutil.disk_usage(config.output_dir).free
    if free < needed:
        raise UserError(
            f"{config.output_dir}: {free / GIB:.1f} GiB free, the run's checkpoints and exports need about "
            f"{needed / GIB:.1f} GiB; free some, lower train.keep_checkpoints or choose another output_dir"
        )
