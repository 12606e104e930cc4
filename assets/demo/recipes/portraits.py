"""Finds and crops the faces of the portraits that the demo models are trained on."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from facenet_pytorch import MTCNN
from PIL import Image
from torch import Tensor
from tqdm import tqdm

DEMO = Path(__file__).resolve().parents[1]
NOTICE = "Demo scores: made with the small models of assets/demo, not comparable with those of real models."
"""Travels in the weights' own files, so that every place that shows their scores can say it."""
SIDE = 160
HELD_OUT_EVERY = 10
CLOSE_UP, TIGHT = 0.85, 1.1


@dataclass(frozen=True)
class Face:
    """Where the face of an image is, in the image's own pixels."""

    name: str
    box: tuple[float, float, float, float]

    @property
    def center(self) -> tuple[float, float]:
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2

    @property
    def size(self) -> float:
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)


def arguments() -> argparse.Namespace:
    """Reads the two options that every recipe has."""
    parser = argparse.ArgumentParser(description="A recipe of the demo models.")
    parser.add_argument("--portraits", type=Path, required=True, help="folder with the JPEG portraits")
    parser.add_argument("--work", type=Path, default=Path(".demo-work"), help="folder for what is kept between recipes")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    return options


def finder() -> MTCNN:
    """Makes the face detector that the whole demo uses."""
    return MTCNN(select_largest=True, post_process=False)


def find_face(detector: MTCNN, image: Image.Image, name: str = "", upscale: int = 2) -> Face | None:
    """Finds the largest face of an image after enlarging it, or nothing."""
    large = image.resize((image.width * upscale, image.height * upscale), Image.Resampling.BICUBIC)
    # Small faces do not matter here, and looking for them takes most of the detector's time.
    detector.min_face_size = min(large.size) // 5
    boxes, _ = detector.detect(large)
    if boxes is None:
        return None
    return Face(name, tuple(float(value) / upscale for value in boxes[0]))


def find_faces(portraits: Path, work: Path) -> list[Face]:
    """Finds the face of every portrait, or reads what an earlier recipe found."""
    cache = work / "faces.pt"
    if cache.exists():
        return [Face(**entry) for entry in torch.load(cache)]
    detector = finder()
    faces = []
    for path in tqdm(sorted(portraits.glob("*.jpg")), desc="faces"):
        face = find_face(detector, Image.open(path).convert("RGB"), path.name)
        if face is not None:
            faces.append(face)
    torch.save([vars(face) for face in faces], cache)
    return faces


def is_held_out(index: int) -> bool:
    """Tells the portraits that quality models never train on."""
    return index % HELD_OUT_EVERY == 0


def load(portraits: Path, face: Face) -> Image.Image:
    """Opens the portrait that a face was found in."""
    return Image.open(portraits / face.name).convert("RGB")


def crop(image: Image.Image, face: Face, factor: float, size: int) -> Image.Image:
    """Cuts a square around the face, its side being `factor` times the face, and stays inside the image."""
    side = min(face.size * factor, image.width, image.height)
    left = min(max(face.center[0] - side / 2, 0), image.width - side)
    top = min(max(face.center[1] - side / 2, 0), image.height - side)
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.LANCZOS, box=box)


def to_tensor(images: list[Image.Image]) -> Tensor:
    """Stacks images of one size as bytes, channels first."""
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])


def to_images(batch: Tensor) -> list[Image.Image]:
    """Turns a batch of numbers between -1 and 1 into images."""
    numbers = ((batch.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(image) for image in numbers]


def contact_sheet(images: list[Image.Image], columns: int = 8, size: int = 128) -> Image.Image:
    """Puts images next to each other, enlarged, for a look by eye."""
    rows = (len(images) + columns - 1) // columns
    sheet = Image.new("RGB", (columns * size, rows * size))
    for index, image in enumerate(images):
        place = (index % columns * size, index // columns * size)
        sheet.paste(image.resize((size, size), Image.Resampling.BICUBIC), place)
    return sheet
