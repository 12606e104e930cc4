"""Look at a run's photos before it starts: decode each once for all who need it, and show what the model will see."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL.Image import Image

from finetune_monitor.base.files import write_atomic
from finetune_monitor.base.images import Square, each_image
from finetune_monitor.metrics import RunContext
from finetune_monitor.record.run_directory import CONTACT_SHEET
from finetune_monitor.training.config import Config
from finetune_monitor.training.contact_sheet import contact_sheet_file
from finetune_monitor.training.photos import ChosenPhotos
from finetune_monitor.training.survey import Survey, Surveyor, luminance, recorded_squares, write_photos

if TYPE_CHECKING:
    from finetune_monitor.models.face_reader import FaceReader

logger = logging.getLogger(__name__)

KEPT = 2**29
"""Bytes of decoded photos that are kept until they are encoded: 14 photos of 12 megapixels. Others are read again."""


@dataclass(frozen=True)
class Looked:
    """The survey of the training photos, and the crops of all photos that are not cut in the center.

    decoded: training photos that need not be read again.
    """

    survey: Survey
    squares: Mapping[Path, Square]
    decoded: dict[Path, Image]


def look(
    config: Config, chosen: ChosenPhotos, run: RunContext, reader: "FaceReader | None", is_resumed: bool
) -> Looked:
    """Look at every photo; the metrics find those that were read in `run.references()`.

    Args:
        reader: finds and embeds faces; None to look for none.
        is_resumed: photos are cropped as they were when the run began.

    Raises:
        UserError: lists the photos that cannot be read; or the record of the crops is damaged.
    """
    data = config.data
    known = recorded_squares(config.output_dir) if is_resumed else {}
    surveyor = Surveyor(data.instance_images, reader, data.crop, data.resolution, known)
    photos = chosen.described(data.instance_prompt)
    decoded: dict[Path, Image] = {}
    if not config.monitor.enabled:
        survey = surveyor.survey(photos, _kept(chosen.training, each_image(chosen.training), decoded))
        return Looked(survey, survey.squares, decoded)
    references = run.references()
    others = references.held_out.images
    rows = {path.name: luminance(image) for path, image in zip(chosen.held_out, others, strict=True)}
    survey = surveyor.survey(photos, _kept(chosen.training, references.trained.images, decoded))
    survey = replace(survey, held_out=rows)
    return Looked(survey, {**survey.squares, **surveyor.squares(chosen.held_out, others)}, decoded)


def _kept(paths: Sequence[Path], images: Iterable[Image], decoded: dict[Path, Image]) -> Iterator[Image]:
    """The images, each kept in `decoded` as long as all that are kept stay within the limit."""
    room = KEPT
    for path, image in zip(paths, images, strict=True):
        room -= len(image.getbands()) * image.width * image.height
        if room >= 0:
            decoded[path] = image
        yield image


def show(output_dir: Path, survey: Survey) -> None:
    """Write what the model will see into the run directory, and log what is wrong with it."""
    for warning in survey.warnings:
        logger.warning("photos: %s", warning)
    try:
        write_photos(output_dir, survey)
        write_atomic(output_dir / CONTACT_SHEET, contact_sheet_file(survey))
    except OSError as error:
        logger.warning("%s: the contact sheet cannot be written (%s)", output_dir, error.strerror or error)
