"""The cascade finds in a batch what facenet-pytorch finds in each image alone."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from facenet_pytorch import MTCNN
from PIL import Image
from skimage.data import astronaut

from finetune_monitor.models.face_detection import Detector, area_pool, pyramid, shrunken, summed_area_table
from support import needs
from support.places import DEMO, SHARED

PEOPLE = SHARED / "faces/face_recognition/examples"
PHOTO = Image.fromarray(astronaut())


@pytest.fixture(scope="module")
def library() -> MTCNN:
    return MTCNN(keep_all=True)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(MTCNN())


def several() -> Image.Image:
    """Four faces from 25 to 230 pixels, one of them over the edge."""
    canvas = Image.new("RGB", (900, 700))
    for side, place in ((512, (-150, 0)), (300, (600, 50)), (400, (500, 320)), (110, (30, 560))):
        canvas.paste(PHOTO.resize((side, side)), place)
    return canvas


def images() -> dict[str, Image.Image]:
    noise = np.random.default_rng(0).integers(0, 255, (200, 260, 3), dtype=np.uint8)
    sizes = {f"photo {side}": PHOTO.resize((side, side)) for side in (150, 256, 333, 512)}
    demo = {file.name: Image.open(file).convert("RGB") for file in sorted((DEMO / "photos/astronaut").iterdir())}
    crop = PHOTO.crop((100, 0, 357, 281))
    without = {
        "noise": Image.fromarray(noise),
        "blank": Image.new("RGB", (64, 200)),
        "wall": PHOTO.crop((0, 0, 90, 90)),
    }
    return {**sizes, **demo, "crop": crop, "several": several(), **without}


@pytest.mark.slow
def test_an_image_gives_what_the_library_gives(library, detector):
    counts = faces_found(images(), library, detector)
    assert {0, 1} < set(counts)
    assert max(counts) >= 4


@pytest.mark.slow
@needs.shared("faces")
def test_a_photo_of_people_gives_what_the_library_gives(library, detector):
    people = {file.name: Image.open(file).convert("RGB") for file in PEOPLE.glob("*p*.jpg")}
    assert {1, 2} <= set(faces_found(people, library, detector))


def faces_found(images: dict[str, Image.Image], library: MTCNN, detector: Detector) -> list[int]:
    """How many faces each image has; each must be where the library finds it."""
    counts = []
    for name, image in images.items():
        boxes, probabilities, landmarks = library.detect(image, landmarks=True)
        (found,) = detector.detect([np.asarray(image)])
        assert len(found.boxes) == (0 if boxes is None else len(boxes)), name
        counts.append(len(found.boxes))
        if counts[-1]:
            sides = found.boxes[:, 2:] - found.boxes[:, :2]
            order = np.argsort(sides.prod(axis=1))[::-1]  # as the library sorts
            assert np.abs(found.boxes[order] - boxes).max() < 1e-2, name
            assert np.abs(found.landmarks[order] - landmarks).max() < 1e-2, name
            assert np.abs(found.probabilities[order] - probabilities.astype(float)).max() < 1e-5, name
    return counts


@pytest.mark.slow
def test_company_changes_nothing(detector):
    around = [PHOTO, PHOTO.rotate(15), Image.new("RGB", (512, 512)), several().resize((512, 512)), PHOTO.rotate(-20)]
    together = detector.detect([np.asarray(image) for image in around])
    assert sum(len(found.boxes) for found in together) >= 5
    for image, found in zip(around, together, strict=True):
        (alone,) = detector.detect([np.asarray(image)])
        assert len(found.boxes) == len(alone.boxes)
        assert np.allclose(found.boxes, alone.boxes, atol=1e-2)
        assert np.allclose(found.landmarks, alone.landmarks, atol=1e-2)
        assert np.allclose(found.probabilities, alone.probabilities, atol=1e-5)
    assert detector.detect([]) == []


@pytest.mark.parametrize("shape", [(12, 12), (13, 200), (19, 19), (20, 400), (40, 21)])
def test_tiny_and_elongated_images_are_taken(detector, shape):
    noise = np.random.default_rng(1).integers(0, 255, (3, *shape, 3), dtype=np.uint8)
    assert len(detector.detect(list(noise))) == 3


@pytest.mark.parametrize("shape", [(40, 40), (23, 57)])
def test_boxes_outside_the_image_are_left_out(detector, shape):
    """A network that says yes to everything and pushes every box far to the right: nothing to cut out remains."""
    networks = MTCNN()
    with torch.no_grad():
        networks.pnet.conv4_1.bias += torch.tensor([-50.0, 50.0])
        networks.pnet.conv4_2.bias += torch.tensor([20.0, 0.0, 20.0, 0.0])
    (found,) = Detector(networks).detect([np.full((*shape, 3), 128, dtype=np.uint8)])
    assert found.boxes.shape == (0, 4)
    assert found.landmarks.shape == (0, 5, 2)


def test_the_pyramid_ends_where_a_cell_is_as_large_as_the_image():
    scales = pyramid(512, 20, 0.709)
    assert scales[0] == 0.6
    assert np.allclose(np.diff(np.log(scales)), np.log(0.709))
    assert scales[-1] * 512 >= 12 > scales[-1] * 512 * 0.709
    assert pyramid(19, 20, 0.709) == []


@pytest.mark.parametrize("size", [(24, 24), (48, 48), (7, 31)])
def test_boxes_are_pooled_as_torch_pools_them(size):
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 90, 110, 3), dtype=np.uint8))
    boxes = torch.tensor([[0, 0, 110, 90], [5, 7, 6, 8], [10, 0, 33, 90], [80, 60, 110, 90], [1, 2, 49, 50]])
    which = torch.tensor([0, 1, 1, 0, 1])
    pooled = area_pool(summed_area_table(noise), which, boxes, size)
    for found, index, (left, top, right, bottom) in zip(pooled, which, boxes.tolist(), strict=True):
        crop = noise[index, top:bottom, left:right].permute(2, 0, 1).float()
        assert torch.allclose(found, F.adaptive_avg_pool2d(crop, size), atol=1e-4)


@pytest.mark.parametrize("size", [(54, 66), (12, 15), (1, 1)])
def test_entire_images_are_shrunken_as_boxes_are(size):
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 90, 110, 3), dtype=np.uint8))
    table, whole = summed_area_table(noise), torch.tensor([[0, 0, 110, 90]] * 3)
    assert torch.equal(shrunken(table, torch.arange(3), size), area_pool(table, torch.arange(3), whole, size))


def test_the_table_holds_the_sums_of_all_pixels_above_and_to_the_left():
    noise = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)
    table = summed_area_table(torch.from_numpy(noise)).numpy()
    assert (table[:, 1:, 1:] == noise.astype(np.int64).cumsum(1).cumsum(2)).all()
    assert not table[:, 0].any()
    assert not table[:, :, 0].any()
