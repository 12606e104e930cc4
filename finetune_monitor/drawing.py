"""What the figures of all reports share: their looks, the colours, names and pictures in them, and the file."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from finetune_monitor.errors import UserError
from finetune_monitor.images import read_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, DPI = 8.8, 140
"""Inches and dots an inch: 1,232 pixels wide."""

LOOKS = (("#0072B2", "o", "-"), ("#D55E00", "s", "--"), ("#555555", "^", ":"), ("#009E73", "D", "-."))
"""Colour (Okabe and Ito 2008, told apart by the colour-blind), marker and line of each series, in turn."""

GREY = "#C9CDD2"
THUMBNAIL = 240
LONGEST_NAME = 28


def new_figure(height: float, dpi: int = DPI, width: float = WIDTH) -> "Figure":
    """An empty figure, sizes in inches."""
    from matplotlib.figure import Figure  # not pyplot: nothing global is touched

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained", facecolor="white")


def png(figure: "Figure") -> bytes:
    """A figure as a PNG file, the same bytes for the same figure."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def plain(name: str) -> str:
    """A name that fits a legend and holds no formula."""
    short = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
    return short.replace("$", r"\$")


def show_picture(axis: "Axes", path: Path, caption: str) -> None:
    """A picture file with words below it; nothing where it cannot be read."""
    try:
        picture = read_image(path)
    except UserError:
        return
    square = ImageOps.pad(picture, (THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS, color="white")
    axis.imshow(np.asarray(square))
    axis.annotate(
        caption, (0.5, 0), (0, -4), "axes fraction", textcoords="offset points", ha="center", va="top", fontsize=9
    )
