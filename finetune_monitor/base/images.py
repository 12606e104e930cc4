"""Read photos safely: any common format becomes 8-bit RGB, and a file that cannot be read is named in the error."""

import os
import struct
import warnings
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from PIL import Image, ImageFile, ImageOps, JpegImagePlugin, UnidentifiedImageError

from finetune_monitor.base.errors import EXAMPLES_NAMED, UserError, all_problems
from finetune_monitor.base.extras import is_installed, needs
from finetune_monitor.base.files import open_regular
from finetune_monitor.base.paths import check_folder, user_path
from finetune_monitor.base.text import some_of

READS_AVIF, READS_HEIC = is_installed("PIL.AvifImagePlugin"), is_installed("pillow_heif")

HEIC = frozenset({".heic", ".heif"})

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
    | ({".avif"} if READS_AVIF else set())
    | (HEIC if READS_HEIC else set())
)
"""File name suffixes of photos, in lower case; upper case is accepted too."""

FORMATS = ("BMP", "GIF", "PNG", "TIFF", "WEBP", *(["AVIF"] if READS_AVIF else []))
"""What Pillow may decode besides JPEG and HEIC: its other decoders are rarely used and tested, and one starts a program
(Ghostscript)."""

JPEG_FORMATS, HEIC_FORMAT = ("JPEG", "MPO"), "HEIF"

