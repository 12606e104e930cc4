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
REDUCING_GAP = 1.0
"""Averages whole pixels as far as possible before resampling: halving 512 pixels takes a tenth of the time."""
MARGIN, TEXT, LEADING = 12, 12, 1.4
HEADING = TEXT + 2
MAX_TITLE_LINES, LONGEST_TITLE = 3, 1500

TILE, TILE_TEXT = 350, 11
"""Width in pixels at which TensorBoard first shows an image, and the size of text that can be read there."""

LARGE_SHARE = 4
"""Large text is at most this part of a cell's width, so that it stays a caption."""

PAPER, INK, PALE, GRAY, AMBER = "#ffffff", "#1a1a1a", "#6b6b6b", "#d9d9d9", "#b45309"
FONTS = ("DejaVuSans.ttf", "Arial.ttf", "NotoSansCJK-Regular.ttc", "msgothic.ttc")
"""System fonts to try for text that Pillow's own font, which has only basic Latin letters, cannot show."""


@dataclass(frozen=True)
class Line:
    """A line under an image: `left` is shortened if `right`, a number or a warning, needs the space.

    is_large: it can be read where the entire image is only `TILE` pixels wide.
    """

    left: str
    right: str = ""
    warning: bool = False
    is_large: bool = False


def strip(
    images: Sequence[Image | None],
    captions: Sequence[Sequence[Line]],
    title: str | None = None,
    largest: int = LARGEST,
    notes: Sequence[str] = (),
    widest: int = 0,
) -> Image:
    """A row of images of one size with captions below; None becomes a box that says "not rendered".

    Args:
        images: at least one.
        captions: lines for each image.
        title: shown above the row, in up to three large lines.
        largest: in pixels; larger images are scaled down to this size.
        notes: shown below the title in small text.
        widest: how many images the widest row has, if the row is one of several in an image.
    """
    size = _cell_size(images, largest)
    width = _width_of(len(images), size[0])
    text, large = max(TEXT, size[0] // 28), _large(max(width, _width_of(widest, size[0])), size[0])
    heading = _wrapped_all([(title or "", large), *((note, text) for note in notes)], width)
    top = MARGIN + _height(heading)
    sizes = (text, _fitting_size(captions, large, size[0]))
    bottom = max(_height([("", sizes[line.is_large]) for line in caption]) for caption in captions)
    sheet = new_image("RGB", (width, top + size[1] + bottom + MARGIN // 2), PAPER)
    draw = ImageDraw.Draw(sheet)
    _write_lines(draw, heading)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        corner = (MARGIN + index * (size[0] + MARGIN), top)
        _paste(sheet, image, corner, size)
        _write_caption(draw, caption, (corner[0], top + size[1]), size[0], sizes)
    return sheet


def prompt_strips(
    evaluation: Evaluation,
    images: Sequence[Image | None],
    columns: Mapping[str, ScoreColumn],
    notes: Sequence[str] = (),
    largest: int = LARGEST,
    metric: str = "",
    widest: int = 0,
) -> list[tuple[str, Image]]:
    """Pairs of prompt and strip for each prompt of the grid; each image has its seed and scores below it.

    Args:
        metric: the column whose score is shown in large numbers.
        widest: how many images the widest strip has, if they are shown in one image.
    """
    pairs = zip(evaluation.images, images, strict=True)
    rows = [(prompt, list(row)) for prompt, row in groupby(pairs, key=lambda pair: pair[0].cell.prompt)]
    return [
        (
            prompt,
            strip(
                [image for _, image in row],
                [_caption(scored, columns, metric) for scored, _ in row],
                prompt,
                largest,
                notes,
                widest,
            ),
        )
        for prompt, row in rows
    ]


def grid_image(
    evaluation: Evaluation,
    images: Sequence[Image | None],
    columns: Mapping[str, ScoreColumn],
    notices: Sequence[str] = (),
    metric: str = "",
) -> Image:
    """The entire grid: step, means, and notices at the top, then one strip per prompt.

    Args:
        metric: the column whose score is shown in large numbers.
    """
    widest = max(sum(1 for _ in row) for _, row in groupby(scored.cell.prompt for scored in evaluation.images))
    largest = max(SMALLEST, min(GRID_LARGEST, GRID_WIDTH // widest))
    rows = prompt_strips(evaluation, images, columns, largest=largest, metric=metric, widest=widest)
    strips = [image for _, image in rows]
    first, *others = _headings(evaluation, columns, notices, metric)
    large = _large(max(image.width for image in strips), _cell_size(images, largest)[0])
    return stacked([(first, large), *((text, HEADING) for text in others)], strips)


def stacked(headings: Sequence[tuple[str, int]], strips: Sequence[Image]) -> Image:
    """Strips below each other, with headings in their sizes at the top, each in up to three lines."""
    width = max(image.width for image in strips)
    heading = _wrapped_all(headings, width)
    top = MARGIN + _height(heading)
    page = new_image("RGB", (width, top + sum(image.height for image in strips)), PAPER)
    _write_lines(ImageDraw.Draw(page), heading)
    for image in strips:
        page.paste(image, (0, top))
        top += image.height
    return page


def caption_text(scored: ScoredImage, columns: Mapping[str, ScoreColumn]) -> str:
    """The caption of an image as text: its seed, its marks, and its scores."""
    return ", ".join(f"{line.left} {line.right}".rstrip() for line in _caption(scored, columns))


def _headings(
    evaluation: Evaluation, columns: Mapping[str, ScoreColumn], notices: Sequence[str], metric: str = ""
) -> list[str]:
    scores = evaluation.scores.items()
    means = {name: replace(found, low=math.nan, high=math.nan) for name, found in scores if found.n}  # no intervals
    decides = f": {scores_in_words({metric: means[metric]}, columns)}" if metric in means else ""
    return [f"step {evaluation.step}{decides}", scores_in_words(means, columns) or "nothing measured", *notices]


def _caption(scored: ScoredImage, columns: Mapping[str, ScoreColumn], metric: str = "") -> list[Line]:
    """The score in large numbers, the seed with the image's marks, then each score; side columns are left out."""
    marks = ", ".join(column.zero for name, column in columns.items() if column.zero and scored.scores.get(name) == 0)
    seed = Line(f"seed {scored.cell.seed}", marks, bool(marks))
    stars = stars_by_score(columns)
    hidden = {name for name, column in columns.items() if column.role != "score"}
    shown = [name for name in scored.scores if name not in hidden]
    large = [_large_line(scored.scores[metric], marks)] if metric in shown else []
    return [*large, seed, *(Line(name, _numbers(scored, name, stars.get(name, ""))) for name in shown)]


def _large_line(score: float, marks: str) -> Line:
    """The score, or why there is none."""
    return Line("", marks or "-", bool(marks), True) if math.isnan(score) else Line("", f"{score:.2f}", is_large=True)


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
        sheet.paste(image.convert("RGB").resize(size, Resampling.LANCZOS, reducing_gap=REDUCING_GAP), corner)
        return
    box = new_image("RGB", size, GRAY)
    middle = (size[0] // 2, size[1] // 2)
    ImageDraw.Draw(box).text(middle, "not rendered", fill=PALE, font=_font("", TEXT), anchor="mm")
    sheet.paste(box, corner)


def _width_of(images: int, cell: int) -> int:
    """The width in pixels of a row of images."""
    return images * (cell + MARGIN) + MARGIN


def _large(width: int, cell: int) -> int:
    """The size of text that can be read if the entire width is shown on `TILE` pixels."""
    return max(HEADING, min(width * TILE_TEXT // TILE, cell // LARGE_SHARE))


def _fitting_size(captions: Sequence[Sequence[Line]], large: int, width: int) -> int:
    """The largest size, up to `large`, at which every large line fits its cell."""
    texts = [line.right for caption in captions for line in caption if line.is_large]
    longest = max((_font(text, large).getlength(text) for text in texts), default=0.0)
    return large if longest <= width else max(TEXT, int(large * width / longest))


def _write_caption(
    draw: ImageDraw.ImageDraw, caption: Sequence[Line], corner: tuple[int, int], width: int, sizes: tuple[int, int]
) -> None:
    """Write the lines below each other; `sizes` are those of small and of large text."""
    y = corner[1] + sizes[0] // 4
    for line in caption:
        size = sizes[line.is_large]
        font = _font(line.right, size)
        taken = font.getlength(line.right) + size / 2 if line.right else 0.0
        left = _shorten(line.left, size, width - taken) if line.left else ""
        draw.text((corner[0], y), left, fill=PALE, font=_font(left, size))
        draw.text((corner[0] + width, y), line.right, fill=AMBER if line.warning else INK, font=font, anchor="ra")
        y += _height([("", size)])


def _wrapped_all(texts: Sequence[tuple[str, int]], width: int) -> list[tuple[str, int]]:
    """Lines that fit the width, each with its size."""
    return [(line, size) for text, size in texts for line in _wrap(text, size, width - 2 * MARGIN)]


def _write_lines(draw: ImageDraw.ImageDraw, lines: Sequence[tuple[str, int]]) -> None:
    for index, (line, size) in enumerate(lines):
        draw.text((MARGIN, MARGIN / 2 + _height(lines[:index])), line, fill=INK, font=_font(line, size))


def _height(lines: Sequence[tuple[str, int]]) -> int:
    """The height of lines with these sizes."""
    return round(sum(size for _, size in lines) * LEADING)


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


@lru_cache(4096)
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
