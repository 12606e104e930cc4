"""A photo without a face among others: it is used for training, left out of the references, and named."""

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.metrics.face_similarity import FaceSimilarity
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.history import read_run
from finetune_monitor.training.config import load_config
from finetune_monitor.training.run import run

RECOGNIZER = "dlib"
PHOTO = Image.fromarray(astronaut()).crop((80, 0, 380, 300))
BLANK = Image.new("RGB", (300, 300), "gray")
CELLS = PromptGrid(["a photo of sks person"]).cells


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, image in {"0": PHOTO, "1-wall": BLANK, "2": PHOTO.rotate(8, Image.Resampling.BICUBIC)}.items():
        image.save(folder / f"{name}.png")
    return folder


def test_it_is_left_out_of_the_references_and_named(photos):
    with pytest.warns(UserWarning, match=r"photos without a face: \S*1-wall\.png; images are not compared with them"):
        metric = FaceSimilarity(photos, RECOGNIZER)
    described = metric.describe()
    assert [photo["sha256"] for photo in described.weights["references"]] == [
        sha256(photos / name) for name in ("0.png", "2.png")
    ]
    assert len(described.thumbnails) == 2
    without = FaceSimilarity([photos / "0.png", photos / "2.png"], RECOGNIZER)
    assert np.array_equal(
        metric.score([PHOTO], CELLS[:1])["face_similarity"], without.score([PHOTO], CELLS[:1])["face_similarity"]
    )


@pytest.mark.parametrize(
    ("references", "held_out", "message"),
    [
        ([BLANK], [], "1 of 1 reference photos show no face"),
        ([PHOTO, BLANK], [], "1 of 2 reference photos show no face, expected 2 or more to compare with"),
        ([PHOTO], [BLANK], "1 of 2 reference photos show no face, expected 1 or more held-out photos with a face"),
    ],
)
def test_too_few_that_are_left_are_an_error(references, held_out, message):
    with pytest.raises(UserError, match=message):
        FaceSimilarity(references, RECOGNIZER, held_out=held_out)


def test_a_held_out_photo_without_a_face_is_left_out():
    with pytest.warns(UserWarning, match="photos without a face: photo 2"):
        metric = FaceSimilarity([PHOTO], RECOGNIZER, held_out=[PHOTO.rotate(5), BLANK])
    assert len(metric.describe().weights["held_out"]) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:photos without a face")
def test_it_is_trained_on(photos, write_config, tmp_path, caplog):
    (photos / "notes.txt").write_text("mine")
    folder = tmp_path / "run"
    overrides = [f"output_dir={folder}", f"data.instance_images={photos}", "train.max_steps=2"]
    assert run(load_config(write_config(), overrides)) == 0
    assert "4 found, 3 used; skipped: notes.txt" in caplog.text
    history = read_run(folder)
    assert len(history.weights["face_similarity"]["references"]) == 2
    assert len(history.weights.get("copying", {}).get("references", [1, 2, 3])) == 3
