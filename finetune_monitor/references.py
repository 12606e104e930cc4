"""Small pictures of the reference photos, kept in the run directory so that pages need nothing else."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL.Image import Image, Resampling

from finetune_monitor.files import write_atomic
from finetune_monitor.metrics import Illustrated, Metric

REFERENCES = "references"
"""Their folder in the run directory."""

LONGEST_SIDE = 256
"""Pixels."""

NAME_LENGTH = 16
"""Characters of the photo's SHA-256 that name its small picture."""


def thumbnail(photo: Image) -> Image:
    """The photo in RGB, at most `LONGEST_SIDE` pixels long, never enlarged, without what a camera wrote beside it."""
    scale = min(1.0, LONGEST_SIDE / max(photo.size))
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    small = photo.convert("RGB").resize(size, Resampling.LANCZOS, reducing_gap=3.0)
    small.info = {}  # EXIF may say where the photo was taken
    return small


def reference_path(run_dir: Path, sha256: str) -> Path:
    """Where a run keeps the small picture of the photo with this SHA-256."""
    return run_dir / REFERENCES / f"{sha256[:NAME_LENGTH]}.webp"


def keep_references(run_dir: Path, metrics: Sequence[Metric], warn: Callable[[str, str], None]) -> None:
    """Write the small pictures that the run has not yet; what fails is warned about (subject, text)."""
    thumbnails = {k: v for metric in metrics if isinstance(metric, Illustrated) for k, v in metric.thumbnails.items()}
    try:
        _write(run_dir, thumbnails)
    except Exception as error:
        warn("references", f"{run_dir / REFERENCES}: the reference photos could not be kept for pages: {error!r}")


def _write(run_dir: Path, thumbnails: Mapping[str, Image]) -> None:
    for sha256, picture in thumbnails.items():
        path = reference_path(run_dir, sha256)
        if not path.exists():
            content = io.BytesIO()
            picture.save(content, "WEBP", quality=80)
            write_atomic(path, content.getvalue())
