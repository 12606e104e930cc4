"""The command `finetune-monitor photos`: what the model will see of a folder of photos, and what is wrong with it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_monitor.commands.options import side

if TYPE_CHECKING:
    from finetune_monitor.training.survey import Survey

SHEET = Path("contact_sheet.jpg")

LONGEST_NAME = 40
"""Characters of a file name in the table."""


def add_photos(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `photos`."""
    parser = commands.add_parser(
        "photos",
        help="show what a model will see of a folder of photos, and what is wrong with it",
        description="Crop the photos in a folder as training does, find and compare their faces, and write a contact "
        "sheet. Prints a table, and warnings: another person, small faces, blur, the same photo twice. Warnings do not "
        "change the exit status.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="photos, or kohya's folders of photos")
    parser.add_argument(
        "--to", type=Path, default=SHEET, metavar="FILE", help="the contact sheet; default: %(default)s"
    )
    parser.add_argument("--resolution", type=side, default=512, metavar="N", help="as data.resolution; default: 512")
    parser.add_argument("--crop", choices=("face", "center"), default="face", help="as data.crop; default: face")
    parser.set_defaults(run=_photos)


def _photos(chosen: argparse.Namespace) -> None:
    from finetune_monitor.base.files import check_named, write_named
    from finetune_monitor.base.images import each_image
    from finetune_monitor.base.text import on_one_line
    from finetune_monitor.models.face_reader import FaceReader
    from finetune_monitor.models.recognizers import EMBEDDED
    from finetune_monitor.training.contact_sheet import contact_sheet_file
    from finetune_monitor.training.photo_folder import passed_over_in, read_photos
    from finetune_monitor.training.photos import TrainingPhoto
    from finetune_monitor.training.survey import Surveyor

    check_named(chosen.to)
    photos = [TrainingPhoto(found.path, found.caption or "", found.repeats) for found in read_photos(chosen.folder)]
    surveyor = Surveyor(chosen.folder, FaceReader(EMBEDDED), chosen.crop, chosen.resolution, {})
    survey = surveyor.survey(photos, each_image([photo.path for photo in photos]))
    write_named(chosen.to, contact_sheet_file(survey))
    print(_table(survey))
    for sentence in (*survey.warnings, *passed_over_in(chosen.folder)):
        print(on_one_line(f"warning: {sentence}"))
    print(on_one_line(f"contact sheet: {chosen.to}"))


def _table(survey: "Survey") -> str:
    """One line per photo: its face, its similarity to the others, and what is wrong with it."""
    from finetune_monitor.base.text import on_one_line, shortened

    rows = [("photo", "face", "similarity", "")]
    for index, view in enumerate(survey.views):
        share, found = view.face_share, survey.similarities[index]
        rows.append(
            (
                shortened(on_one_line(view.name), LONGEST_NAME),
                "-" if share is None else f"{share:.0%}",
                "-" if found is None else f"{found:.2f}",
                on_one_line(", ".join(survey.marks(index))),
            )
        )
    width = max(len(row[0]) for row in rows)
    return "\n".join(
        f"{name:<{width}}  {share:>5}  {found:>10}  {marks}".rstrip() for name, share, found, marks in rows
    )
