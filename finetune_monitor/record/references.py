"""Thumbnails of the reference photos, kept in the run directory so that pages are self-contained."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL.Image import Image

from finetune_monitor.base.files import write_atomic

REFERENCES = "references"
"""The folder of the thumbnails in the run directory."""


NAME_LENGTH = 16
"""Length of the prefix of the photo's SHA-256 that names its thumbnail."""


def reference_path(run_dir: Path, sha256: str) -> Path:
    """The path of the thumbnail of the photo with this SHA-256."""
    return run_dir / REFERENCES / f"{sha256[:NAME_LENGTH]}.webp"


def keep_references(run_dir: Path, thumbnails: Mapping[str, Image], warn: Callable[[str, str], None]) -> None:
    """Write the thumbnails, by SHA-256, that the run does not have yet; a failure only calls `warn` (subject, text)."""
    try:
        _write(run_dir, thumbnails)
    except Exception as error:
        warn(
            "references",
            f"{run_dir / REFERENCES}: cannot save thumbnails of the reference photos: {error!r}",
        )


def _write(run_dir: Path, thumbnails: Mapping[str, Image]) -> None:
    for sha256, image in thumbnails.items():
        path = reference_path(run_dir, sha256)
        if not path.exists():
            content = io.BytesIO()
            image.save(content, "WEBP", quality=80)
            write_atomic(path, content.getvalue())
