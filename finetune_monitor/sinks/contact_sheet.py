"""The contact sheet of a run's photos, for the sinks that show it before the first evaluation."""

from pathlib import Path

from PIL.Image import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import read_image
from finetune_monitor.record.run_directory import CONTACT_SHEET

TAG = "photos"
"""What the sheet is called in every tracker."""


def contact_sheet_of(output_dir: Path) -> Image | None:
    """The sheet in a run directory; None for a training that wrote none."""
    try:
        return read_image(output_dir / CONTACT_SHEET)
    except UserError:
        return None
