"""Faces are found in real photos, and cut out as the recognizers expect."""

import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN
from PIL import Image
from skimage.data import astronaut
from skimage.transform import SimilarityTransform, warp

from finetune_monitor.models.face_detection import Detector, pyramid
from finetune_monitor.models.faces import (
    ARCFACE_TEMPLATE,
    DLIB_TEMPLATE,
    Face,
    FaceFinder,
    arcface_crop,
    detection_size,
    dlib_crop,
    facenet_crop,
    similarity_transform,
)
from support import needs
from support.places import DEMO, SHARED

PEOPLE = SHARED / "faces/face_recognition/examples"
FACE_AT = (175, 60, 275, 175)  # the astronaut's face, by eye


@pytest.fixture(scope="module")
def face(finder, photo) -> Face:
    return finder.find([photo])[0][0]


def overlap(a, b) -> float:
    """Intersection over union of two boxes."""
    both = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return both / (sum(areas) - both)


def test_a_face_is_found_with_its_landmarks(face):
    assert overlap(face.box, FACE_AT) > 0.7
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]
    assert face.probability > 0.99


@pytest.mark.parametrize("side", [64, 96])
def test_boxes_of_small_images_are_in_their_own_pixels(finder, photo, face, side):
    box = (100, 20, 356, 276)
    (small,) = finder.find([photo.crop(box).resize((side, side), Image.Resampling.LANCZOS)])[0]
    back = small.landmarks * (256 / side) + box[:2]
    assert np.abs(back - face.landmarks).max() < 8
    assert overlap(small.box * (256 / side) + np.tile(box[:2], 2), face.box) > 0.75


def test_images_of_all_sizes_in_one_call(finder, photo, face):
    blank, tiny = Image.new("RGB", (512, 512), "gray"), Image.new("RGB", (8, 300))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    half = photo.resize((256, 256))
    found = finder.find([blank, photo, tiny, half, noise, Image.new("RGB", (1, 1)), Image.new("RGB", (13, 2000))])
    assert [len(faces) for faces in found] == [0, 1, 0, 1, 0, 0, 0]
    assert np.allclose(found[1][0].landmarks, face.landmarks, atol=0.1)
    assert np.allclose(found[3][0].landmarks * 2, face.landmarks, atol=4)
    assert finder.find([]) == []


def test_the_largest_face_comes_first(finder, photo):
    canvas = Image.new("RGB", (700, 512))
    canvas.paste(photo.crop((100, 0, 356, 256)).resize((160, 160)), (0, 100))
    canvas.paste(photo.crop((100, 0, 356, 256)).resize((400, 400)), (250, 50))
    faces = finder.find([canvas])[0]
    assert len(faces) == 2
    assert faces[0].area > faces[1].area
    assert faces[0].box[0] > 250 > faces[1].box[0]


@needs.shared("faces")
@pytest.mark.parametrize(("name", "count"), [("two_people.jpg", 2), ("biden.jpg", 1), ("obama-1080p.jpg", 1)])
def test_people_are_counted(finder, name, count):
    assert len(finder.find([Image.open(PEOPLE / name).convert("RGB")])[0]) == count


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((512, 512), (512, 512)),
        ((64, 64), (192, 192)),
        ((64, 128), (192, 384)),
        ((4000, 3000), (1600, 1200)),
        ((16, 16), (128, 128)),
    ],
)
def test_size_for_detection(size, expected):
    assert detection_size(size) == expected


# --- crops --------------------------------------------------------------------------------------------------------


def test_facenet_crop_is_that_of_the_library(photo, face):
    expected = MTCNN(image_size=160, margin=14, post_process=True)(photo)
    assert torch.equal(facenet_crop(photo, face), expected)


def test_similarity_transform_undoes_a_known_one():
    known = SimilarityTransform(scale=0.4, rotation=0.3, translation=(12, -7))
    found = similarity_transform(ARCFACE_TEMPLATE, known(ARCFACE_TEMPLATE))
    assert np.allclose(found, known.params)


def estimated(source: np.ndarray, target: np.ndarray) -> SimilarityTransform:
    if hasattr(SimilarityTransform, "from_estimate"):
        return SimilarityTransform.from_estimate(source, target)
    found = SimilarityTransform()  # scikit-image before 0.26
    assert found.estimate(source, target)
    return found


def test_similarity_transform_of_noisy_points_agrees_with_scikit_image():
    source = np.random.default_rng(0).normal(0, 30, (5, 2)) + 50
    expected = estimated(source, ARCFACE_TEMPLATE)
    assert np.allclose(similarity_transform(source, ARCFACE_TEMPLATE), expected.params)


def crowd() -> Image.Image:
    """A large face and two small ones."""
    canvas = Image.new("RGB", (900, 600))
    for side, place in ((600, (0, 0)), (150, (620, 40)), (110, (700, 400))):
        canvas.paste(Image.fromarray(astronaut()).resize((side, side)), place)
    return canvas


@pytest.mark.slow
def test_the_largest_face_alone_is_found_where_all_faces_are(finder, photo):
    large = photo.crop((100, 0, 350, 250))
    far = Image.new("RGB", (900, 700))
    far.paste(photo.resize((110, 110)), (300, 300))
    demo = [Image.open(file).convert("RGB") for file in sorted((DEMO / "photos/astronaut").iterdir())]
    wall, tiny = photo.crop((0, 0, 90, 90)), Image.new("RGB", (8, 8))
    images = [
        photo,
        large,
        large.resize((512, 512)).rotate(12),
        large.resize((64, 64)),
        crowd(),
        far,
        wall,
        tiny,
        *demo,
    ]
    check_largest(finder, images)


