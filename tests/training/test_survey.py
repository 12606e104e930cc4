"""What the model will see: crops, faces, outliers, copies, and blur, with real photos and a real detector."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage.data import astronaut

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import each_image
from finetune_monitor.models.face_reader import FaceReader
from finetune_monitor.record.run_directory import CONTACT_SHEET, PHOTOS
from finetune_monitor.training.contact_sheet import contact_sheet
from finetune_monitor.training.crops import SMALL_FACE
from finetune_monitor.training.looking import show
from finetune_monitor.training.photos import TrainingPhoto
from finetune_monitor.training.survey import Survey, Surveyor, blur, luminance, recorded_squares

PROMPT = "a photo of sks person"


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    return FaceReader("dlib")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A portrait, a wide shot, a scaled copy as JPEG, a blurred one, and a photo without a face."""
    folder = tmp_path_factory.mktemp("photos")
    portrait = Image.fromarray(astronaut()).crop((100, 0, 350, 250))
    portrait.save(folder / "a.png")
    wide = Image.new("RGB", (1400, 700), (90, 120, 160))
    wide.paste(portrait, (1100, 60))
    wide.save(folder / "b.png")
    portrait.resize((180, 180)).save(folder / "c.jpg", quality=70)
    turned = portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turned.resize((512, 512)).filter(ImageFilter.GaussianBlur(11)).save(folder / "d.png")
    Image.new("RGB", (300, 200), (30, 120, 30)).save(folder / "e.png")
    return folder


def surveyed(folder: Path, reader: FaceReader | None, crop: str = "face", known: dict | None = None) -> Survey:
    photos = [TrainingPhoto(path, PROMPT) for path in sorted(folder.iterdir())]
    surveyor = Surveyor(folder, reader, crop, 128, known or {})
    return surveyor.survey(photos, each_image([photo.path for photo in photos]))


@pytest.fixture(scope="module")
def survey(folder, reader) -> Survey:
    return surveyed(folder, reader)


@pytest.mark.slow
def test_each_photo_is_marked_with_what_is_wrong_with_it(survey):
    marks = {view.name: survey.marks(index) for index, view in enumerate(survey.views)}
    assert marks == {
        "a.png": ["same as c.jpg"],
        "b.png": [],
        "c.jpg": ["same as a.png"],
        "d.png": ["blurred"],
        "e.png": ["no face found"],
    }


def test_each_kind_of_problem_is_one_sentence_with_a_remedy(survey):
    said = "\n".join(survey.warnings)
    assert "no face found: e.png; cropped at the center" in said
    assert "the same photo twice: a.png = c.jpg; it counts double" in said
    assert "blurred: d.png;" in said
    assert len(survey.warnings) == 3


def test_a_wide_shot_is_narrowed_to_its_face(folder, reader, survey):
    [_, wide, *_] = survey.views
    assert wide.face_share > SMALL_FACE
    assert wide.photo.square == wide.square != (350, 0, 700)
    assert survey.squares[folder / "b.png"] == wide.square
    assert folder / "a.png" not in survey.squares
    center = surveyed(folder, reader, "center")
    assert center.squares == {}
    assert center.views[1].square == (350, 0, 700)
    assert "small face" in center.marks(1)
    assert any("b.png (0%)" in each and "set data.crop=face" in each for each in center.warnings)


def test_a_held_out_photo_that_is_trained_on_in_another_size_is_said(survey, folder):
    kept = {"small.jpg": luminance(Image.open(folder / "a.png").convert("RGB").resize((90, 90)))}
    said = "\n".join(replace(survey, held_out=kept).warnings)
    assert "held-out photos that are also trained on, scaled or encoded differently: small.jpg = a.png" in said


