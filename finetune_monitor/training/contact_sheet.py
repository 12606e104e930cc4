"""Draw the contact sheet: every photo as the model will see it, with its face's box and what is wrong with it."""

import io

from PIL import ImageDraw
from PIL.Image import Image

from finetune_monitor.base.text import counted
from finetune_monitor.sinks.grid_image import AMBER, HEADING, Line, stacked, strip
from finetune_monitor.training.survey import SHOWN, Survey

IN_A_ROW = 5

MARKS_SHOWN = 2
"""Lines for what is wrong with a photo."""

GOOD = "#22c55e"
"""The color of a face's box where nothing is wrong."""

QUALITY = 88
"""Of the JPEG."""


def contact_sheet_file(survey: Survey) -> bytes:
    """The contact sheet as JPEG."""
    content = io.BytesIO()
    contact_sheet(survey).save(content, "JPEG", quality=QUALITY)
    return content.getvalue()


def contact_sheet(survey: Survey) -> Image:
    """The crops in rows, below a line that counts them and one line for each warning."""
    shown = [(index, image) for index, view in enumerate(survey.views) if (image := view.shown) is not None]
    boxed = [_boxed(image, survey, index) for index, image in shown]
    captions = [_caption(survey, index) for index, _ in shown]
    rows = range(0, len(shown), IN_A_ROW)
    strips = [strip(boxed[i : i + IN_A_ROW], captions[i : i + IN_A_ROW], largest=SHOWN) for i in rows]
    texts = [_heading(survey, len(shown)), *(f"Warning: {each}" for each in survey.warnings)]
    return stacked([(text, HEADING) for text in texts], strips)


def _heading(survey: Survey, shown: int) -> str:
    total = len(survey.views)
    said = f"What the model will see: {counted(total, 'photo')}"
    if not has_captions(survey) and (prompt := survey.views[0].photo.prompt):
        said += f" of {prompt!r}"
    return said if shown == total else f"{said}, the first {shown} here"


def has_captions(survey: Survey) -> bool:
    """Whether the photos have different prompts."""
    return len({view.photo.prompt for view in survey.views}) > 1


def _boxed(image: Image, survey: Survey, index: int) -> Image:
    """A crop with the box of its face."""
    box, marked = survey.views[index].box, image.copy()
    if box is not None:
        color = AMBER if survey.marks(index) else GOOD
        ImageDraw.Draw(marked).rectangle([round(edge * (SHOWN - 1)) for edge in box], outline=color, width=2)
    return marked


def _caption(survey: Survey, index: int) -> list[Line]:
    view, similarity, marks = survey.views[index], survey.similarities[index], survey.marks(index)
    share = "" if view.face_share is None else f"face {view.face_share:.0%}"
    alike = "-" if similarity is None else f"{similarity:.2f}"
    repeats = f"{view.photo.repeats}x" if view.photo.repeats > 1 else ""
    return [
        Line(view.name, share),
        *([Line(view.photo.prompt or "(instance prompt)", repeats)] if has_captions(survey) or repeats else []),
        *([Line("similarity to the others", alike)] if survey.has_faces else []),
        *(Line("", mark, warning=True) for mark in marks[:MARKS_SHOWN]),
    ]
