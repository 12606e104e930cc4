"""What the model will see: every photo's crop with its face, and what is wrong with it, before training starts."""

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from PIL.Image import Image, Resampling

from finetune_monitor.base.files import sha256, write_atomic
from finetune_monitor.base.images import Square, cut
from finetune_monitor.base.json_files import as_list, as_object, as_text, as_whole, damage_named, read_object
from finetune_monitor.base.redaction import redacted
from finetune_monitor.base.text import counted, some_of
from finetune_monitor.record.run_directory import PHOTOS
from finetune_monitor.training.crops import SMALL_FACE, center_square, face_square, relative_box
from finetune_monitor.training.photos import TrainingPhoto

if TYPE_CHECKING:
    from finetune_monitor.models.face_reader import FaceReader
    from finetune_monitor.models.faces import Face

ANOTHER_PERSON = 0.5
"""A photo whose similarity to the others is below this share of the median photo's may show another person. Measured
with dlib's recognizer: 0.61 to 0.69 for photos of one person, 0.10 for another one among them. With a recognizer that
separates people less, another person may be missed."""

FEWEST = 3
"""With fewer photos, the model learns the photos rather than the person."""

BLURRED = 0.6
"""Measured on crops of 512 px: 0.25 to 0.40 for sharp faces, also enlarged twofold; 0.53 to 0.67 after Gaussian blur
with a standard deviation of 2 pixels, 0.73 to 0.83 with 4."""

BLUR_WINDOW = 11

SAME_PHOTO = 0.98
"""Correlation of luminance above which two photos are the same one. Measured: 1.00 for scaled and re-encoded copies,
0.79 at most for different crops of one portrait."""

SIDE = 32
"""Side in pixels to which photos are reduced for that: this keeps composition and light but no detail."""

SMALLEST_PART = 24
"""Pixels; the sharpness of a smaller face says nothing."""

SHOWN = 256
"""Side in pixels of a crop on the contact sheet."""

MOST_SHOWN = 100
"""Photos on the contact sheet."""

REMEDY = "delete it: the crops are then found again"

Row = Float[np.ndarray, "_"]


@dataclass(frozen=True)
class View:
    """One photo as training crops it.

    name: its path in the folder of photos.
    square: the crop, before `data.random_crop`.
    box: the largest face's box, 0 to 1 of the crop's side; None if no face was found, or none was searched.
    embedding: of that face.
    blur: 0 (sharp) to 1, of the face, or of the entire crop.
    luminance: two rows of length 1, of the photo and of its crop; the product of two photos' rows is their correlation.
    shown: the crop for the contact sheet; None for photos beyond its end.
    """

    name: str
    photo: TrainingPhoto
    sha256: str
    square: Square
    box: tuple[float, float, float, float] | None
    embedding: Row | None
    blur: float
    luminance: tuple[Row, Row]
    shown: Image | None

    @property
    def face_share(self) -> float | None:
        """The share of the crop's area that the face covers."""
        if self.box is None:
            return None
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)

    @property
    def has_small_face(self) -> bool:
        return self.face_share is not None and self.face_share < SMALL_FACE


