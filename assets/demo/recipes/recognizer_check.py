"""Measures the written recognizer on photos of people it was not trained on."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from scipy.stats import mannwhitneyu

import portraits as p
from recognizer import SIZE

PEOPLE = {
    "obama": "obama",
    "biden": "biden",
    "john": "kit_harington",
    "lin-manuel": "lin-manuel-miranda",
    "alex": "alex_lacamoire",
}
# Several faces, an unnamed person, and cuts of other photos that show half a face.
LEFT_OUT = ("obama_and_biden", "kit_with_rose", "two_people", "32bit", "obama_partial_face")
SAME_PHOTO = 0.85


def person_of(path: Path) -> str | None:
    """Tells from the name of a photo, or of its folder, who is on it."""
    if path.stem.startswith(LEFT_OUT):
        return None
    if path.parent.parent.name == "train":
        return path.parent.name
    return next((person for start, person in PEOPLE.items() if path.stem.startswith(start)), None)


def aligned_photos(folder: Path) -> list[tuple[str, Path, Image.Image]]:
    """Aligns the face of every photo of one known person."""
    detector, found = p.finder(), []
    for path in sorted(path for path in folder.rglob("*") if re.search(r"\.(jpe?g|png)$", path.name, re.I)):
        person = person_of(path)
        if person is None:
            continue
        image = Image.open(path).convert("RGB")
        image.thumbnail((640, 640))
        face = p.find_face(detector, image, upscale=1)
        if face is not None:
            found.append((person, path, p.align(image, face, SIZE)))
    return found


def without_copies(photos: list[tuple[str, Path, Image.Image]]) -> list[tuple[str, Path, Image.Image]]:
    """Leaves out photos whose aligned face is, pixel by pixel, that of an earlier photo, whatever the file's size."""
    kept: list[tuple[str, Path, Image.Image]] = []
    for photo in photos:
        gray = np.asarray(photo[2].convert("L"), dtype=float).ravel()
        others = (np.asarray(other[2].convert("L"), dtype=float).ravel() for other in kept)
        likeness = max((np.corrcoef(gray, other)[0, 1] for other in others), default=0.0)
        print(f"{photo[0]:20} {photo[1].name:24} {likeness:.3f} {'copy' if likeness > SAME_PHOTO else ''}")
        if likeness <= SAME_PHOTO:
            kept.append(photo)
    return kept


def embed(images: list[Image.Image]) -> np.ndarray:
    """Runs the written recognizer on aligned faces."""
    session = onnxruntime.InferenceSession(str(p.DEMO / "recognizer.onnx"), providers=["CPUExecutionProvider"])
    batch = ((p.to_tensor(images).float() - 127.5) / 127.5).numpy()
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def report(people: list[str], vectors: np.ndarray) -> None:
    """Prints how well the cosine separates pairs of one person from pairs of two people."""
    pairs = list(itertools.combinations(range(len(people)), 2))
    same = np.array([people[a] == people[b] for a, b in pairs])
    cosines = np.array([vectors[a] @ vectors[b] for a, b in pairs])
    print(f"photos {len(people)}, people {len(set(people))}, same {same.sum()}, different {(~same).sum()}")
    wins = mannwhitneyu(cosines[same], cosines[~same]).statistic
    print(f"AUC {wins / same.sum() / (~same).sum():.3f}")
    for name, part in (("same", cosines[same]), ("different", cosines[~same])):
        print(name, "10/50/90 %:", np.percentile(part, (10, 50, 90)).round(2), f"mean {part.mean():.2f}")
    limits = np.linspace(-0.5, 1, 151)
    errors = [max((cosines[~same] >= limit).mean(), (cosines[same] < limit).mean()) for limit in limits]
    print(f"equal error {min(errors):.2f} at cosine {limits[int(np.argmin(errors))]:.2f}")


def main() -> None:
    options = p.arguments("faces")
    photos = without_copies(aligned_photos(options.faces))
    report([person for person, _, _ in photos], embed([image for _, _, image in photos]))


if __name__ == "__main__":
    main()
