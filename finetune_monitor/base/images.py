"""Read photos safely: any common format becomes 8-bit RGB, and a file that cannot be read is named in the error."""

import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.paths import user_path

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""File name suffixes of photos, in lower case; upper case is accepted too."""

MAX_PIXELS = 120_000_000
"""More than the largest phone cameras (108 megapixels); decoding a larger image would take over 360 MB."""

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
"""The exceptions that Pillow raises for damaged files; they depend on the format."""


def read_image(path: str | Path) -> Image.Image:
    """One image as 8-bit RGB, rotated upright according to its EXIF orientation.

    Transparent pixels are blended with white, 16-bit grays are scaled to 8 bits, and only the first frame of an
    animation is read.

    Raises:
        UserError: the file is missing, not an image, damaged, or truncated; it has more than `MAX_PIXELS` pixels
            (rejected before decoding); or its pixels are not 8 or 16 bits deep.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected an image")
    with _quiet_pillow():
        try:
            with Image.open(path) as image:
                _refuse_bomb(path, image.size)
                return _to_rgb(path, ImageOps.exif_transpose(image))
        except Image.DecompressionBombError:
            raise UserError(_too_large(path, "more pixels than Pillow opens")) from None
        except UNREADABLE as error:
            raise UserError(_unreadable(path, error)) from error


def image_texts(path: str | Path, longest: int) -> dict[str, str]:
    """The texts that a PNG file holds, by key, without those of more characters; empty for any other file."""
    with _quiet_pillow():
        try:
            with Image.open(path, formats=["PNG"]) as image:
                return {key: text for key, text in image.info.items() if isinstance(text, str) and len(text) <= longest}
        except (*UNREADABLE, Image.DecompressionBombError):
            return {}


def list_images(folder: str | Path) -> list[Path]:
    """The images directly in a folder, sorted by name so that the first n are the same on every machine.

    Hidden files are left out.

    Raises:
        UserError: the folder is missing, is not a folder, or has no images.
    """
    folder = user_path(folder)
    if not folder.is_dir():
        found = "found a file" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {found}; expected a folder with photos")
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    chosen = [folder / name for name in names if Path(name).suffix.lower() in SUFFIXES]
    if not chosen:
        others = f"found only {', '.join(names[:3])}" if names else "the folder is empty"
        raise UserError(f"{folder}: no photos; {others}; expected files ending in {', '.join(sorted(SUFFIXES))}")
    return chosen


def each_image(paths: Sequence[str | Path]) -> Iterator[Image.Image]:
    """Every readable image in order, as from `read_image`, with only one in memory at a time.

    Raises:
        UserError: after the last image, listing every file that cannot be read.
    """
    problems = []
    for path in paths:
        try:
            image = read_image(path)
        except UserError as error:
            problems.append(str(error))
        else:
            yield image
    all_problems(problems, f"{len(problems)} of {len(paths)} photos cannot be read; replace or remove them:")


def read_images(paths: Sequence[str | Path]) -> list[Image.Image]:
    """All images at once, in order.

    Raises:
        UserError: one error that lists every file that cannot be read.
    """
    return list(each_image(paths))


def first_images(folder: str | Path, count: int | None = None) -> list[Path]:
    """The first `count` paths of `list_images` (all for None), so that any 5 photos are a subset of 10.

    Raises:
        UserError: the folder has fewer than `count` images.
    """
    paths = list_images(folder)
    if count is not None and len(paths) < count:
        raise UserError(f"{folder}: found {len(paths)} photos, expected {count}; add photos or ask for fewer")
    return paths[:count]


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Hide Pillow's warnings: it warns of decompression bombs below our limit, and of metadata that we do not use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _refuse_bomb(path: Path, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise UserError(_too_large(path, f"{size[0]} x {size[1]} pixels"))


def _too_large(path: Path, found: str) -> str:
    return f"{path}: found {found}, expected at most {MAX_PIXELS // 1_000_000} megapixels; scale the image down"


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"{path}: not a readable image; expected JPEG, PNG, WebP, TIFF, BMP or GIF"
    return f"{path}: the image is damaged ({error}); copy it again from its source"


def _to_rgb(path: Path, image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise UserError(f"{path}: found floating-point pixels, expected 8 or 16 bits; save it as PNG or JPEG")
    if image.mode.startswith("I"):
        return _from_16_bit(path, image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(path: Path, image: Image.Image) -> Image.Image:
    """Pillow would clip 16-bit grays at 255; scale them instead."""
    values = np.asarray(image)
    if values.size and not 0 <= values.min() <= values.max() <= 65535:
        raise UserError(f"{path}: found 32-bit pixels, expected 8 or 16 bits; save it as PNG or JPEG")
    return Image.fromarray((values.astype(np.uint32) // 257).astype(np.uint8)).convert("RGB")


LONGEST_SIDE = 256
"""Pixels."""


def thumbnail(photo: Image.Image) -> Image.Image:
    """The photo in RGB, scaled down to at most `LONGEST_SIDE` pixels, without the camera's metadata; never enlarged."""
    scale = min(1.0, LONGEST_SIDE / max(photo.size))
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    small = photo.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    small.info = {}  # EXIF may hold the place where the photo was taken
    return small