JPEG_START, HEIC_BRANDS = b"\xff\xd8\xff", (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

MAX_PIXELS = 120_000_000
"""Decoding a larger image would take over 360 MB."""

MAX_SCALED_PIXELS = 500_000_000
"""JPEG up to this size is decoded at a half, a quarter, or an eighth; the largest phone cameras have 200 megapixels."""

UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""The exceptions that Pillow raises for damaged files; they depend on the format."""


def read_image(path: str | Path) -> Image.Image:
    """One image as 8-bit RGB, rotated upright according to its EXIF orientation, and without metadata.

    Transparent pixels are blended with white, 16-bit grays are scaled to 8 bits, and only the first frame of an
    animation is read. A JPEG with more than `MAX_PIXELS` is scaled down by 2, 4, or 8.

    Raises:
        UserError: the file is missing, not an image, damaged, or truncated; it has too many pixels (rejected before
            decoding); or its pixels are not 8 or 16 bits deep.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected an image")
    with _problems_named(str(path)), open_regular(path) as file, _opened(str(path), file) as image:
        return _to_rgb(str(path), image)


def as_rgb(image: Image.Image, name: str) -> Image.Image:
    """The same for an image that somebody has opened or made.

    Raises:
        UserError: as for `read_image`.
    """
    allowed = (*FORMATS, *JPEG_FORMATS, HEIC_FORMAT)
    if isinstance(image, ImageFile.ImageFile) and image.format not in allowed:
        raise UserError(_not_readable(name))
    with _problems_named(name):
        return _to_rgb(name, image)


def _opened(name: str, file: BinaryIO) -> Image.Image:
    """The image with its header read; what is inside decides, whatever the file is called."""
    start = file.read(64)
    file.seek(0)
    if start.startswith(JPEG_START):
        return JpegImagePlugin.JpegImageFile(file)  # Image.open refuses 179 megapixels, which can be scaled
    if start[4:8] != b"ftyp" or start[8:12] not in HEIC_BRANDS or b"avif" in start:
        return Image.open(file, formats=FORMATS)
    if not READS_HEIC:
        raise UserError(f"{name}: found HEIC, which {needs('pillow_heif')}; or save it as JPEG")
    import pillow_heif

    pillow_heif.register_heif_opener()
    return Image.open(file, formats=[HEIC_FORMAT])


def image_texts(path: str | Path, longest: int) -> dict[str, str]:
    """The texts that a PNG file holds, by key, without those of more characters; empty for any other file."""
    try:
        with _problems_named(str(path)), open_regular(Path(path)) as file, Image.open(file, formats=["PNG"]) as image:
            return {key: text for key, text in image.info.items() if isinstance(text, str) and len(text) <= longest}
    except UserError:
        return {}


def list_images(folder: str | Path) -> list[Path]:
    """The images directly in a folder, sorted by name so that the first n are the same on every machine.

    Hidden files are left out.

    Raises:
        UserError: the folder is missing, is not a folder, or has no images.
    """
    folder = user_path(folder)
    check_folder(folder, "a folder with photos")
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    chosen = [folder / name for name in names if Path(name).suffix.lower() in SUFFIXES]
    if not chosen:
        others = f"found only {', '.join(names[:3])}" if names else "the folder is empty"
        raise UserError(f"{folder}: no photos; {others}; expected files ending in {', '.join(sorted(SUFFIXES))}")
    return chosen


def passed_over(folder: str | Path, known: Collection[str] = ()) -> str | None:
    """A sentence that names what is in a folder of photos and is not read; None if there is nothing of the kind.

    Args:
        known: names of other files that are read.

    Raises:
        UserError: as for `list_images`.
    """
    used = {path.name for path in list_images(folder)}
    with os.scandir(user_path(folder)) as entries:
        found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    others = [f"{entry.name}{_why_not(entry)}" for entry in found if entry.name not in used and entry.name not in known]
    if not others:
        return None
    named = some_of(others, EXAMPLES_NAMED)
    return f"{folder}: {len(found):,} found, {len(used):,} used; skipped: {named}"


def _why_not(entry: "os.DirEntry[str]") -> str:
    if entry.is_symlink() and not os.path.exists(entry.path):
        return " (dangling link)"
    if entry.is_dir():
        return " (folder)"
    if not entry.is_file():
        return " (not a regular file)"
    return f" ({needs('pillow_heif')})" if Path(entry.name).suffix.lower() in HEIC else ""


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


@contextmanager
def _problems_named(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises into a message, and hide its warnings: of bombs below our limit, and of metadata."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\b")
        try:
            yield
        except Image.DecompressionBombError:
            raise UserError(_too_large(name, "more pixels than Pillow opens")) from None
        except UnidentifiedImageError as error:
            raise UserError(_not_readable(name)) from error
        except UNREADABLE as error:
            raise UserError(f"{name}: the image is damaged ({error}); copy it again from its source") from error


def _too_large(name: str, found: str) -> str:
    return f"{name}: found {found}, expected at most {MAX_PIXELS // 1_000_000} megapixels; scale the image down"


def _not_readable(name: str) -> str:
    return f"{name}: not a readable image; expected JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, or HEIC"


def _to_rgb(name: str, image: Image.Image) -> Image.Image:
    _scale_at_decoding(image)
    if image.width * image.height > MAX_PIXELS:
        raise UserError(_too_large(name, f"{image.width} x {image.height} pixels"))
    pixels = _blended(name, ImageOps.exif_transpose(image))
    pixels.info = {}  # EXIF may hold the place where the photo was taken
    return pixels


def _scale_at_decoding(image: Image.Image) -> None:
    """Let a JPEG that has too many pixels be decoded with fewer."""
    pixels = image.width * image.height
    if image.format in JPEG_FORMATS and MAX_PIXELS < pixels <= MAX_SCALED_PIXELS:
        factor = next(factor for factor in (2, 4, 8) if pixels <= MAX_PIXELS * factor**2)
        image.draft(None, (image.width // factor, image.height // factor))


def _blended(name: str, image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise UserError(f"{name}: found floating-point pixels, expected 8 or 16 bits; save it as PNG or JPEG")
    if image.mode.startswith("I"):
        return _from_16_bit(name, image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(name: str, image: Image.Image) -> Image.Image:
    """Pillow would clip 16-bit grays at 255; scale them instead."""
    values = np.asarray(image)
    if values.size and not 0 <= values.min() <= values.max() <= 65535:
        raise UserError(f"{name}: found 32-bit pixels, expected 8 or 16 bits; save it as PNG or JPEG")
    return Image.fromarray((values.astype(np.uint32) // 257).astype(np.uint8)).convert("RGB")


PNG = {"compress_level": 1, "compress_type": zlib.Z_RLE}
"""How generated images are compressed as PNG: 15 ms for a photo of 512 px.

Measured: level 1 alone takes 1.15 times as long, for files 9% larger; Pillow's default takes 4.8 times as long, for
files 1% larger.
"""

Square: TypeAlias = tuple[int, int, int]
"""Left, top, and side in pixels of an image."""


def cut(photo: Image.Image, square: Square) -> Image.Image:
    """The part of a photo in a square."""
    left, top, side = square
    return photo.crop((left, top, left + side, top + side))


LONGEST_SIDE = 256
"""Pixels."""


def thumbnail(photo: Image.Image) -> Image.Image:
    """The photo in RGB, scaled down to at most `LONGEST_SIDE` pixels, without the camera's metadata; never enlarged."""
    scale = min(1.0, LONGEST_SIDE / max(photo.size))
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    small = photo.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    small.info = {}
    return small
