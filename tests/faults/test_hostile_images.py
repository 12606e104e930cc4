"""Images that are something else, too large, or damaged, and folders in which not everything is a photo."""

import io
import os
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune_monitor.base import images
from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import as_rgb, list_images, passed_over, read_image
from finetune_monitor.metrics.reference_photos import ReferencePhotos
from support import needs

RED = (200, 30, 10)
OURS = {"AVIF", "BMP", "GIF", "HEIF", "JPEG", "MPO", "PNG", "TIFF", "WEBP"}
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\nshowpage\n%%EOF\n"


def noise(width: int = 64, height: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def content(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(("reader", "starts"), [("read_image", False), ("Image.open", True)])
def test_postscript_named_jpg_never_starts_ghostscript(reader, starts, tmp_path):
    """Read by Pillow alone, the same file starts it, so this test can fail."""
    (tmp_path / "photo.jpg").write_bytes(EPS)
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    script = (
        "import sys; from PIL import Image; from finetune_monitor.base.images import read_image\n"
        f"{reader}(sys.argv[1]).load()"
    )
    path = f"{tmp_path}:{os.environ['PATH']}"
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "photo.jpg")],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (tmp_path / "started").exists() == starts
    assert ended.returncode != 0
    assert ("photo.jpg: not a readable image" in ended.stderr) != starts


Image.init()


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(set(Image.SAVE) - OURS - {"IM", "PDF", "PALM", "WMF", "HDF5", "GRIB", "BUFR"}))
def test_other_decoders_are_never_used(kind, tmp_path):
    mode = {"BLP": "P", "XBM": "1", "MSP": "1"}.get(kind, "RGB")
    noise().convert(mode).save(tmp_path / "photo", kind)
    (tmp_path / "photo").rename(tmp_path / "photo.jpg")
    with pytest.raises(UserError, match=r"photo\.jpg: not a readable image; expected JPEG"):
        read_image(tmp_path / "photo.jpg")


def test_an_opened_image_of_another_kind_is_refused_before_it_is_decoded(tmp_path):
    (tmp_path / "photo.eps").write_bytes(EPS)
    with Image.open(tmp_path / "photo.eps") as opened, pytest.raises(UserError, match="photo 0: not a readable image"):
        ReferencePhotos.read([opened])


@pytest.mark.parametrize(
    "name",
    [
        "photo.jfif",
        "photo.JPE",
        pytest.param("photo.avif", marks=needs.avif),
        pytest.param("a.heic", marks=needs.heic),
    ],
)
def test_what_cameras_write_is_read(name, tmp_path):
    kind = {".avif": "AVIF", ".heic": "HEIF"}.get(Path(name).suffix, "JPEG")
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    (tmp_path / name).write_bytes(content(Image.new("RGB", (64, 48), RED), kind))
    assert list_images(tmp_path) == [tmp_path / name]
    found = read_image(tmp_path / name)
    assert (found.mode, found.size) == ("RGB", (64, 48))
    assert np.abs(np.asarray(found, dtype=int) - RED).max() < 8


@needs.heic
def test_heic_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    import pillow_heif

    pillow_heif.register_heif_opener()
    (tmp_path / "a.heic").write_bytes(content(noise(), "HEIF"))
    noise().save(tmp_path / "b.png")
    monkeypatch.setattr(images, "READS_HEIC", False)
    monkeypatch.setattr(images, "SUFFIXES", images.SUFFIXES - images.HEIC)
    with pytest.raises(UserError, match=r'a\.heic: found HEIC.*pip install "finetune_monitor\[heic\]".*as JPEG'):
        read_image(tmp_path / "a.heic")
    assert 'skipped: a.heic (needs the package pillow_heif; pip install "finetune_monitor[heic]")' in str(
        passed_over(tmp_path)
    )


def test_what_is_passed_over_is_said_in_one_line(tmp_path):
    noise().save(tmp_path / "a.png")
    assert passed_over(tmp_path) is None
    (tmp_path / "more").mkdir()
    noise().save(tmp_path / "more/b.png")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "c.jpg")
    (tmp_path / ".DS_Store").write_text("")
    assert passed_over(tmp_path) == (
        f"{tmp_path}: 4 found, 1 used; skipped: b.jpg (dangling link), c.jpg (not a regular file), more (folder)"
    )
    for number in range(5):
        (tmp_path / f"{number}.svg").write_text("")
    assert passed_over(tmp_path) == f"{tmp_path}: 9 found, 1 used; skipped: 0.svg, 1.svg, 2.svg, and 5 more"
    with pytest.warns(UserWarning, match="9 found, 1 used"):
        assert len(ReferencePhotos.read(tmp_path).names) == 1


@pytest.mark.slow
def test_a_jpeg_of_200_megapixels_is_scaled_at_decoding(tmp_path):
    (tmp_path / "phone.jpg").write_bytes(content(Image.new("L", (16_320, 12_240), 77), "JPEG"))
    found = read_image(tmp_path / "phone.jpg")
    assert found.size == (8160, 6120)
    assert found.getpixel((4000, 3000)) == (77, 77, 77)


@pytest.mark.parametrize("side", [25_000, 65_000])
def test_a_jpeg_that_scaling_cannot_save_is_refused(side, tmp_path):
    whole = bytearray(content(Image.new("L", (64, 64)), "JPEG"))
    at = whole.index(b"\xff\xc0") + 5
    whole[at : at + 4] = side.to_bytes(2, "big") * 2
    (tmp_path / "bomb.jpg").write_bytes(whole)
    with pytest.raises(UserError, match=rf"found {side} x {side} pixels, expected at most 120 megapixels"):
        read_image(tmp_path / "bomb.jpg")


def test_an_image_in_memory_is_read_as_its_file_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, image, options in (
        ("turned.jpg", noise(), {"exif": exif, "quality": 95}),
        ("clear.png", Image.new("RGBA", (8, 6), (*RED, 0)), {}),
        ("gray16.png", Image.fromarray(np.full((6, 8), 200 * 257, dtype=np.uint16)), {}),
    ):
        image.save(tmp_path / name, **options)
        with Image.open(tmp_path / name) as opened:
            [found] = ReferencePhotos.read([opened]).images
        assert np.array_equal(np.asarray(found), np.asarray(read_image(tmp_path / name))), name
        assert not found.info
    with pytest.raises(UserError, match="photo 0: found floating-point pixels"):
        ReferencePhotos.read([Image.fromarray(np.zeros((4, 4), dtype=np.float32))])
    with pytest.raises(UserError, match=r"huge: found 12000 x 12000 pixels, expected at most"):
        as_rgb(Image.new("1", (12_000, 12_000)), "huge")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_damage_is_always_a_message(kind, tmp_path):
    rng = random.Random(kind)
    whole = content(noise(), kind)
    for index in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 3, 20))):
            damaged[rng.randrange(min(len(damaged), 400))] = rng.randrange(256)
        path = tmp_path / f"{index}.png"
        path.write_bytes(damaged[: rng.choice((len(damaged), rng.randrange(len(damaged))))])
        with suppress(UserError):
            assert read_image(path).mode == "RGB"
