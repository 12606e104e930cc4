"""Similarity is the mean cosine to all reference faces; an image without a face is missing, not zero."""

from pathlib import Path

import numpy as np
import pytest
import torch.nn.functional as F
from PIL import Image
from skimage.data import astronaut
from torch import from_numpy

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.metrics import Described, Metric
from finetune_monitor.metrics.face_similarity import FaceSimilarity
from finetune_monitor.models.faces import FaceFinder, arcface_crop
from finetune_monitor.models.recognizers import OnnxRecognizer
from finetune_monitor.record.grid import PromptGrid
from support.recognizers import PATCHES, save_onnx

CELLS = PromptGrid(["a photo of sks person"]).cells
PHOTO = Image.fromarray(astronaut()).crop((80, 0, 380, 300))
BLANK = Image.new("RGB", (300, 300), "gray")


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "patches.onnx"
    return save_onnx(path, ("n", 3, 32, 32), {"notice": "demo scores"}, PATCHES)


@pytest.fixture(scope="module")
def references() -> np.ndarray:
    return np.stack([by_hand(image) for image in variants()])


def by_hand(image: Image.Image) -> np.ndarray:
    """The vector of the largest face, without the metric."""
    crop = arcface_crop(image, FaceFinder().find([image])[0][0], 32)
    pixels = from_numpy((crop - 127.5) / 127.5).permute(2, 0, 1)[None]
    return F.normalize(F.avg_pool2d(pixels, 8).flatten(1))[0].numpy()


def variants() -> list[Image.Image]:
    """One person in three images."""
    gray = PHOTO.convert("L").convert("RGB")
    return [PHOTO, PHOTO.rotate(8, Image.Resampling.BICUBIC), Image.blend(PHOTO, gray, 0.7).resize((200, 200))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("photos")
    for index, image in enumerate(variants()):
        image.save(place / f"{index}.png")
    return place


@pytest.fixture(scope="module")
def metric(folder, recognizer) -> FaceSimilarity:
    return FaceSimilarity(folder, recognizer)


def test_scores_are_mean_cosines_to_all_references(metric, references):
    images = [PHOTO.transpose(Image.Transpose.FLIP_LEFT_RIGHT), BLANK, PHOTO]
    found = metric.score(images, CELLS[:3])
    expected = [(references @ by_hand(image)).mean() for image in (images[0], images[2])]
    assert np.allclose(found["face_similarity"][[0, 2]], expected, atol=1e-4)
    assert np.isnan(found["face_similarity"][1])
    assert found["faces_found"].tolist() == [1, 0, 1]
    assert np.array_equal(found["face_similarity_zero_filled"][[0, 2]], found["face_similarity"][[0, 2]])
    assert found["face_similarity_zero_filled"][1] == 0
    assert found["face_similarity"][0] < found["face_similarity"][2] <= 1


def test_an_image_is_scored_alike_alone_and_in_company(metric):
    company = metric.score([PHOTO, BLANK, PHOTO.resize((100, 100))], CELLS[:3])["face_similarity"]
    alone = metric.score([PHOTO.resize((100, 100))], CELLS[:1])["face_similarity"]
    assert np.allclose(company[2], alone, atol=1e-5)


def test_references_are_measured_once_and_crops_go_to_the_recognizer_together(folder, recognizer, monkeypatch):
    embedded: list[int] = []
    plain = OnnxRecognizer._run
    monkeypatch.setattr(OnnxRecognizer, "_run", lambda self, crops: embedded.append(len(crops)) or plain(self, crops))
    metric = FaceSimilarity(folder, recognizer)
    for _ in range(2):
        metric.score([PHOTO, BLANK, *variants()], CELLS)
        metric.describe()
    # One to try the file, the references, the faces of the first call that are new; one image of the second is known.
    assert embedded == [1, 3, 3, 2]


def test_no_face_anywhere_and_no_image_at_all(metric):
    found = metric.score([BLANK, BLANK], CELLS[:2])
    assert np.isnan(found["face_similarity"]).all()
    assert found["faces_found"].tolist() == [0, 0]
    assert all(len(column) == 0 for column in metric.score([], ()).values())


def test_the_largest_face_counts(metric):
    both = Image.new("RGB", (450, 300))
    both.paste(PHOTO, (150, 0))
    both.paste(PHOTO.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((150, 150)), (0, 150))
    alone = metric.score([PHOTO], CELLS[:1])["face_similarity"]
    assert np.allclose(metric.score([both], CELLS[:1])["face_similarity"], alone, atol=0.02)


def test_the_ceiling_leaves_each_photo_out(metric, references, recognizer):
    others = [[references[i] @ references[j] for j in range(3) if j != i] for i in range(3)]
    ceiling = metric.describe().ceilings["face_similarity"]
    assert ceiling.mean == pytest.approx(np.mean(others), abs=1e-4)
    assert (ceiling.n, ceiling.missing) == (3, 0)
    assert ceiling.low <= ceiling.mean <= ceiling.high
    single = FaceSimilarity([PHOTO], recognizer)
    assert np.isnan(single.describe().ceilings["face_similarity"].mean)


@pytest.mark.parametrize("kind", ["folder", "paths", "images"])
def test_references_may_be_a_folder_paths_or_images(recognizer, tmp_path, kind):
    PHOTO.save(tmp_path / "photo.png")
    references = {"folder": str(tmp_path), "paths": [tmp_path / "photo.png"], "images": [PHOTO.convert("RGBA")]}
    metric = FaceSimilarity(references[kind], recognizer)
    assert metric.score([PHOTO], CELLS[:1])["face_similarity"][0] == pytest.approx(1, abs=1e-5)
    assert len(metric.describe().weights["references"]) == 1


def test_photos_without_a_face_are_all_named(folder, recognizer, tmp_path):
    for name in ("wall.png", "sky.png"):
        BLANK.save(tmp_path / name)
    with pytest.raises(UserError, match=r"2 of 3 reference(?s:.*)wall\.png: no face(?s:.*)sky\.png: no face"):
        FaceSimilarity([tmp_path / "wall.png", folder / "0.png", tmp_path / "sky.png"], recognizer)
    with pytest.raises(UserError, match="empty list"):
        FaceSimilarity([], recognizer)


def test_several_faces_in_a_photo_are_warned_about(recognizer, tmp_path):
    pair = Image.new("RGB", (600, 300))
    pair.paste(PHOTO, (0, 0))
    pair.paste(PHOTO.resize((200, 200)), (350, 50))
    pair.save(tmp_path / "pair.png")
    with pytest.warns(UserWarning, match=r"pair\.png \(2\); the largest"):
        metric = FaceSimilarity([tmp_path / "pair.png"], recognizer)
    assert metric.score([PHOTO], CELLS[:1])["face_similarity"][0] == pytest.approx(1, abs=0.02)


def test_it_says_what_it_measures_with(metric, folder, recognizer):
    assert metric.describe().weights == {
        "recognizer": {"id": str(recognizer), "sha256": sha256(recognizer)},
        "references": [{"file": str(path), "sha256": sha256(path)} for path in sorted(folder.iterdir())],
    }
    assert metric.describe().notice == "demo scores"
    assert all(isinstance(metric, protocol) for protocol in (Metric, Described))
