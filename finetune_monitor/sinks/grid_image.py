"""Images with captions: a row of images, and the entire grid of an evaluation."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby

from PIL import ImageDraw, ImageFont
from PIL.Image import Image, Resampling
from PIL.Image import new as new_image

from finetune_monitor.base.text import shortened
from finetune_monitor.metrics.thresholds import HIGHEST
from finetune_monitor.record.columns import ScoreColumn, stars_by_score
from finetune_monitor.record.evaluation import Evaluation, ScoredImage
from finetune_monitor.sinks.console import scores_in_words

SMALLEST, LARGEST = 128, 512
"""Limits of a cell's longer side in pixels: captions must fit under it, and a strip must not get too large."""
GRID_LARGEST, GRID_WIDTH = 256, 2048
MARGIN, TEXT, LEADING = 12, 12, 1.4
MAX_TITLE_LINES, LONGEST_TITLE = 3, 1500

PAPER, INK, PALE, GRAY, AMBER = "#ffffff", "#1a1a1a", "#6b6b6b", "#d9d9d9", "#b45309"
FONTS = ("DejaVuSans.ttf", "Arial.ttf", "NotoSansCJK-Regular.ttc", "msgothic.ttc")
"""System fonts to try for text that Pillow's own font, which has only basic Latin letters, cannot show."""


@dataclass(frozen=True)
class Line:
    """A line under an image: `left` is shortened if `right`, a number or a warning, needs the space."""

    left: str
    right: str = ""
    warning: bool = False