@dataclass(frozen=True)
class Survey:
    """The photos, in order, and what is wrong with them.

    has_looked: whether faces were searched.
    crop: `face` or `center`.
    held_out: the luminance of photos that are held out, by name.
    """

    views: Sequence[View]
    has_looked: bool
    crop: str
    held_out: Mapping[str, Row] = field(default_factory=dict)

    @property
    def squares(self) -> dict[Path, Square]:
        """The crops that are not at the center."""
        return {view.photo.path: view.photo.square for view in self.views if view.photo.square is not None}

    @cached_property
    def similarities(self) -> list[float | None]:
        """Each face's mean cosine with the faces of all other photos; None if there are none to compare."""
        known = [view.embedding for view in self.views if view.embedding is not None]
        if len(known) < 2:
            return [None] * len(self.views)
        total = np.sum(known, axis=0)
        rows = [view.embedding for view in self.views]
        return [None if row is None else float(row @ (total - row)) / (len(known) - 1) for row in rows]

    @cached_property
    def usual_similarity(self) -> float | None:
        """The median of the similarities; None for fewer than three."""
        known = [each for each in self.similarities if each is not None]
        return statistics.median(known) if len(known) >= FEWEST else None

    def is_outlier(self, index: int) -> bool:
        """Whether a photo may show another person than most."""
        found, usual = self.similarities[index], self.usual_similarity
        return found is not None and usual is not None and found < ANOTHER_PERSON * usual

    @cached_property
    def same(self) -> list[tuple[int, int]]:
        """Pairs of indices of photos with the same content or crop, also scaled or encoded differently."""
        photos, crops = (np.stack(rows) for rows in zip(*(view.luminance for view in self.views), strict=True))
        is_same = np.maximum(photos @ photos.T, crops @ crops.T) > SAME_PHOTO
        return [(int(i), int(j)) for i, j in np.argwhere(np.triu(is_same, k=1))]

    @property
    def has_faces(self) -> bool:
        """Whether some photo shows a face, so that all of them should."""
        return any(view.box is not None for view in self.views)

    def marks(self, index: int) -> list[str]:
        """What is wrong with a photo, in a few words each."""
        view, twins = self.views[index], [self.views[i + j - index].name for i, j in self.same if index in (i, j)]
        found = {
            "another person?": self.is_outlier(index),
            "no face found": view.box is None and self.has_faces,
            "small face": view.has_small_face,
            "blurred": view.blur > BLURRED,
        }
        return [*(mark for mark, holds in found.items() if holds), *(f"same as {twin}" for twin in twins[:1])]

    @cached_property
    def warnings(self) -> list[str]:
        """One sentence for each kind of problem: the photos that have it, and what to change."""
        return [*self._about_people(), *(self._about_faces() if self.has_looked else ()), *self._about_photos()]

    def _about_people(self) -> Iterator[str]:
        outliers = [i for i in range(len(self.views)) if self.is_outlier(i)]
        if outliers:
            named = [f"{self.views[i].name} ({self.similarities[i]:.2f})" for i in outliers]
            yield (
                f"another person? {some_of(named)}: similarity to the other photos, where {self.usual_similarity:.2f} "
                "is usual; remove what does not show the subject, or crop it to the subject"
            )

    def _about_faces(self) -> Iterator[str]:
        if not self.has_faces:
            yield "no photo shows a face: all are cropped at the center; if the subject has none, set data.crop=center"
            return
        if missing := [view.name for view in self.views if view.box is None]:
            yield f"no face found: {some_of(missing)}; cropped at the center; use photos with a larger, upright face"
        if small := [view for view in self.views if view.has_small_face]:
            named = [f"{view.name} ({view.face_share:.0%})" for view in small]
            crop = " or set data.crop=face," if self.crop == "center" else ""
            yield (
                f"faces under {SMALL_FACE:.0%} of the crop: {some_of(named)}; a face is learned from its pixels: "
                f"take photos from closer,{crop} or use larger files"
            )

    def _about_photos(self) -> Iterator[str]:
        if len(self.views) < FEWEST:
            yield (
                f"found {counted(len(self.views), 'photo')}; from fewer than {FEWEST}, the model learns the photos "
                "rather than the person; add photos with other light, poses, and backgrounds"
            )
        if self.same:
            pairs = [f"{self.views[i].name} = {self.views[j].name}" for i, j in self.same]
            yield f"the same photo twice: {some_of(pairs)}; it counts double and is copied sooner; remove one of each"
        if shared := self._also_held_out():
            yield (
                f"held-out photos that are also trained on, scaled or encoded differently: {some_of(shared)}; scores "
                "on them are those of training photos; remove one of each"
            )
        if blurred := [view.name for view in self.views if view.blur > BLURRED]:
            yield f"blurred: {some_of(blurred)}; the model learns the blur, too; use sharp photos, or larger files"

    def _also_held_out(self) -> list[str]:
        return [
            f"{name} = {view.name}"
            for name, row in self.held_out.items()
            for view in self.views
            if float(row @ view.luminance[0]) > SAME_PHOTO
        ]

    def to_json(self) -> dict[str, Any]:
        """The content of photos.json; it holds no image."""
        return {
            "photos": [
                {
                    "file": view.name,
                    "prompt": view.photo.prompt,
                    "repeats": view.photo.repeats,
                    "sha256": view.sha256,
                    "square": list(view.square),
                    "box": None if view.box is None else [round(edge, 4) for edge in view.box],
                    "face_share": None if view.face_share is None else round(view.face_share, 4),
                    "similarity": None if (found := self.similarities[i]) is None else round(found, 4),
                    "outlier": self.is_outlier(i),
                    "warnings": self.marks(i),
                }
                for i, view in enumerate(self.views)
            ],
            "warnings": self.warnings,
        }


def write_photos(run_dir: Path, survey: Survey) -> None:
    """Write photos.json into a run directory, without what looks like a secret."""
    content = json.dumps(redacted(survey.to_json()), indent=2, ensure_ascii=False) + "\n"
    write_atomic(run_dir / PHOTOS, content.encode(errors="backslashreplace"))


