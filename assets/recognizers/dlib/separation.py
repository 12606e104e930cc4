"""Measures how well a recognizer tells people apart: several photos each of a few people, and portraits of many others.

python assets/recognizers/dlib/separation.py --faces DIR --portraits DIR [--recognizer NAME]

The first DIR is a checkout of face_recognition (its example and test photos), the second as in make_weights.py.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.stats import mannwhitneyu

from finetune_monitor.models.faces import Face, FaceFinder, arcface_crop
from finetune_monitor.models.recognizers import Recognizer, load_recognizer

PEOPLE = {
    "obama": "obama",
    "biden": "biden",
    "john": "kit_harington",
    "lin-manuel": "lin-manuel-miranda",
    "alex": "alex_lacamoire",
}
PORTRAITS = {"O000167": "obama", "B000444": "biden"}
LEFT_OUT = ("obama_and_biden", "kit_with_rose", "two_people", "32bit", "obama_partial_face")
"""Several faces, an unnamed person, and cuts of other photos that show half a face."""
SAME_PHOTO = 0.85
"""A photo is a copy if its aligned face correlates above, pixel by pixel, with an earlier one of the person."""
PORTRAIT_EVERY, FIRST_PORTRAIT = 6, 3
"""Portraits of other people, none of them among those whose mean is subtracted."""
FULL, SMALL = None, 64
FRAME = 1.6
"""Side of the small square images, in sides of the face."""


@dataclass(frozen=True)
class Photo:
    person: str
    image: Image.Image
    face: Face


@dataclass(frozen=True)
class Separation:
    """Cosines of pairs of the same person and of different people."""

    same: np.ndarray
    different: np.ndarray

    @property
    def auc(self) -> float:
        wins = mannwhitneyu(self.same, self.different).statistic
        return float(wins / len(self.same) / len(self.different))


def person_of(path: Path) -> str | None:
    """Who is on a photo, by its name or its folder's; None for a photo that is left out."""
    if path.stem.startswith(LEFT_OUT):
        return None
    if path.parent.parent.name == "train":
        return path.parent.name
    return next((person for start, person in PEOPLE.items() if path.stem.startswith(start)), None)


def labeled_photos(faces: Path, portraits: Path, side: int | None = FULL) -> list[Photo]:
    """Photos of people, without copies; with `side`, squares around the faces, reduced to it."""
    named = [(person_of(path), path) for path in sorted(faces.rglob("*")) if re.search(r"\.(jpe?g|png)$", path.name)]
    named += [(person, portraits / f"{name}.jpg") for name, person in PORTRAITS.items()]
    others = sorted(portraits.glob("*.jpg"))[FIRST_PORTRAIT::PORTRAIT_EVERY]
    named += [(path.stem, path) for path in others if path.stem not in PORTRAITS]
    photos = with_face([(person, Image.open(path).convert("RGB")) for person, path in named if person])
    photos = without_copies(photos)
    return photos if side is None else with_face([(photo.person, framed(photo, side)) for photo in photos])


def with_face(images: list[tuple[str, Image.Image]]) -> list[Photo]:
    found = FaceFinder().find([image for _, image in images])
    return [Photo(person, image, faces[0]) for (person, image), faces in zip(images, found, strict=True) if faces]


def without_copies(photos: list[Photo]) -> list[Photo]:
    kept: list[tuple[Photo, np.ndarray]] = []
    for photo in photos:
        gray = arcface_crop(photo.image, photo.face).mean(axis=2).ravel()
        earlier = [crop for other, crop in kept if other.person == photo.person]
        if all(np.corrcoef(gray, crop)[0, 1] <= SAME_PHOTO for crop in earlier):
            kept.append((photo, gray))
    return [photo for photo, _ in kept]


def framed(photo: Photo, side: int) -> Image.Image:
    """A square around the face, reduced to `side` pixels."""
    left, top, right, bottom = photo.face.box
    reach = FRAME * max(right - left, bottom - top) / 2
    x, y = (left + right) / 2, (top + bottom) / 2
    square = photo.image.crop((round(x - reach), round(y - reach), round(x + reach), round(y + reach)))
    return square.resize((side, side), Image.Resampling.LANCZOS)


def separation(recognizer: Recognizer, photos: list[Photo]) -> Separation:
    """All pairs of the photos."""
    vectors = recognizer.embed([photo.image for photo in photos], [photo.face for photo in photos])
    people = np.array([photo.person for photo in photos])
    first, second = np.triu_indices(len(photos), 1)
    cosines, same = (vectors @ vectors.T)[first, second], people[first] == people[second]
    return Separation(cosines[same], cosines[~same])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--portraits", type=Path, required=True)
    parser.add_argument("--recognizer", default="dlib")
    options = parser.parse_args()
    recognizer = load_recognizer(options.recognizer)
    for side in (FULL, SMALL):
        photos = labeled_photos(options.faces, options.portraits, side)
        found = separation(recognizer, photos)
        print(f"{side or 'full'} px: {len(photos)} photos of {len({photo.person for photo in photos})} people")
        print(f"  AUC {found.auc:.5f}")
        for name, cosines in (("same person", found.same), ("different people", found.different)):
            low, middle, high = np.percentile(cosines, (1, 50, 99)).round(2)
            print(f"  {name}: {len(cosines)} pairs, mean {cosines.mean():.2f}, 1/50/99% at {low}, {middle}, {high}")


if __name__ == "__main__":
    main()