def strip(
    images: Sequence[Image | None],
    captions: Sequence[Sequence[Line]],
    title: str | None = None,
    largest: int = LARGEST,
) -> Image:
    """A row of images of one size with captions below; None becomes a box that says "not rendered".

    Args:
        images: at least one.
        captions: lines for each image.
        title: shown above the row, in up to three lines.
        largest: in pixels; larger images are scaled down to this size.
    """
    size = _cell_size(images, largest)
    text = max(TEXT, size[0] // 28)
    width = len(images) * (size[0] + MARGIN) + MARGIN
    heading = _wrap(title, text + 2, width - 2 * MARGIN) if title else []
    top = MARGIN + _height(len(heading), text + 2)
    lines = max(len(caption) for caption in captions)
    sheet = new_image("RGB", (width, top + size[1] + _height(lines, text) + MARGIN // 2), PAPER)
    draw = ImageDraw.Draw(sheet)
    _write_lines(draw, heading, text + 2)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        corner = (MARGIN + index * (size[0] + MARGIN), top)
        _paste(sheet, image, corner, size)
        _write_caption(draw, caption, (corner[0], top + size[1]), size[0], text)
    return sheet


def prompt_strips(
    evaluation: Evaluation,
    images: Sequence[Image | None],
    columns: Mapping[str, ScoreColumn],
    notices: Sequence[str] = (),
    largest: int = LARGEST,
) -> list[tuple[str, Image]]:
    """Pairs of prompt and strip for each prompt of the grid; each image has its seed and scores below it."""
    pairs = zip(evaluation.images, images, strict=True)
    rows = [(prompt, list(row)) for prompt, row in groupby(pairs, key=lambda pair: pair[0].cell.prompt)]
    warning = "".join(f" ({notice})" for notice in notices)
    return [
        (
            prompt,
            strip(
                [image for _, image in row], [_caption(scored, columns) for scored, _ in row], prompt + warning, largest
            ),
        )
        for prompt, row in rows
    ]


def grid_image(
    evaluation: Evaluation,
    images: Sequence[Image | None],
    columns: Mapping[str, ScoreColumn],
    notices: Sequence[str] = (),
) -> Image:
    """The entire grid: step, means, and notices at the top, then one strip per prompt."""
    widest = max(sum(1 for _ in row) for _, row in groupby(scored.cell.prompt for scored in evaluation.images))
    largest = max(SMALLEST, min(GRID_LARGEST, GRID_WIDTH // widest))
    strips = [image for _, image in prompt_strips(evaluation, images, columns, largest=largest)]
    return stacked(_headings(evaluation, columns, notices), strips)


def stacked(headings: Sequence[str], strips: Sequence[Image]) -> Image:
    """Strips below each other, with headings at the top, each in up to three lines."""
    width = max(image.width for image in strips)
    heading = [line for text in headings for line in _wrap(text, TEXT + 2, width - 2 * MARGIN)]
    top = MARGIN + _height(len(heading), TEXT + 2)
    page = new_image("RGB", (width, top + sum(image.height for image in strips)), PAPER)
    _write_lines(ImageDraw.Draw(page), heading, TEXT + 2)
    for image in strips:
        page.paste(image, (0, top))
        top += image.height
    return page


def _headings(evaluation: Evaluation, columns: Mapping[str, ScoreColumn], notices: Sequence[str]) -> list[str]:
    scores = evaluation.scores.items()
    means = {name: replace(found, low=math.nan, high=math.nan) for name, found in scores if found.n}  # no intervals
    return [f"step {evaluation.step}", scores_in_words(means, columns) or "nothing measured", *notices]


def _caption(scored: ScoredImage, columns: Mapping[str, ScoreColumn]) -> list[Line]:
    """The seed with the image's marks, then each score with its stars; columns that only explain are left out."""
    marks = [column.zero for name, column in columns.items() if column.zero and scored.scores.get(name) == 0]
    seed = Line(f"seed {scored.cell.seed}", ", ".join(marks), bool(marks))
    stars = stars_by_score(columns)
    hidden = {name for name, column in columns.items() if column.role != "score"}
    shown = [name for name in scored.scores if name not in hidden]
    return [seed, *(Line(name, _numbers(scored, name, stars.get(name, ""))) for name in shown)]


def _numbers(scored: ScoredImage, name: str, stars: str) -> str:
    """The score, with its stars as a fraction: few fonts have a star, and five would leave no room for the name."""
    value, graded = scored.scores[name], scored.scores.get(stars, math.nan)
    if math.isnan(value):
        return "-"
    return f"{value:.3f}" + ("" if math.isnan(graded) else f"  {graded:.0f}/{HIGHEST}")


def _cell_size(images: Sequence[Image | None], largest: int) -> tuple[int, int]:
    """The first image's size scaled to fit the limits; integer factors when enlarging keep pixels uniform."""
    width, height = next((image.size for image in images if image is not None), (SMALLEST, SMALLEST))
    longer = max(width, height)
    factor = math.ceil(SMALLEST / longer) if longer < SMALLEST else min(1.0, largest / longer)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _paste(sheet: Image, image: Image | None, corner: tuple[int, int], size: tuple[int, int]) -> None:
    if image is not None:
        sheet.paste(image.convert("RGB").resize(size, Resampling.LANCZOS), corner)
        return
    box = new_image("RGB", size, GRAY)
    middle = (size[0] // 2, size[1] // 2)
    ImageDraw.Draw(box).text(middle, "not rendered", fill=PALE, font=_font("", TEXT), anchor="mm")
    sheet.paste(box, corner)


def _write_caption(
    draw: ImageDraw.ImageDraw, caption: Sequence[Line], corner: tuple[int, int], width: int, size: int
) -> None:
    for index, line in enumerate(caption):
        y = corner[1] + size // 4 + _height(index, size)
        font = _font(line.right, size)
        taken = font.getlength(line.right) + size / 2 if line.right else 0.0
        left = _shorten(line.left, size, width - taken)
        draw.text((corner[0], y), left, fill=PALE, font=_font(left, size))
        draw.text((corner[0] + width, y), line.right, fill=AMBER if line.warning else INK, font=font, anchor="ra")


def _write_lines(draw: ImageDraw.ImageDraw, lines: Sequence[str], size: int) -> None:
    for index, line in enumerate(lines):
        draw.text((MARGIN, MARGIN / 2 + _height(index, size)), line, fill=INK, font=_font(line, size))


def _height(lines: int, size: int) -> int:
    return round(lines * size * LEADING)


def _wrap(text: str, size: int, width: float) -> list[str]:
    """Lines no wider than `width`, broken at spaces, or anywhere if there are none; the last line is shortened."""
    lines: list[str] = []
    rest = shortened(" ".join(text.split()), LONGEST_TITLE)
    font = _font(rest, size)
    while rest and len(lines) < MAX_TITLE_LINES - 1:
        fits = _fitting(rest, font, width)
        space = rest.rfind(" ", 0, fits + 1)
        end = fits if fits == len(rest) or space <= 0 else space
        lines.append(rest[:end])
        rest = rest[end:].lstrip()
    return [*lines, _shorten(rest, size, width)] if rest else lines


def _shorten(text: str, size: int, width: float) -> str:
    font = _font(text, size)
    if font.getlength(text) <= width:
        return text
    return text[: _fitting(text, font, width - font.getlength("..."))].rstrip() + "..."


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: float) -> int:
    """How many characters from the start fit, at least one."""
    return max(1, bisect_right(range(1, len(text) + 1), width, key=lambda n: font.getlength(text[:n])))


def _font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The first font with every character of the text, or the one with the fewest missing."""
    return min(_fonts(size), key=lambda font: sum(_lacks(font, character) for character in set(text)))


@lru_cache
def _fonts(size: int) -> tuple[ImageFont.FreeTypeFont, ...]:
    fonts = [ImageFont.load_default(size)]
    for name in FONTS:
        try:
            fonts.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return tuple(font for font in fonts if isinstance(font, ImageFont.FreeTypeFont))


@lru_cache(4096)
def _lacks(font: ImageFont.FreeTypeFont, character: str) -> bool:
    """Whether the font would show its box for unknown characters."""
    return not character.isspace() and bytes(font.getmask(character)) == bytes(font.getmask("\uffff"))
