"""Makes the photos of the demo's subject out of NASA's image of the astronaut Eileen Collins."""

from __future__ import annotations

from PIL import Image, ImageEnhance, ImageOps
from skimage import data

import portraits as p

SIZE = 128
# Framing, mirrored, brightness, contrast, shift of the middle as a share of the face.
VERSIONS = (
    (p.CLOSE_UP, False, 1.0, 1.0, (0.0, 0.0)),
    (p.TIGHT, False, 1.0, 1.0, (0.0, 0.0)),
    (p.CLOSE_UP, True, 1.12, 0.95, (0.03, 0.02)),
    (p.TIGHT, True, 0.88, 1.05, (-0.03, 0.02)),
    (0.95, False, 0.92, 1.1, (0.03, -0.03)),
    (1.0, True, 1.05, 1.05, (-0.02, -0.02)),
)


def version(
    image: Image.Image,
    face: p.Face,
    framing: float,
    mirrored: bool,
    brightness: float,
    contrast: float,
    shift: tuple[float, float],
) -> Image.Image:
    """Cuts one photo out of the image and changes its light."""
    across, down = (amount * face.size for amount in shift)
    left, top, right, bottom = face.box
    moved = p.Face(face.name, (left + across, top + down, right + across, bottom + down))
    photo = p.crop(image, moved, framing, SIZE)
    photo = ImageEnhance.Contrast(ImageEnhance.Brightness(photo).enhance(brightness)).enhance(contrast)
    return ImageOps.mirror(photo) if mirrored else photo


def main() -> None:
    folder = p.DEMO / "photos" / "astronaut"
    folder.mkdir(parents=True, exist_ok=True)
    detector, image = p.finder(), Image.fromarray(data.astronaut())
    face = p.find_face(detector, image)
    if face is None:
        raise ValueError("no face was found in the astronaut's image")
    for number, settings in enumerate(VERSIONS, start=1):
        photo = version(image, face, *settings)
        print(f"{number:02d}.png face found: {p.find_face(detector, photo) is not None}")
        photo.save(folder / f"{number:02d}.png")


if __name__ == "__main__":
    main()
