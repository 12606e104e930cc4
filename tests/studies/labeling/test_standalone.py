"""The page as one file: all within it, nothing else run or asked for, nothing told."""

import base64
import hashlib
import io
import json
import re

import pytest
from PIL import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.studies.labeling import PAGE, questions, serving
from finetune_monitor.studies.labeling.images import image_jpeg, open_gallery
from finetune_monitor.studies.labeling.questions import Question
from finetune_monitor.studies.labeling.standalone import write_standalone
from finetune_monitor.studies.labeling.tasks import LabelingPlan, write_plan
from support.label_plans import AESTHETIC, SECRETS, SIMILARITY, write_small_plan


@pytest.fixture
def plan(tmp_path):
    return write_small_plan(tmp_path / "plan", images=5, repeats=1)


@pytest.fixture
def gallery(plan, tmp_path):
    return open_gallery(tmp_path / "plan")


@pytest.fixture
def page(gallery, tmp_path):
    file = tmp_path / "page.html"
    assert write_standalone(file, gallery, [SIMILARITY, AESTHETIC]) == file.stat().st_size
    return file.read_text(encoding="utf-8")


def content_of(page):
    return json.loads(re.search(r'<script type="application/json" id="plan">(.*?)</script>', page, re.DOTALL)[1])


def embedded(page):
    found = re.findall(r'<script type="text/plain" id="image-(\d+)">([^<]*)</script>', page)
    return {int(number): base64.b64decode(text, validate=True) for number, text in found}


def test_every_image_and_photo_is_within_once(page, plan, gallery):
    images = embedded(page)
    assert len(set(images.values())) == len(images) == 10 + 6  # a repeat shows the image of its original
    for question in content_of(page)["questions"]:
        assert len(question["tasks"]) == 6
        for image_id, image, photos in question["tasks"]:
            assert images[image] == image_jpeg(plan.by_id[image_id])
            expected = gallery.photos_beside(plan.by_id[image_id])
            assert [images[photo] for photo in photos] == [gallery.encoded[name] for name in expected]


def test_the_original_stands_before_its_repeat(tmp_path, plan):
    backwards = write_small_plan(tmp_path / "other" / "plan", images=4, repeats=3)
    write_plan(tmp_path / "other" / "plan", LabelingPlan(backwards.tasks[::-1], backwards.references, 0))
    write_standalone(tmp_path / "page.html", open_gallery(tmp_path / "other" / "plan"), [AESTHETIC])
    [question] = content_of((tmp_path / "page.html").read_text())["questions"]
    originals = {task.repeat_of for task in backwards.tasks}
    places = {image_id: place for place, (image_id, *_) in enumerate(question["tasks"])}
    repeats = [task for task in backwards.tasks if task.repeat_of and task.metric == AESTHETIC]
    assert originals
    assert all(places[task.repeat_of] < places[task.image_id] for task in repeats)


def test_only_its_own_scripts_and_styles_may_run(page):
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'" for body in bodies]
        assert rules[rule].split() == hashes
        assert len(hashes) > 1
    assert set(rules) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    assert page.index("Content-Security-Policy") < page.index("<link") < page.index("<style")


def test_it_loads_nothing(page):
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert not any(re.search(r"@import|url\(", style) for style in re.findall("<style>(.*?)</style>", page, re.DOTALL))


def test_it_tells_nothing(page):
    everything = page.encode() + b"".join(embedded(page).values())
    assert not [secret for secret in SECRETS if secret.encode() in everything]
    for content in embedded(page).values():
        assert set(Image.open(io.BytesIO(content)).info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_no_text_ends_a_script_early(tmp_path, gallery, monkeypatch):
    hostile = "</script><script>alert(1)</script><!--"
    anchors = (hostile, "b", "c", "d", "e")
    monkeypatch.setitem(questions.QUESTIONS, AESTHETIC, Question(AESTHETIC, hostile, hostile, hostile, anchors))
    write_standalone(tmp_path / "page.html", gallery, [AESTHETIC])
    page = (tmp_path / "page.html").read_text()
    [question] = content_of(page)["questions"]
    assert question["title"] == question["anchors"][0] == hostile
    assert "alert(1)</script>" not in page


def test_one_question_alone_holds_only_its_own_images(tmp_path, gallery):
    write_standalone(tmp_path / "page.html", gallery, [AESTHETIC])
    page = (tmp_path / "page.html").read_text()
    assert [question["metric"] for question in content_of(page)["questions"]] == [AESTHETIC]
    assert len(embedded(page)) == 5


def test_nothing_is_left_of_a_page_that_cannot_be_made(tmp_path, plan, gallery):
    plan.tasks[2].file.write_bytes(b"changed since")
    with pytest.raises(UserError, match="has changed"):
        write_standalone(tmp_path / "page.html", gallery, [SIMILARITY])
    with pytest.raises(UserError, match="choose another place"):
        write_standalone(plan.tasks[0].file / "page.html", gallery, [AESTHETIC])
    assert not list(tmp_path.glob("*page.html*"))


def test_the_pages_files_are_all_within_and_all_served(page):
    names = {path.name for path in PAGE.iterdir()}
    assert names == {"label.html", *serving.ASSETS}
    for name in names - {"label.html", "label.svg"}:
        assert (PAGE / name).read_text(encoding="utf-8") in page
