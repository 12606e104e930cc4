"""What would cost an hour before anybody notices is said before the first step."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.stats.estimate import Estimate
from finetune_monitor.training.config import load_config
from finetune_monitor.training.config.subject import subject_words
from finetune_monitor.training.early_warnings import (
    about_captions,
    about_class_images,
    about_config,
    about_floor,
)
from finetune_monitor.training.photos import TrainingPhoto
from support.places import ROOT

SETTINGS = {
    "monitor.every=7": "monitor.every is 7, but training ends at step 6, so only the base model and the end",
    "train.learning_rate=0.01": "train.learning_rate is 0.01, 100 times the usual 0.0001 for method: lora with adamw",
    "train.learning_rate=1e-7": "1/1e+03 of the usual 0.0001",
    "train.method=full": "50 times the usual 2e-06 for method: full",
    "monitor.grid.prompts=[a photo of sks person, a photo of a person]": "'a photo of a person' without 'sks', so",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_unusual_settings_are_said(write_config, setting):
    [said] = about_config(load_config(write_config(), [setting]))
    assert SETTINGS[setting] in said


@pytest.mark.parametrize(
    "settings", [[], ["monitor.every=6"], ["train.learning_rate=1e-3"], ["train.learning_rate=1e-5"]]
)
def test_usual_settings_are_not(write_config, settings):
    assert list(about_config(load_config(write_config(), settings))) == []


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("[!s]*.yaml")) + sorted((ROOT / "configs").glob("sd*.yaml"))
)
def test_no_shipped_config_is_unusual(path):
    assert list(about_config(load_config(path))) == []


NAMED = [
    (None, "a photo of sks person", {"sks"}),
    (None, "a photo of a person", set()),
    ("a photo of a person", "a photo of sks person", {"sks"}),
    ("person", "a photo of sks person", {"sks"}),
    ("a photo of a person", "a photo of Sks woman", {"sks"}),
    ("a photo of a person", "a photo of a woman", {"woman"}),
]


@pytest.mark.parametrize(("others", "prompt", "names"), NAMED)
def test_the_subject_is_named_by_what_the_class_prompt_and_ordinary_prompts_lack(write_config, others, prompt, names):
    more = [f"data.class_prompt={others}"] if others else []
    assert subject_words(load_config(write_config(), [f"data.instance_prompt={prompt}", *more]).data) == names


def test_captions_that_name_the_subject_differently_are_said(write_config):
    config = load_config(write_config())
    prompts = ["a photo of sks person", "SKS, at sea", "ohwx man", "ohwx man at sea"]
    photos = [TrainingPhoto(Path(f"{i}.png"), prompt) for i, prompt in enumerate(prompts)]
    [said] = about_captions(config, photos)
    assert said.startswith("captions of 2 of 3 photos name the subject differently, without 'sks': 2.png, 3.png;")
    assert list(about_captions(config, photos[:2])) == []


class Faces:
    """Stands for a recognizer: every image shows the one face."""

    def __init__(self, row):
        self.row = row

    def read_largest(self, images):
        return [self.row[None] for _ in images]


def test_class_images_that_show_the_subject_are_said(tmp_path, photos):
    from finetune_monitor.models.face_reader import FaceReader
    from finetune_monitor.training.survey import Surveyor

    paths, reader = sorted(photos.iterdir()), FaceReader("dlib")
    images = [Image.open(path).convert("RGB") for path in paths]
    survey = Surveyor(photos, reader, "face", 64, {}).survey([TrainingPhoto(path, "") for path in paths], images)
    [said] = about_class_images(survey, reader, paths)
    assert "3 of 3 class images look like the subject" in said
    Image.effect_noise((64, 64), 60).convert("RGB").save(tmp_path / "noise.png")
    assert list(about_class_images(survey, reader, [tmp_path / "noise.png"])) == []
    stranger = Faces(-survey.views[0].embedding)
    assert list(about_class_images(survey, stranger, paths)) == []
    usual = np.mean([view.embedding for view in survey.views], axis=0)
    similar = Faces(0.8 * survey.usual_similarity * usual / (usual @ usual))  # as strangers are with some recognizers
    assert list(about_class_images(survey, similar, paths)) == []
    assert list(about_class_images(survey, None, paths)) == []


@pytest.mark.parametrize(("ceiling", "is_said"), [(0.3, True), (0.5, False), (float("nan"), False)])
def test_a_ceiling_below_the_floor_is_said(ceiling, is_said):
    first = Evaluation(0, 0.0, 0.0, {"face_similarity": Estimate(0.4, 0.3, 0.5, 8, 0)}, (), {})
    ceilings = {"face_similarity": Estimate(ceiling, ceiling, ceiling, 3, 0), "other": Estimate(0, 0, 0, 3, 0)}
    found = list(about_floor(first, ceilings))
    assert len(found) == is_said
    if is_said:
        assert (
            "the photos themselves reach 0.30 (ceiling), less than the base model's images with 0.40 (floor)"
            in found[0]
        )
