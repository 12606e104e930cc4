"""Photos of every kind are read right, or refused by name."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import list_images, read_image, read_images

RED = (200, 30, 10)


def save(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def rgba(alpha: int) -> Image.Image:
    return Image.new("RGBA", (8, 6), (*RED, alpha))


def palette_with_transparency() -> Image.Image:
    image = Image.new("RGB", (8, 6), RED).convert("P", palette=Image.Palette.ADAPTIVE)
    image.info["transparency"] = image.getpixel((0, 0))
    return image


def gray_16_bit() -> Image.Image:
    return Image.fromarray(np.full((6, 8), 200 * 257, dtype=np.uint16))


@pytest.mark.parametrize(
    ("name", "image", "expected", "tolerance"),
    [
        ("rgb.png", Image.new("RGB", (8, 6), RED), RED, 0),
        ("rgb.jpg", Image.new("RGB", (8, 6), RED), RED, 4),
        ("opaque.png", rgba(255), RED, 0),
        ("clear.png", rgba(0), (255, 255, 255), 0),
        ("half.webp", rgba(128), (227, 142, 132), 6),
        ("cmyk.jpg", Image.new("RGB", (8, 6), RED).convert("CMYK"), RED, 6),
        ("cmyk.tiff", Image.new("RGB", (8, 6), RED).convert("CMYK"), RED, 0),
        ("palette.png", Image.new("RGB", (8, 6), RED).convert("P", palette=Image.Palette.ADAPTIVE), RED, 0),
        ("palette_clear.png", palette_with_transparency(), (255, 255, 255), 0),
        ("gray.png", Image.new("L", (8, 6), 77), (77, 77, 77), 0),
        ("gray_alpha.png", Image.new("LA", (8, 6), (77, 0)), (255, 255, 255), 0),
        ("gray16.png", gray_16_bit(), (200, 200, 200), 0),
        ("gray16.tif", gray_16_bit(), (200, 200, 200), 0),
        ("bits.png", Image.new("1", (8, 6), 1), (255, 255, 255), 0),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, name, image, expected, tolerance):
    found = read_image(save(tmp_path / name, image))
    assert (found.mode, found.size) == ("RGB", (8, 6))
    assert np.abs(np.asarray(found, dtype=int) - expected).max() <= tolerance


def test_16_bit_color_is_scaled(tmp_path):
    row = b"\0" + struct.pack(">3H", 200 * 257, 30 * 257, 10 * 257) * 8
    chunks = [(b"IHDR", struct.pack(">2I5B", 8, 6, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(row * 6)), (b"IEND", b"")]
    (tmp_path / "rgb48.png").write_bytes(png(chunks))
    assert read_image(tmp_path / "rgb48.png").getpixel((3, 3)) == RED


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


HELD = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE"}
"""What a camera with this EXIF orientation does to the image that one sees."""


@pytest.mark.parametrize(("orientation", "held"), [(1, None), *HELD.items(), (8, "ROTATE_270")])
def test_exif_orientation_is_applied(tmp_path, orientation, held):
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 16, 3), dtype=np.uint8))
    stored = upright.transpose(Image.Transpose[held]) if held else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = read_image(save(tmp_path / "photo.png", stored, exif=exif))
    assert np.array_equal(np.asarray(found), np.asarray(upright))


@pytest.mark.parametrize("name", ["moving.gif", "moving.png", "moving.webp"])
def test_an_animation_gives_its_first_frame(tmp_path, name):
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
    path = save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], lossless=True)
    assert read_image(path).getpixel((2, 2))[0] > 250


@pytest.mark.parametrize("name", ["cut.jpg", "cut.png", "cut.webp", "cut.bmp", "cut.gif", "cut.tiff"])
def test_a_truncated_image_is_refused_by_name(tmp_path, name):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    whole = save(tmp_path / name, noise).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=name):
        read_image(tmp_path / name)


def test_what_is_no_image_is_refused_by_name(tmp_path):
    (tmp_path / "note.jpg").write_text("not an image")
    save(tmp_path / "float.tiff", Image.fromarray(np.zeros((4, 4), dtype=np.float32)))
    for name, reason in [
        ("note.jpg", "not a readable image"),
        ("float.tiff", "floating-point"),
        ("gone.png", "no such file"),
    ]:
        with pytest.raises(UserError, match=f"{name}.*{reason}"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("side", [12_000, 60_000])  # 144 megapixels, and more than Pillow itself opens
def test_a_decompression_bomb_is_refused_before_decoding(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(
        png([(b"IHDR", struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)), (b"IDAT", b"")])
    )
    with pytest.raises(UserError, match=r"bomb\.png.*at most 120 megapixels"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.slow
def test_a_large_camera_image_is_no_bomb(tmp_path):
    path = save(tmp_path / "large.png", Image.new("1", (12_000, 9_000)), compress_level=1)
    assert read_image(path).size == (12_000, 9_000)


def test_a_folder_is_listed_in_a_fixed_order(tmp_path):
    for name in ("b.PNG", "a.jpg", "C.jpeg"):
        save(tmp_path / name, Image.new("RGB", (4, 4)))
    (tmp_path / "captions.txt").write_text("a photo")
    (tmp_path / "._a.jpg").write_bytes(b"litter of another system")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["C.jpeg", "a.jpg", "b.PNG"]
    assert len(read_images(list_images(tmp_path))) == 3


@pytest.mark.parametrize(
    ("name", "reason"), [("gone", "no such folder"), ("empty", "empty"), ("texts", "a.svg"), ("file", "found a file")]
)
def test_a_folder_without_photos_is_refused(tmp_path, name, reason):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.svg").write_text("")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=reason):
        list_images(tmp_path / name)


def test_all_unreadable_photos_are_named_at_once(tmp_path):
    good = save(tmp_path / "good.png", Image.new("RGB", (4, 4)))
    for name in ("bad1.jpg", "bad2.jpg"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"2 of 3(?s:.*)bad1\.jpg(?s:.*)bad2\.jpg"):
        read_images([tmp_path / "bad1.jpg", good, tmp_path / "bad2.jpg"])
