"""Print a head's score of images as CSV."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.image_names import files_below
from finetune_monitor.base.images import SUFFIXES, read_image
from finetune_monitor.metrics.aesthetic import Aesthetic

BATCH = 16


def print_scores(images: Sequence[Path], head: str, clip: str, pretrained: str | None, device: str) -> None:
    """Write `image,score` to the standard output, a row an image in the order given, those below a folder by name.

    An image that cannot be read has a row without a score, and a line on the standard error says why.

    Raises:
        UserError: the head or CLIP cannot be had, a folder has no image, or no image can be read.
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
            writer.writerows((str(file), f"{scores[file]:.4f}" if file in scores else "") for file in batch)
            sys.stdout.flush()
            scored += len(scores)
            bar.update(len(batch))
    if not scored:
        raise UserError(f"none of the {len(files)} images can be read")


def _below(folder: Path) -> list[Path]:
    if files := [folder / name for name in files_below(folder) if Path(name).suffix.lower() in SUFFIXES]:
        return files
    raise UserError(
        f"{folder}: no image in it, nor in its folders; expected files ending in {', '.join(sorted(SUFFIXES))}"
    )


def _score(metric: Aesthetic, files: Sequence[Path]) -> dict[Path, float]:
    """Scores of those that can be read."""
    images = {}
    for file in files:
        try:
            images[file] = read_image(file)
        except UserError as error:
            print(f"finetune-monitor: {error}", file=sys.stderr)
    return dict(zip(images, metric.score(list(images.values()), ())[metric.name].tolist(), strict=True))