def recorded_squares(run_dir: Path) -> dict[str, Square]:
    """The crops of an earlier start of the run, by the photos' SHA-256; empty if it recorded none.

    Raises:
        UserError: photos.json is damaged.
    """
    file = run_dir / PHOTOS
    if not file.exists():
        return {}
    with damage_named(file, REMEDY):
        entries = [as_object(entry) for entry in as_list(read_object(file, "a run directory", REMEDY)["photos"])]
        return {as_text(entry["sha256"]): _square(as_list(entry["square"])) for entry in entries}


def _square(values: list[Any]) -> Square:
    left, top, side = map(as_whole, values)
    return left, top, side


@dataclass(frozen=True)
class Surveyor:
    """Looks at photos.

    folder: that of the photos.
    reader: finds and embeds faces; None to look for none.
    crop: `face` or `center`.
    known: crops of an earlier start, by SHA-256, which stay as they were.
    """

    folder: Path
    reader: "FaceReader | None"
    crop: str
    resolution: int
    known: Mapping[str, Square]

    def survey(self, photos: Sequence[TrainingPhoto], images: Iterable[Image]) -> Survey:
        """The survey of photos, whose images (RGB) may come one at a time."""
        pairs = zip(photos, images, strict=True)
        views = [self._view(photo, image, i < MOST_SHOWN) for i, (photo, image) in enumerate(pairs)]
        return Survey(views, self.reader is not None, self.crop)

    def squares(self, paths: Sequence[Path], images: Sequence[Image]) -> dict[Path, Square]:
        """The crops of photos that are only compared with, without those at the center."""
        found = {path: self._square(path, image) for path, image in zip(paths, images, strict=True)}
        return {path: square for path, square in found.items() if square is not None}

    def _square(self, path: Path, image: Image) -> Square | None:
        """The crop; None for the largest one in the center."""
        if self.crop != "face":
            return None
        faces = self._faces(image)
        found = face_square(image.size, faces[0].box.tolist(), self.resolution) if faces else None
        square = self.known.get(sha256(path), found)
        return None if square == center_square(image.size) else square

    def _faces(self, image: Image) -> "list[Face]":
        return self.reader.find([image])[0] if self.reader is not None else []

    def _view(self, photo: TrainingPhoto, image: Image, is_shown: bool) -> View:
        faces, square = self._faces(image), self._square(photo.path, image)
        place = square or center_square(image.size)
        crop = cut(image, place).resize((self.resolution, self.resolution), Resampling.LANCZOS)
        box = relative_box(faces[0].box.tolist(), place) if faces else None
        return View(
            self._name(photo.path),
            replace(photo, square=square),
            sha256(photo.path),
            place,
            box,
            self.reader.embed_first([image])[0][0] if self.reader is not None and faces else None,
            blur(_part(crop, box).convert("L")),
            (luminance(image), luminance(crop)),
            _shown(crop) if is_shown else None,
        )

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else path.name


def _shown(crop: Image) -> Image:
    """The crop on the contact sheet; if it is small, with the pixels that the model sees."""
    return crop.resize((SHOWN, SHOWN), Resampling.NEAREST if crop.width < SHOWN else Resampling.LANCZOS)


def _part(crop: Image, box: Sequence[float] | None) -> Image:
    """The face in a crop, or all of it if there is none, or a tiny one."""
    if box is None:
        return crop
    left, top, right, bottom = (round(edge * crop.width) for edge in box)
    return crop.crop((left, top, right, bottom)) if min(right - left, bottom - top) >= SMALLEST_PART else crop


def blur(image: Image) -> float:
    """How little blurring changes a gray image, 0 (sharp) to 1 (Crété et al. 2007): of both directions, the larger."""
    pixels = np.asarray(image, dtype=np.float64)
    return max(_blur_down(pixels), _blur_down(pixels.T))


def _blur_down(pixels: Float[np.ndarray, "h w"]) -> float:
    half = BLUR_WINDOW // 2
    sums = np.cumsum(np.pad(pixels, ((half + 1, half), (0, 0)), mode="edge"), axis=0)
    blurred = (sums[BLUR_WINDOW:] - sums[:-BLUR_WINDOW]) / BLUR_WINDOW
    steps, left = np.abs(np.diff(pixels, axis=0)), np.abs(np.diff(blurred, axis=0))
    total = float(steps.sum())
    return 1 - float(np.maximum(0, steps - left).sum()) / total if total else 0.0


def luminance(image: Image) -> Row:
    """Brightness without detail, as a row of length 1."""
    row = np.asarray(image.convert("L").resize((SIDE, SIDE), Resampling.BOX), dtype=np.float64).ravel()
    row = row - row.mean()
    length = float(np.linalg.norm(row))
    found: Row = row / length if length else row
    return found
