"""Print a head's scores of images as CSV."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from finetune_monitor.base.csv_files import safe_row
from finetune_monitor.base.errors import UserError
from finetune_monitor.base.image_names import files_below
from finetune_monitor.base.images import SUFFIXES, read_image
from finetune_monitor.metrics.aesthetic import Aesthetic

BATCH = 16


def print_scores(images: Sequence[Path], head: str, clip: str, pretrained: str | None, device: str) -> None:
    """Write `image,score` to standard output, one row per image in the order given, with the images in a folder by
    name.

    An unreadable image has a row without a score, and a line on standard error gives the reason.

    Raises:
        UserError: the head or CLIP is not available, a folder has no images, or none of the images can be read.
    """
    files = [file for path in images for file in (_below(path) if path.is_dir() else [path])]
    metric = Aesthetic(clip, pretrained, head, device)
    if notice := metric.describe().notice:
        print(f"finetune-monitor: {notice}", file=sys.stderr)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["image", "score"])
    scored = 0
    with tqdm(total=len(files), desc="scoring", unit="image", disable=None) as bar:
        for start in range(0, len(files), BATCH):
            batch = files[start : start + BATCH]
            scores = _score(metric, batch)
            rows = ([str(file), f"{scores[file]:.4f}" if file in scores else ""] for file in batch)
            writer.writerows(map(safe_row, rows))
            sys.stdout.flush()
            scored += len(scores)
            bar.update(len(batch))
    if not scored:
        raise UserError(f"none of the {len(files)} images can be read")


def _below(folder: Path) -> list[Path]:
    if files := [folder / name for name in files_below(folder) if Path(name).suffix.lower() in SUFFIXES]:
        return files
    raise UserError(
        f"{folder}: found no images in it or its subfolders; expected files ending in {', '.join(sorted(SUFFIXES))}"
    )


def _score(metric: Aesthetic, files: Sequence[Path]) -> dict[Path, float]:
    """The scores of the readable images."""
    images = {}
    for file in files:
        try:
            images[file] = read_image(file)
        except UserError as error:
            print(f"finetune-monitor: {error}", file=sys.stderr)
    return dict(zip(images, metric.score(list(images.values()), ())[metric.name].tolist(), strict=True))
