"""Small images of the reference photos, kept in the run directory so that pages need nothing else."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL.Image import Image

from finetune_monitor.base.files import write_atomic

REFERENCES = "references"
"""Their folder in the run directory."""


NAME_LENGTH = 16
"""Characters of the photo's SHA-256 that name its small image."""


def reference_path(run_dir: Path, sha256: str) -> Path:
    """Where a run keeps the small image of the photo with this SHA-256."""
    return run_dir / REFERENCES / f"{sha256[:NAME_LENGTH]}.webp"


def keep_references(run_dir: Path, thumbnails: Mapping[str, Image], warn: Callable[[str, str], None]) -> None:
    """Write the small images, by SHA-256, that the run has not yet; what fails is warned about (subject, text)."""
    try:
        _write(run_dir, thumbnails)
    except Exception as error:
        warn("references", f"{run_dir / REFERENCES}: the reference photos could not be kept for pages: {error!r}")


def _write(run_dir: Path, thumbnails: Mapping[str, Image]) -> None:
    for sha256, image in thumbnails.items():
        path = reference_path(run_dir, sha256)
        if not path.exists():
            content = io.BytesIO()
            image.save(content, "WEBP", quality=80)
            write_atomic(path, content.getvalue())