@pytest.mark.slow
@needs.shared("faces")
@pytest.mark.parametrize("side", [64, 300, 900])
def test_the_largest_face_of_real_photos_is_found_where_all_faces_are(finder, side):
    photos = [Image.open(file).convert("RGB") for file in sorted((SHARED / "faces").rglob("*.jpg"))]
    for image in photos:
        image.thumbnail((side, side))
    check_largest(finder, photos)


def test_only_images_without_a_large_face_are_looked_through_for_smaller_ones(photo, monkeypatch):
    finder, looked = FaceFinder(), []
    slide = Detector.slide

    def noting(self, table, images, scale):
        looked.append(len(images))
        return slide(self, table, images, scale)

    monkeypatch.setattr(Detector, "slide", noting)
    canvas = Image.new("RGB", (512, 512))
    portrait, middle, far = photo.crop((130, 0, 330, 200)).resize((512, 512)), canvas.copy(), canvas.copy()
    middle.paste(portrait.resize((220, 220)), (100, 200))
    far.paste(portrait.resize((90, 90)), (300, 300))
    faces = [found[0].short_side / 512 for found in finder.find_largest([far, portrait, middle])]
    assert faces[1] > 1 / 4 > faces[2] > 3 / 20 > faces[0]
    assert looked == sorted(looked, reverse=True), "from large faces to small ones, none of them twice"
    assert set(looked) == {3, 2, 1}
    assert len(looked) == len(pyramid(512, 20, 0.709))


def check_largest(finder, images) -> None:
    found, largest = finder.find(images), finder.find_largest(images)
    assert [bool(faces) for faces in largest] == [bool(faces) for faces in found]
    for expected, (face,) in ((faces[0], alone) for faces, alone in zip(found, largest, strict=True) if faces):
        assert np.abs(face.box - expected.box).max() < 1e-2
        assert np.abs(face.landmarks - expected.landmarks).max() < 1e-2
        assert face.probability == pytest.approx(expected.probability, abs=1e-5)


@pytest.mark.parametrize(
    ("size", "scale", "turn"), [(112, 1.3, 0.0), (112, 3.5, 0.5), (56, 1.7, -1.2), (112, 0.6, 3.1)]
)
def test_arcface_crop_puts_the_landmarks_on_the_template(size, scale, turn):
    place = SimilarityTransform(scale=scale, rotation=turn, translation=(400, 420))
    landmarks = place(ARCFACE_TEMPLATE)
    x, y = np.meshgrid(np.arange(900) + 0.5, np.arange(900) + 0.5)
    for index, (dot_x, dot_y) in enumerate(landmarks):
        dot = 255 * np.exp(-((x - dot_x) ** 2 + (y - dot_y) ** 2) / (2 * (3 * scale) ** 2))
        image = Image.fromarray(np.repeat(dot[:, :, None].astype(np.uint8), 3, axis=2))
        crop = arcface_crop(image, Face(np.array([0.0, 0, 900, 900]), landmarks, 1.0), size)[:, :, 0]
        middle = [(crop.sum(axis=axis) * (np.arange(size) + 0.5)).sum() / crop.sum() for axis in (0, 1)]
        assert crop.shape == (size, size)
        assert np.abs(np.array(middle) - ARCFACE_TEMPLATE[index] * (size / 112)).max() < 0.2


def test_dlib_crop_puts_the_landmarks_on_dlibs_template():
    landmarks = SimilarityTransform(scale=1.4, rotation=0.4, translation=(60, 90))(DLIB_TEMPLATE)
    x, y = np.meshgrid(np.arange(400) + 0.5, np.arange(400) + 0.5)
    for expected, (dot_x, dot_y) in zip(DLIB_TEMPLATE, landmarks, strict=True):
        dot = 255 * np.exp(-((x - dot_x) ** 2 + (y - dot_y) ** 2) / (2 * 4**2))
        image = Image.fromarray(np.repeat(dot[:, :, None].astype(np.uint8), 3, axis=2))
        crop = dlib_crop(image, Face(np.array([0.0, 0, 400, 400]), landmarks, 1.0))[:, :, 0]
        middle = [(crop.sum(axis=axis) * (np.arange(150) + 0.5)).sum() / crop.sum() for axis in (0, 1)]
        assert crop.shape == (150, 150)
        assert np.abs(np.array(middle) - expected).max() < 0.2


def test_arcface_crop_agrees_with_scikit_image(photo, face):
    to_template = estimated(face.landmarks - 0.5, ARCFACE_TEMPLATE - 0.5)
    expected = warp(np.asarray(photo), to_template.inverse, output_shape=(112, 112), order=3, preserve_range=True)
    assert np.abs(arcface_crop(photo, face) - expected).mean() < 2.5  # gray levels; theirs is not averaged


def test_a_large_face_does_not_alias():
    stripes = np.zeros((1200, 1200, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    large = Face(np.array([0.0, 0, 1200, 1200]), ARCFACE_TEMPLATE * 10, 1.0)
    crop = arcface_crop(Image.fromarray(stripes), large)[5:-5, 5:-5]
    assert crop.std() < 8
    assert abs(crop.mean() - 127.5) < 2