@pytest.mark.slow
def test_two_cuts_of_one_photo_are_the_same_once_they_are_cropped(reader, tmp_path):
    wide = Image.new("RGB", (1500, 900), (90, 120, 160))
    wide.paste(Image.fromarray(astronaut()), (500, 200))
    wide.paste("red", (1100, 0, 1500, 900))
    wide.save(tmp_path / "a.png")
    wide.crop((200, 100, 1200, 800)).save(tmp_path / "b.png")
    assert surveyed(tmp_path, reader).same == [(0, 1)]
    assert surveyed(tmp_path, reader, "center").same == []


def test_another_person_is_told_from_the_others(survey):
    rows = np.eye(4)[[0, 0, 0, 0, 1]] * 0.8 + np.eye(4)[[2, 2, 2, 2, 3]] * 0.6
    views = [replace(view, embedding=row) for view, row in zip(survey.views, rows, strict=True)]
    other = replace(survey, views=views)
    assert [other.is_outlier(i) for i in range(5)] == [False] * 4 + [True]
    assert other.marks(4)[0] == "another person?"
    assert "another person? e.png (0.00): similarity to the other photos, where 0.75 is usual" in other.warnings[0]


def test_two_photos_do_not_say_which_one_is_wrong(survey):
    two = replace(survey, views=survey.views[:2])
    assert not two.is_outlier(0)
    assert any("found 2 photos; from fewer than 3" in warning for warning in two.warnings)


def test_photos_of_things_are_not_searched_for_faces(folder):
    survey = surveyed(folder, None, "center")
    assert [view.box for view in survey.views] == [None] * 5
    assert not any("face" in warning for warning in survey.warnings)


def test_photos_without_any_face_get_one_sentence(tmp_path, reader):
    for index in range(3):
        Image.effect_noise((64, 64), 60).convert("RGB").save(tmp_path / f"{index}.png")
    [said] = surveyed(tmp_path, reader).warnings
    assert "no photo shows a face" in said
    assert "data.crop=center" in said


def test_the_record_has_every_photo_and_is_private(survey, tmp_path):
    show(tmp_path, survey)
    content = json.loads((tmp_path / PHOTOS).read_text())
    assert content["warnings"] == survey.warnings
    wide = content["photos"][1]
    assert (wide["file"], wide["prompt"], wide["repeats"], wide["outlier"]) == ("b.png", PROMPT, 1, False)
    assert all(0 <= edge <= 1 for edge in wide["box"])
    assert wide["face_share"] == pytest.approx(survey.views[1].face_share, abs=1e-4)
    assert content["photos"][4]["box"] is content["photos"][4]["similarity"] is None
    assert all(stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600 for name in (PHOTOS, CONTACT_SHEET))


def test_a_resumed_run_crops_as_it_did_before(survey, folder, reader, tmp_path):
    show(tmp_path, survey)
    moved = dict.fromkeys(recorded_squares(tmp_path), (300, 10, 600))
    assert surveyed(folder, reader, known=moved).views[1].square == (300, 10, 600)
    assert recorded_squares(tmp_path / "new") == {}


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"photos": [{"sha256": 1}]}', '{"photos": [{"square": [1]}]}'])
def test_a_damaged_record_is_named(tmp_path, content):
    (tmp_path / PHOTOS).write_text(content)
    with pytest.raises(UserError, match=r"photos\.json.*delete it: the crops are then found again"):
        recorded_squares(tmp_path)


def test_a_sheet_that_cannot_be_written_stops_nothing(survey, tmp_path, caplog):
    show(tmp_path / "missing" / "folder", survey)
    (tmp_path / PHOTOS).mkdir()
    show(tmp_path, survey)
    assert "the contact sheet cannot be written" in caplog.text


def test_the_sheet_shows_every_crop_and_warning(survey):
    sheet = contact_sheet(survey)
    assert sheet.width == 5 * (256 + 12) + 12
    one = contact_sheet(replace(survey, views=survey.views[:1]))
    assert one.size < sheet.size


def test_blur_rises_with_blurring():
    image = Image.fromarray(astronaut()).convert("L")
    found = [blur(image.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 1, 2, 4)]
    assert found == sorted(found)
    assert blur(Image.new("L", (50, 50), 7)) == 0
